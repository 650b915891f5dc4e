"""`rl4sys-stream demo autoscale`: train on twins, judge, serve live, in one command."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from examples.autoscale.application import DEFINITION, LIVE_DEFINITION, greedy, make_agent
from examples.autoscale.control import STEP_S, Controller, ControlLoop, Outcome
from examples.autoscale.demand import DAY_STEPS, WEEK_STEPS, Demand, Span, flight_demand
from examples.autoscale.evaluation import (
    HELD_OUT_SEED,
    VALIDATION_SEED,
    baselines,
    compare,
    play,
    score,
)
from examples.autoscale.handover import hand_over
from examples.autoscale.live import play_live
from examples.autoscale.report import (
    AGENT,
    LiveScore,
    Results,
    draw_comparison,
    draw_curves,
    draw_day,
    markdown,
    write_json,
)
from examples.autoscale.training import CurvePoint, Plan, Training, train
from examples.autoscale.twin import Twin
from rl4sys_stream import StreamAgent
from rl4sys_stream.cli.demo.system import require_extras
from rl4sys_stream.cli.demo.systems import (
    DemoClient,
    ProgressLine,
    SystemOptions,
    open_client,
    system_options,
)
from rl4sys_stream.clock import Clock, SystemClock
from rl4sys_stream.errors import ExitCode, StreamError

__all__ = ["AutoscaleOptions", "command", "measure", "run"]

EXTRAS: Final = {"matplotlib": "examples"}
LIVE_CLIENT: Final = "autoscale_live"
LIVE_BEGIN: Final = DAY_STEPS // 6
"""At four in the morning, so that the steep hour is in it."""
LIVE_STEPS: Final = 160
LIVE_WEEK: Final = 2
LIVE_TWINS: Final = 10
MODEL_WAIT_S: Final = 300.0

DEFAULT_PLAN: Final = Plan()

Makers = Mapping[str, Callable[[], Controller]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscaleOptions:
    """One run.

    Attributes:
        system: What every demo takes.
        plan: How much is trained.
        weeks: Held-out weeks to judge by, at most.
        live_steps: Steps on live pools; 0 for none.
        stretch: How much slower their time passes; see `LivePool`.
    """

    system: SystemOptions
    plan: Plan = DEFAULT_PLAN
    weeks: int = 20
    live_steps: int = LIVE_STEPS
    stretch: float = 1.0


@click.command()
@system_options
@click.option(
    "--decisions",
    type=click.IntRange(min=1),
    default=DEFAULT_PLAN.decisions,
    show_default=True,
    help="To learn from, on twins.",
)
@click.option(
    "--weeks", type=click.IntRange(min=1), default=20, show_default=True, help="To judge by."
)
@click.option(
    "--live-steps",
    type=click.IntRange(min=0, max=20_000),
    default=LIVE_STEPS,
    show_default=True,
    help="On live pools, half a second each; 0 for none.",
)
@click.option(
    "--stretch",
    type=click.FloatRange(min=1.0),
    default=1.0,
    show_default=True,
    help="Let live time pass so much slower, on a machine that is busy otherwise.",
)
def command(
    seed: int,
    out: Path,
    redis_url: str | None,
    config: Path | None,
    plain: bool,
    decisions: int,
    weeks: int,
    live_steps: int,
    stretch: float,
) -> ExitCode:
    """Scale a service: learn on a twin, then serve a live pool of processes with the same model.

    The demand is a year of flight departures from New York; the last 40 % of it judge. Exits with 0
    if the agent costs less than the tuned HPA and the weekly-predictive controller, with 1 if not.
    """
    return run(
        AutoscaleOptions(
            system=SystemOptions(
                seed=seed, out=out, redis_url=redis_url, config=config, plain=plain
            ),
            plan=Plan(decisions=decisions),
            weeks=weeks,
            live_steps=live_steps,
            stretch=stretch,
        )
    )


def run(options: AutoscaleOptions) -> ExitCode:
    """Train, judge, serve live, leave a run folder.

    Returns:
        OK if the agent's cost on held-out weeks is below that of every baseline.

    Raises:
        ConfigError: If something is missing or set wrongly.
        BrokerError: If the broker cannot be used.
        StreamError: If the worker is silent, or the live pool does not come up.
    """
    results = measure(options)
    won = all(results.agent.objective > other.objective for other in results.held_out[:-1])
    return ExitCode.OK if won else ExitCode.FAILURE


def measure(options: AutoscaleOptions) -> Results:
    """Train, judge, serve live, leave a run folder; see `run` for what is raised."""
    require_extras(EXTRAS, own=options.system.redis_url is None)
    demand, clock = flight_demand(), SystemClock()
    line = ProgressLine(clock, plain=options.system.plain)
    with open_client(options.system, DEFINITION, clock) as client:
        return _train_and_judge(options, demand, client, line, clock)


def _train_and_judge(
    options: AutoscaleOptions,
    demand: Demand,
    client: DemoClient,
    line: ProgressLine,
    clock: Clock,
) -> Results:
    """Everything between a broker and a filled run folder."""
    weeks = demand.held_out.windows(WEEK_STEPS)[: options.weeks]
    training, trained_s = _train(options, demand, client, line, clock)
    best = training.best
    line.say(f"version {best.version} is the best on validation weeks; the live client serves it")
    with _serving_agent(client, best.version) as agent:
        makers = {**baselines(demand), AGENT: lambda: greedy(agent)}
        line.say(f"judging on {len(weeks)} held-out weeks, on twins")
        held_out = compare(makers, demand, weeks, HELD_OUT_SEED)
        live = _play_live(options, demand, makers, client, line)
        day = Span(weeks[0].start + DAY_STEPS, weeks[0].start + 2 * DAY_STEPS)
        _draw_twin_day(client, demand, makers, day)
    validation = options.plan.validation(demand)
    results = Results(
        seed=options.system.seed,
        training=training,
        trained_s=trained_s,
        validation=tuple(compare(baselines(demand), demand, validation, VALIDATION_SEED)),
        held_out=tuple(held_out),
        live=live,
        stretch=options.stretch,
    )
    _leave(client, results, line)
    return results


def _train(
    options: AutoscaleOptions,
    demand: Demand,
    client: DemoClient,
    line: ProgressLine,
    clock: Clock,
) -> tuple[Training, float]:
    plan, seed = options.plan, options.system.seed
    line.say(f"{plan.decisions:,} decisions on {plan.twins} twins; the worker is starting")

    def tell(point: CurvePoint) -> None:
        reached = point.score
        line.say(
            f"{point.decisions:>7,} decisions, version {point.version}: objective "
            f"{reached.objective:.3f} on validation weeks, {reached.replicas:.1f} replicas, "
            f"{reached.late:.2%} late"
        )

    url = client.system.address.secret_url
    with make_agent(client.folder.definition, url, seed) as agent:
        begun = clock.monotonic()
        training = train(agent, demand, plan, seed, tell, on_day=line.update)
        return training, clock.monotonic() - begun


@contextmanager
def _serving_agent(client: DemoClient, version: int) -> Iterator[StreamAgent]:
    """An agent of the live client, which acts by the version that was handed over."""
    folder, url = client.folder, client.system.address.secret_url
    shutil.copy(LIVE_DEFINITION, folder.definitions)
    model = folder.path / "model.npz"
    hand_over(version, source=client.folder.client, target=LIVE_CLIENT, url=url, file=model)
    with make_agent(LIVE_DEFINITION, url) as agent:
        if not agent.wait_for_model(MODEL_WAIT_S):
            raise StreamError(f"no model of {LIVE_CLIENT} came; {agent.status().last_error}")
        yield agent


def _play_live(
    options: AutoscaleOptions,
    demand: Demand,
    makers: Makers,
    client: DemoClient,
    line: ProgressLine,
) -> tuple[LiveScore, ...]:
    if not options.live_steps:
        return ()
    begin = demand.held_out.windows(WEEK_STEPS)[LIVE_WEEK].start
    begin += -begin % DAY_STEPS + LIVE_BEGIN
    span = Span(begin, begin + options.live_steps)
    line.say(
        f"serving live: {len(makers)} pools of processes at once, {span.end - span.start} steps, "
        f"{(span.end - span.start) * STEP_S * options.stretch:.0f} s"
    )
    url, seed = client.system.address.secret_url, options.system.seed
    runs = play_live(makers, demand, span, url, seed, options.stretch)
    draw_day(
        client.folder.path / "live.png",
        {name: run.outcomes for name, run in runs.items()},
        "live pools of processes, held-out demand",
    )
    twins = compare(makers, demand, [span] * LIVE_TWINS, HELD_OUT_SEED)
    return tuple(
        LiveScore(
            live=score(name, run.outcomes),
            twin=twin,
            behind_s=run.behind_s,
            died=sum(outcome.reading.died for outcome in run.outcomes),
        )
        for (name, run), twin in zip(runs.items(), twins, strict=True)
    )


def _draw_twin_day(client: DemoClient, demand: Demand, makers: Makers, day: Span) -> None:
    runs: dict[str, list[Outcome]] = {
        name: play(ControlLoop(Twin(HELD_OUT_SEED), demand), day, make())
        for name, make in makers.items()
    }
    draw_day(client.folder.path / "day.png", runs, "a held-out day, on twins")


def _leave(client: DemoClient, results: Results, line: ProgressLine) -> None:
    folder = client.folder.path
    write_json(folder / "results.json", [results])
    draw_curves(client.folder.learning_curve, [results])
    draw_comparison(folder / "comparison.png", [results])
    table = markdown(results)
    (folder / "results.md").write_text(table, encoding="utf-8")
    line.say("\n" + table)
    line.say(f"run folder: {folder}")
