"""Controllers on live pools, all at the same time, under the same demand.

They share the machine, so whatever it is busy with besides meets all of them alike.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from examples.autoscale.control import Controller, ControlLoop, Outcome
from examples.autoscale.demand import Demand, Span
from examples.autoscale.evaluation import play
from examples.autoscale.pool import LivePool

__all__ = ["LiveRun", "play_live"]


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One controller on a live pool.

    Attributes:
        outcomes: Of each step.
        behind_s: How much later than planned its steps began, in sum.
    """

    outcomes: tuple[Outcome, ...]
    behind_s: float


def play_live(
    makers: Mapping[str, Callable[[], Controller]],
    demand: Demand,
    span: Span,
    url: str,
    seed: int,
    stretch: float = 1.0,
) -> dict[str, LiveRun]:
    """Let each controller have a pool of its own for a span of the demand.

    Args:
        makers: Name -> a fresh controller.
        demand: The load.
        span: What is played; half a second a step, times `stretch`.
        url: Of the broker that carries the requests.
        seed: Of the arrivals, which are the same for all.
        stretch: See `LivePool`.

    Raises:
        StreamError: If replicas do not come up, or the broker is gone.
    """

    def run(make: Callable[[], Controller]) -> LiveRun:
        with LivePool(url, seed, stretch) as pool:
            outcomes = play(ControlLoop(pool, demand), span, make())
            return LiveRun(tuple(outcomes), pool.behind_s)

    with ThreadPoolExecutor(len(makers), "autoscale-live") as threads:
        return dict(zip(makers, threads.map(run, makers.values()), strict=True))
