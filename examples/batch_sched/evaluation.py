"""How good a schedule is: mean bounded slowdown of each window, and what that makes over many.

Windows differ by a hundred times, so the figure that counts is the geometric mean: the arithmetic
one says how it went in the two or three worst.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from examples.batch_sched.cluster import Cluster
from examples.batch_sched.heuristics import HEURISTICS, Heuristic, play
from examples.batch_sched.windows import Window, slowdown

__all__ = ["AGENT", "Score", "baselines", "score"]

AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Score:
    """What one way to schedule reached.

    Attributes:
        name: Of the way.
        slowdowns: Mean bounded slowdown of each window; at least 1.
    """

    name: str
    slowdowns: tuple[float, ...]

    @property
    def geometric_mean(self) -> float:
        """Over the windows."""
        return float(np.exp(np.log(self.slowdowns).mean()))

    @property
    def mean(self) -> float:
        """Over the windows."""
        return float(np.mean(self.slowdowns))


def score(name: str, run: Callable[[Window], float], windows: Sequence[Window]) -> Score:
    """Run all windows one way."""
    return Score(name, tuple(run(window) for window in windows))


def baselines(
    cluster: Cluster,
    windows: Sequence[Window],
    heuristics: Mapping[str, Heuristic] = HEURISTICS,
) -> tuple[Score, ...]:
    """What the heuristics reach, in their order."""

    def ruled(heuristic: Heuristic) -> Callable[[Window], float]:
        def run(window: Window) -> float:
            cluster.restore(window.start, window.end)
            play(cluster, heuristic)
            return slowdown(cluster, window.jobs)

        return run

    return tuple(score(name, ruled(rule), windows) for name, rule in heuristics.items())
