"""`rl4sys-stream demo pg_steer`: train and judge in one command."""

from pathlib import Path
from typing import Final

import click
import numpy as np
from numpy.typing import NDArray

from examples.pg_steer.database import TIMEOUT_S, Cost
from examples.pg_steer.experiment import (
    Judges,
    PgSteerOptions,
    measure_judges,
    open_database,
    train_and_score,
)
from examples.pg_steer.report import (
    UNITS,
    Results,
    draw_comparison,
    draw_curves,
    markdown,
    write_json,
)
from examples.pg_steer.workload import FileWorkload, TemplateWorkload, Workload
from rl4sys_stream.cli.demo.system import require_extras
from rl4sys_stream.cli.demo.systems import (
    CHECKOUT,
    DemoClient,
    ProgressLine,
    SystemOptions,
    open_client,
    system_options,
)
from rl4sys_stream.clock import SystemClock
from rl4sys_stream.errors import ExitCode

__all__ = ["DEFINITIONS", "command", "run"]

DEFINITIONS: Final = {"ppo": "pg_steer.json", "dqn": "pg_steer_dqn.json"}


@click.command()
@system_options
@click.option("--algorithm", type=click.Choice([*DEFINITIONS]), default="ppo", show_default=True)
@click.option(
    "--cost",
    type=click.Choice([cost.value for cost in Cost]),
    default=Cost.TIME.value,
    show_default=True,
    help="Milliseconds of waiting, milliseconds of the server's CPU, or blocks touched.",
)
@click.option(
    "--count", type=click.IntRange(min=1), default=3000, show_default=True, help="To learn from."
)
@click.option(
    "--held-out", type=click.IntRange(min=1), default=350, show_default=True, help="To judge by."
)
@click.option(
    "--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Of these."
)
@click.option(
    "--static",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Training queries on which the static hints compete.",
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0.0, min_open=True),
    default=TIMEOUT_S,
    show_default=True,
    help="PostgreSQL gives up on a query after so long.",
)
@click.option("--postgres-url", metavar="URL", help="A server that runs. Default: starts one.")
@click.option(
    "--queries",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Your own queries, one a line, on the server at --postgres-url.",
)
@click.option("--wheel", is_flag=True, help="Start the server of the wheel.")
@click.option(
    "--months",
    type=click.IntRange(1, 12),
    default=12,
    show_default=True,
    help="Of flights to load: fewer are faster.",
)
def command(
    seed: int,
    out: Path,
    redis_url: str | None,
    config: Path | None,
    plain: bool,
    algorithm: str,
    cost: str,
    count: int,
    held_out: int,
    repeats: int,
    static: int,
    timeout_s: float,
    postgres_url: str | None,
    queries: Path | None,
    wheel: bool,
    months: int,
) -> ExitCode:
    """Steer PostgreSQL's planner, query by query, over the flights of New York in 2013.

    Starts PostgreSQL, broker and worker, answers queries and learns from each, and compares what
    was learned with the default planner and every static hint. Exits with 0 if it is faster than
    the default planner and the best static hint, with 1 if not.
    """
    if queries is not None and postgres_url is None:
        raise click.UsageError("--queries asks a database of yours: give --postgres-url, too")
    return run(
        PgSteerOptions(
            system=SystemOptions(
                seed=seed, out=out, redis_url=redis_url, config=config, plain=plain
            ),
            algorithm=algorithm,
            cost=Cost(cost),
            count=count,
            held_out=held_out,
            repeats=repeats,
            static=static,
            timeout_s=timeout_s,
            postgres_url=postgres_url,
            queries=queries,
            wheel=wheel,
            months=months,
        )
    )


def run(options: PgSteerOptions) -> ExitCode:
    """Train, judge, leave a run folder.

    Returns:
        OK if the agent's total is below the default planner's and the best static hint's.

    Raises:
        ConfigError: If something is missing or set wrongly.
        DatabaseError: If PostgreSQL cannot be used.
        BrokerError: If the broker cannot be used.
    """
    require_extras({}, own=options.system.redis_url is None)
    clock = SystemClock()
    line = ProgressLine(clock, plain=options.system.plain)
    workload = _workload(options)
    definition = CHECKOUT / "workers" / DEFINITIONS[options.algorithm]
    with (
        # First what fails at once: a folder, a definition, a broker. A database takes its time.
        open_client(options.system, definition, clock) as client,
        open_database(options, line) as database,
    ):
        judges = measure_judges(options, database, workload, line)
        line.say(f"answering {options.count:,} queries, and learning from each")
        results, choices = train_and_score(
            client, database, workload, judges, options.count, seed=options.system.seed, line=line
        )
        return _leave(client, results, judges, choices, line)


def _leave(
    client: DemoClient,
    results: Results,
    judges: Judges,
    choices: NDArray[np.int64],
    line: ProgressLine,
) -> ExitCode:
    """Write the run folder, say how it went."""
    folder = client.folder
    table = markdown(results)
    (folder.path / "results.md").write_text(table, encoding="utf-8")
    write_json(folder.path / "results.json", [results])
    draw_curves(folder.learning_curve, [results])
    draw_comparison(folder.path / "comparison.png", results, judges.held_out, choices)
    training, agent = results.training, results.agent
    line.say(table)
    line.say(
        f"the agent takes {agent.of_default:.0%} of the default planner's {UNITS[results.cost]} "
        f"and {results.of_best_static:.0%} of the best static hint's{_asking(results)}\n"
        f"{training.queries:,} queries in {training.wall_s:.0f} s, {training.failed} failed; a "
        f"query waits {training.agent.p50_ms:.2f} ms for the agent (99 %: "
        f"{training.agent.p99_ms:.2f}) and {training.explain.p50_ms:.1f} ms for the planner's "
        f"estimates (99 %: {training.explain.p99_ms:.1f})\n"
        f"run folder: {folder.path}"
    )
    learned = agent.of_default < 1.0 and results.of_best_static < 1.0
    return ExitCode.OK if learned else ExitCode.FAILURE


def _asking(results: Results) -> str:
    if results.asking is None or results.asking_of_best_static is None:
        return ""
    return (
        f"; with the asking {results.asking.of_default:.0%} and {results.asking_of_best_static:.0%}"
    )


def _workload(options: PgSteerOptions) -> Workload:
    if options.queries is not None:
        return FileWorkload(options.queries)
    return TemplateWorkload(options.held_out)
