"""`rl4sys-stream demo batch_sched`: train and judge in one command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from examples.batch_sched.application import DEFINITION, Scheduler, make_agent
from examples.batch_sched.cluster import Cluster
from examples.batch_sched.data import GAIA_PROCESSORS, GAIA_WITHOUT_QUEUES, gaia_trace
from examples.batch_sched.evaluation import AGENT, Score, baselines, score
from examples.batch_sched.report import (
    Results,
    draw_comparison,
    draw_curves,
    markdown,
    summarise,
    write_runs,
)
from examples.batch_sched.swf import Trace, read_swf
from examples.batch_sched.training import CurvePoint, Plan, Training, train
from examples.batch_sched.windows import FOLDS, Selection, Split, make_windows, split
from rl4sys_stream.broker.control import Selection as Agents
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.steering import Cause, pin
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

__all__ = ["BatchSchedOptions", "command", "measure", "run"]

PLAN: Final = Plan()
MODEL_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSchedOptions:
    """One run.

    Attributes:
        system: What every demo takes.
        plan: How much is trained.
        prior: Tell the agent to prefer the smallest area, and let it learn where not to.
        fold: Which third of the trace is held out, from 0.
        trace: An SWF file; None takes Gaia's.
        processors: Of the cluster.
        without_queues: Of the trace's jobs, those of these queues are left out.
    """

    system: SystemOptions
    plan: Plan = PLAN
    prior: bool = False
    fold: int = FOLDS - 1
    trace: Path | None = None
    processors: int = GAIA_PROCESSORS
    without_queues: tuple[int, ...] = GAIA_WITHOUT_QUEUES


@dataclass(frozen=True, slots=True)
class _Task:
    """What is scheduled.

    Attributes:
        name: Of the trace's file.
        cluster: One that runs it.
        windows: Parts of it.
    """

    name: str
    cluster: Cluster
    windows: Split


@click.command()
@system_options
@click.option("--prior", is_flag=True, help="Begin with smallest area first instead of nothing.")
@click.option(
    "--decisions",
    type=click.IntRange(min=1),
    default=PLAN.decisions,
    show_default=True,
    help="To learn from.",
)
@click.option(
    "--fold",
    type=click.IntRange(0, FOLDS - 1),
    default=FOLDS - 1,
    show_default=True,
    help="Which third of the trace is held out.",
)
@click.option(
    "--trace",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Your own, in the Standard Workload Format. Default: fetches that of Gaia, 2014.",
)
@click.option(
    "--processors",
    type=click.IntRange(min=1),
    help=f"Of the cluster. Default: {GAIA_PROCESSORS} for Gaia; your own trace needs it.",
)
@click.option(
    "--without-queue",
    "without_queues",
    type=int,
    multiple=True,
    help="Leave out the jobs of a queue of your own trace; may be repeated.",
)
def command(
    seed: int,
    out: Path,
    redis_url: str | None,
    config: Path | None,
    plain: bool,
    prior: bool,
    decisions: int,
    fold: int,
    trace: Path | None,
    processors: int | None,
    without_queues: tuple[int, ...],
) -> ExitCode:
    """Schedule the jobs of a supercomputer: learn on one part of a real trace, judge on another.

    Compares what was learned with FCFS, SJF, SAF, F1, WFP3 and UNICEP, all with EASY backfilling.
    Exits with 0 if the agent's slowdown is below that of SJF and FCFS, with 1 if not.
    """
    if trace is not None and processors is None:
        raise click.UsageError("--trace needs --processors: how many your cluster has")
    system = SystemOptions(seed=seed, out=out, redis_url=redis_url, config=config, plain=plain)
    return run(
        BatchSchedOptions(
            system=system,
            plan=Plan(decisions=decisions),
            prior=prior,
            fold=fold,
            trace=trace,
            processors=processors or GAIA_PROCESSORS,
            without_queues=GAIA_WITHOUT_QUEUES if trace is None else without_queues,
        )
    )


def run(options: BatchSchedOptions) -> ExitCode:
    """Train, judge, leave a run folder.

    Returns:
        OK if the agent's geometric mean is below that of SJF and FCFS.

    Raises:
        ConfigError: If something is missing or set wrongly, or the trace cannot be used.
        BrokerError: If the broker cannot be used.
        StreamError: If the worker is silent.
    """
    results = measure(options)
    return ExitCode.OK if max(results.of("SJF"), results.of("FCFS")) < 1.0 else ExitCode.FAILURE


def measure(options: BatchSchedOptions) -> Results:
    """Train, judge, leave a run folder; see `run` for what is raised."""
    require_extras({}, own=options.system.redis_url is None)
    clock = SystemClock()
    line = ProgressLine(clock, plain=options.system.plain)
    task = _make_task(options, line)
    with open_client(options.system, DEFINITION, clock) as client:
        begun = clock.monotonic()
        training = _train(options, task, client, line)
        wall_s = clock.monotonic() - begun
        agent = _judge(options, task, client, training, clock)
        results = Results(
            trace=task.name,
            seed=options.system.seed,
            fold=options.fold,
            prior=options.prior,
            training=training,
            wall_s=wall_s,
            validation=baselines(task.cluster, task.windows.validation),
            held_out=baselines(task.cluster, task.windows.held_out),
            agent=agent,
        )
        _leave(client, results, line)
    return results


def _make_task(options: BatchSchedOptions, line: ProgressLine) -> _Task:
    if options.trace is None:
        line.say("looking for Gaia's trace; the first time it is fetched")
    path = options.trace or gaia_trace()
    trace: Trace = read_swf(path, without_queues=options.without_queues)
    selection = Selection(processors=options.processors)
    windows = split(trace, make_windows(trace, selection), selection, options.fold)
    line.say(
        f"{path.name}: {len(trace):,} jobs on {options.processors:,} processors; windows of "
        f"{selection.arrivals} arrivals: {len(windows.training)} to learn from, "
        f"{len(windows.validation)} to choose the version by, {len(windows.held_out)} held out"
    )
    return _Task(path.name, Cluster(trace, options.processors), windows)


def _train(
    options: BatchSchedOptions, task: _Task, client: DemoClient, line: ProgressLine
) -> Training:
    wanted = options.plan.decisions
    line.say(f"{wanted:,} decisions to learn from; the worker is starting")

    def tell(point: CurvePoint) -> None:
        line.say(
            f"{point.decisions:>7,} decisions, version {point.version}: slowdown "
            f"{point.score.geometric_mean:.2f} on validation windows"
        )

    url, seed = client.system.address.secret_url, options.system.seed
    with make_agent(client.folder.definition, redis_url=url, seed=seed) as agent:
        scheduler = Scheduler(task.cluster, agent, prior=options.prior)
        return train(
            agent,
            scheduler,
            task.windows,
            options.plan,
            seed,
            on_point=tell,
            on_window=lambda decisions: line.update(
                f"{decisions:,} of {wanted:,} decisions, version {agent.version}"
            ),
        )


def _judge(
    options: BatchSchedOptions, task: _Task, client: DemoClient, training: Training, clock: Clock
) -> Score:
    """Held-out windows by the best version: the client is pinned to it, whatever is newest."""
    best = training.best.version
    cause = Cause("demo batch_sched", clock.wall_ms(), "the best on validation windows")
    pin(client.system.broker, ClientKeys(client.folder.client), best, Agents(), cause)
    url = client.system.address.secret_url
    with make_agent(client.folder.definition, redis_url=url) as agent:
        if not agent.wait_for_model(MODEL_WAIT_S) or agent.version != best:
            raise StreamError(
                f"version {best} of {client.folder.client} did not come, but {agent.version}; "
                f"{agent.status().last_error}"
            )
        scheduler = Scheduler(task.cluster, agent, prior=options.prior)
        return score(AGENT, scheduler.judge, task.windows.held_out)


def _leave(client: DemoClient, results: Results, line: ProgressLine) -> None:
    """Write the run folder, say how it went."""
    folder, training = client.folder, results.training
    table = markdown(results)
    (folder.path / "results.md").write_text(table, encoding="utf-8")
    kept = summarise(results)
    write_runs(folder.path / "results.json", [kept])
    draw_curves(folder.learning_curve, [kept])
    draw_comparison(folder.path / "comparison.png", results)
    line.say(f"version {training.best.version}, the best on validation windows:\n\n{table}")
    line.say(
        f"{training.decisions:,} decisions in {training.windows:,} windows took "
        f"{results.wall_s:.0f} s\nrun folder: {folder.path}"
    )
