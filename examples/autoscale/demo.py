"""`rl4sys-stream demo autoscale`: train on twins, judge, serve live, in one command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from examples.autoscale.application import DEFINITION, greedy, make_agent
from examples.autoscale.control import ControlLoop, Outcome
from examples.autoscale.demand import DAY_STEPS, WEEK_STEPS, Demand, Span, flight_demand
from examples.autoscale.evaluation import (
    HELD_OUT_SEED,
    VALIDATION_SEED,
    baselines,
    compare,
    floored,
    play,
)
from examples.autoscale.report import (
    AGENT,
    Results,
    draw_comparison,
    draw_curves,
    draw_day,
    markdown,
    write_json,
)
from examples.autoscale.serving import (
    LiveSettings,
    Makers,
    serve,
    serving_agent,
    stretch_option,
)
from examples.autoscale.training import CurvePoint, Plan, Training, train
from examples.autoscale.twin import Twin
from rl4sys_stream.cli.demo.system import require_extras
from rl4sys_stream.cli.demo.systems import (
    DemoClient,
    ProgressLine,
    SystemOptions,
    open_client,
    system_options,
)
from rl4sys_stream.clock import Clock, SystemClock
from rl4sys_stream.errors import ExitCode
from rl4sys_stream.exchange import ClientModels

__all__ = ["AutoscaleOptions", "command", "measure", "run"]


DEFAULT_PLAN: Final = Plan()
PLAIN: Final = ("HPA", "KEDA", "weekly predictive")
"""Whom the agent has to beat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscaleOptions:
    """One run.

    Attributes:
        system: What every demo takes.
        plan: How much is trained.
        weeks: Held-out weeks to judge by, at most.
        live: The part on live pools; None for none.
    """

    system: SystemOptions
    plan: Plan = DEFAULT_PLAN
    weeks: int = 20
    live: LiveSettings | None = None


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
    default=LiveSettings().steps,
    show_default=True,
    help="On live pools, half a second each; 0 for none.",
)
@stretch_option
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
    if the agent costs less than the tuned HPA, KEDA and the weekly-predictive controller, with 1 if
    not; what these reach with a tuned floor under them is in the table.
    """
    return run(
        AutoscaleOptions(
            system=SystemOptions(
                seed=seed, out=out, redis_url=redis_url, config=config, plain=plain
            ),
            plan=Plan(decisions=decisions),
            weeks=weeks,
            live=LiveSettings(steps=live_steps, stretch=stretch, seed=seed) if live_steps else None,
        )
    )


def run(options: AutoscaleOptions) -> ExitCode:
    """Train, judge, serve live, leave a run folder.

    Returns:
        OK if the agent's cost on held-out weeks is below that of every baseline without a floor.

    Raises:
        ConfigError: If something is missing or set wrongly.
        BrokerError: If the broker cannot be used.
        StreamError: If the worker is silent, or the live pool does not come up.
    """
    results = measure(options)
    won = all(results.better_than(name) > 0.0 for name in PLAIN)
    return ExitCode.OK if won else ExitCode.FAILURE


def measure(options: AutoscaleOptions) -> Results:
    """Train, judge, serve live, leave a run folder; see `run` for what is raised."""
    require_extras({}, own=options.system.redis_url is None)
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
    version, url = training.best.version, client.system.address.secret_url
    line.say(f"version {version} is the best on validation weeks; the live client serves it")
    model = client.folder.path / "model.npz"
    with ClientModels(client.folder.client, url) as models:
        models.export(version, model)
    with serving_agent(client, model) as agent:
        makers = {**baselines(demand), AGENT: lambda: greedy(agent)}
        line.say(f"judging on {len(weeks)} held-out weeks, on twins")
        judged = {**baselines(demand), **floored(demand), AGENT: makers[AGENT]}
        held_out = compare(judged, demand, weeks, HELD_OUT_SEED)
        live = serve(options.live, demand, makers, client, line) if options.live else ()
        day = Span(weeks[0].start + DAY_STEPS, weeks[0].start + 2 * DAY_STEPS)
        _draw_twin_day(client, demand, makers, day)
    validation, known = options.plan.validation(demand), {**baselines(demand), **floored(demand)}
    results = Results(
        seed=options.system.seed,
        training=training,
        trained_s=trained_s,
        validation=tuple(compare(known, demand, validation, VALIDATION_SEED)),
        held_out=tuple(held_out),
        live=live,
        stretch=options.live.stretch if options.live else 1.0,
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
