"""Serving: the model of an earlier training under the live client's name, on live pools.

    python -m examples.autoscale.serving runs/autoscale-…/model.npz

Its opponents have pools of their own beside it, and twins say what was to be expected of each.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import click

from examples.autoscale.application import LIVE_DEFINITION, greedy, make_agent
from examples.autoscale.control import STEP_S, Controller
from examples.autoscale.demand import DAY_STEPS, WEEK_STEPS, Demand, Span, flight_demand
from examples.autoscale.evaluation import HELD_OUT_SEED, baselines, compare, score
from examples.autoscale.live import play_live
from examples.autoscale.report import AGENT, LiveScore, draw_day, live_table
from rl4sys_stream import StreamAgent
from rl4sys_stream.cli.demo.systems import (
    DemoClient,
    ProgressLine,
    SystemOptions,
    open_client,
    system_options,
)
from rl4sys_stream.clock import SystemClock
from rl4sys_stream.errors import StreamError
from rl4sys_stream.exchange import ClientModels

__all__ = ["LiveSettings", "Makers", "serve", "serve_model", "serving_agent", "stretch_option"]

LIVE_CLIENT: Final = "autoscale_live"
BEGIN: Final = DAY_STEPS // 6
"""At four in the morning, so that the steep hour is in it."""
WEEK: Final = 2
TWINS: Final = 10
MODEL_WAIT_S: Final = 300.0

Makers = Mapping[str, Callable[[], Controller]]
_Function = TypeVar("_Function", bound=Callable[..., object])


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSettings:
    """How live pools are played.

    Attributes:
        steps: Of half a second.
        stretch: How much slower time passes; see `LivePool`.
        seed: Of the arrivals.
    """

    steps: int = 160
    stretch: float = 1.0
    seed: int = 1


def stretch_option(function: _Function) -> _Function:
    """Give a click command the option --stretch."""
    return click.option(
        "--stretch",
        type=click.FloatRange(min=1.0),
        default=1.0,
        show_default=True,
        help="Let live time pass so much slower, on a machine that is busy otherwise.",
    )(function)


@contextmanager
def serving_agent(client: DemoClient, model: Path) -> Iterator[StreamAgent]:
    """An agent of the live client, held at the model in a file.

    Raises:
        StreamError: If the model cannot be imported, or does not come.
    """
    url = client.system.address.secret_url
    if not (client.folder.definitions / LIVE_DEFINITION.name).exists():
        shutil.copy(LIVE_DEFINITION, client.folder.definitions)
    with ClientModels(LIVE_CLIENT, url) as models:
        models.import_file(model, pinned=True, reason="the best version on validation weeks")
    with make_agent(LIVE_DEFINITION, url) as agent:
        if not agent.wait_for_model(MODEL_WAIT_S):
            raise StreamError(f"no model of {LIVE_CLIENT} came; {agent.status().last_error}")
        yield agent


def serve(
    settings: LiveSettings, demand: Demand, makers: Makers, client: DemoClient, line: ProgressLine
) -> tuple[LiveScore, ...]:
    """Let each controller have a live pool on a held-out day; leaves a plot in the run folder.

    Raises:
        StreamError: If a pool does not come up, or the broker is gone.
    """
    begin = demand.held_out.windows(WEEK_STEPS)[WEEK].start
    begin += -begin % DAY_STEPS + BEGIN
    span = Span(begin, begin + settings.steps)
    line.say(
        f"serving live: {len(makers)} pools of processes at once, {settings.steps} steps, "
        f"{settings.steps * STEP_S * settings.stretch:.0f} s"
    )
    url = client.system.address.secret_url
    runs = play_live(makers, demand, span, url, settings.seed, settings.stretch)
    draw_day(
        client.folder.path / "live.png",
        {name: run.outcomes for name, run in runs.items()},
        "live pools of processes, held-out demand",
    )
    twins = compare(makers, demand, [span] * TWINS, HELD_OUT_SEED)
    return tuple(
        LiveScore(
            live=score(name, run.outcomes),
            twin=twin,
            behind_s=run.behind_s,
            died=sum(outcome.reading.died for outcome in run.outcomes),
        )
        for (name, run), twin in zip(runs.items(), twins, strict=True)
    )


def serve_model(
    system: SystemOptions, settings: LiveSettings, model: Path
) -> tuple[LiveScore, ...]:
    """Start a broker, import the model, and serve it beside its opponents.

    Raises:
        BrokerError: If the broker cannot be used.
        StreamError: See `serving_agent` and `serve`.
    """
    clock, demand = SystemClock(), flight_demand()
    line = ProgressLine(clock, plain=system.plain)
    with (
        open_client(system, LIVE_DEFINITION, clock) as client,
        serving_agent(client, model) as agent,
    ):
        makers = {**baselines(demand), AGENT: lambda: greedy(agent)}
        live = serve(settings, demand, makers, client, line)
    line.say(live_table(live, settings.stretch))
    line.say(f"run folder: {client.folder.path}")
    return live


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@system_options
@click.option("--steps", default=LiveSettings().steps, show_default=True, help="Of half a second.")
@stretch_option
def main(
    model: Path,
    seed: int,
    out: Path,
    redis_url: str | None,
    config: Path | None,
    plain: bool,
    steps: int,
    stretch: float,
) -> None:
    """Serve MODEL on a live pool, beside its opponents."""
    system = SystemOptions(seed=seed, out=out, redis_url=redis_url, config=config, plain=plain)
    serve_model(system, LiveSettings(steps=steps, stretch=stretch, seed=seed), model)


if __name__ == "__main__":
    main()
