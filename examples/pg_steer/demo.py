"""`rl4sys-stream demo pg_steer`: train and judge in one command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import click
import numpy as np
from numpy.typing import NDArray

from examples.pg_steer.application import make_agent
from examples.pg_steer.data import SCHEMA, load_flights
from examples.pg_steer.database import TIMEOUT_S, Cost, Database
from examples.pg_steer.evaluation import Table, baselines, best_static, choose, measure, score
from examples.pg_steer.hints import HINTS
from examples.pg_steer.report import (
    UNITS,
    Results,
    draw_comparison,
    draw_curves,
    markdown,
    write_json,
)
from examples.pg_steer.server import find_programs, private_server, programs_of_the_wheel
from examples.pg_steer.training import train
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
from rl4sys_stream.config import load_config
from rl4sys_stream.errors import ConfigError, ExitCode

__all__ = [
    "Judges",
    "PgSteerOptions",
    "command",
    "measure_judges",
    "open_database",
    "run",
    "train_and_score",
]

EXTRAS: Final = dict.fromkeys(("matplotlib", "psycopg"), "pg-steer")
DEFINITIONS: Final = {"ppo": "pg_steer.json", "dqn": "pg_steer_dqn.json"}
STATIC_SEED: Final = 1_000_000
"""Of the training queries on which static hints compete; no training of an agent has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PgSteerOptions:
    """One run.

    Attributes:
        system: What every demo takes.
        algorithm: "ppo" or "dqn": which definition of workers/ is taken.
        cost: What is measured and learned.
        count: Queries that the agent learns from.
        held_out: Queries that it is judged by.
        repeats: Runs of each of these under each hint; the cheapest counts.
        static: Training queries on which the static hints compete.
        timeout_s: PostgreSQL gives up on a query after so long.
        postgres_url: A server that runs already; None starts one.
        queries: A file of queries, one a line, to take instead of the templates.
        wheel: Start the server of the wheel, not an installed one.
        months: Of flights to load: fewer are faster.
    """

    system: SystemOptions
    algorithm: str = "ppo"
    cost: Cost = Cost.TIME
    count: int = 3000
    held_out: int = 350
    repeats: int = 3
    static: int = 200
    timeout_s: float = TIMEOUT_S
    postgres_url: str | None = field(default=None, repr=False)
    queries: Path | None = None
    wheel: bool = False
    months: int = 12


@dataclass(frozen=True, slots=True)
class Judges:
    """What an agent is compared with.

    Attributes:
        held_out: Held-out queries under every hint.
        static: Number of the hint that was best on training queries.
    """

    held_out: Table
    static: int


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
    require_extras(EXTRAS, own=options.system.redis_url is None)
    clock = SystemClock()
    line = ProgressLine(clock, plain=options.system.plain)
    workload = _workload(options)
    definition = CHECKOUT / "workers" / DEFINITIONS[options.algorithm]
    with (
        open_database(options, line) as database,
        open_client(options.system, definition, clock) as client,
    ):
        judges = measure_judges(options, database, workload, line)
        line.say(f"answering {options.count:,} queries, and learning from each")
        results, choices = train_and_score(
            client, database, workload, judges, options.count, seed=options.system.seed, line=line
        )
        return _leave(client, results, judges, choices, line)


@contextmanager
def open_database(options: PgSteerOptions, line: ProgressLine) -> Iterator[Database]:
    """The database of `options`, with its tables.

    Raises:
        ConfigError: If there is no PostgreSQL to start.
        DatabaseError: If it cannot be used.
    """
    with _server(options, line) as url:
        schema = SCHEMA if options.queries is None else ""
        if schema:
            line.say("loading the flights of 2013")
            load_flights(url, months=options.months)
        with Database(
            url, cost=options.cost, timeout_s=options.timeout_s, schema=schema
        ) as database:
            yield database


def measure_judges(
    options: PgSteerOptions, database: Database, workload: Workload, line: ProgressLine
) -> Judges:
    """Run held-out and some training queries under every hint."""
    repeats = 1 if options.cost is Cost.BLOCKS else options.repeats
    wanted = workload.held_out(options.held_out)
    line.say(f"running {len(wanted)} held-out queries under {len(HINTS)} hints, {repeats} times")
    held_out = measure(
        database,
        wanted,
        repeats=repeats,
        on_query=lambda count: line.update(f"query {count} of {len(wanted)}"),
    )
    line.say(f"running {options.static} training queries under {len(HINTS)} hints")
    training = measure(
        database,
        islice(workload.training(STATIC_SEED), options.static),
        on_query=lambda count: line.update(f"query {count} of {options.static}"),
    )
    if not len(held_out.queries) or not len(training.queries):
        raise ConfigError("PostgreSQL refuses every query; do they belong to this database?")
    return Judges(held_out, best_static(training))


def _workload(options: PgSteerOptions) -> Workload:
    if options.queries is not None:
        return FileWorkload(options.queries)
    return TemplateWorkload(options.held_out)


@contextmanager
def _server(options: PgSteerOptions, line: ProgressLine) -> Iterator[str]:
    if options.postgres_url is not None:
        yield options.postgres_url
        return
    programs = programs_of_the_wheel() if options.wheel else find_programs(os.environ)
    line.say(f"starting {programs / 'postgres'}")
    with private_server(programs) as url:
        yield url


def train_and_score(
    client: DemoClient,
    database: Database,
    workload: Workload,
    judges: Judges,
    count: int,
    *,
    seed: int,
    line: ProgressLine,
) -> tuple[Results, NDArray[np.int64]]:
    """One agent's training from nothing, and what it reached.

    Returns:
        The results, and the hint that the agent chose for each held-out query, `[N]`.
    """
    definition = client.folder.definition
    with make_agent(definition, redis_url=client.system.address.secret_url, seed=seed) as agent:
        training = train(
            agent,
            database,
            workload.training(seed),
            count,
            judges.held_out,
            on_query=line.update,
        )
        choices = choose(agent, judges.held_out)
    results = Results(
        algorithm=load_config(definition, environ={}).algorithm,
        seed=seed,
        cost=database.cost,
        server=database.server_version,
        held_out=len(judges.held_out.queries),
        best_static=HINTS[judges.static].name,
        scores=(*baselines(judges.held_out), score("agent", judges.held_out, choices)),
        training=training,
    )
    return results, choices


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
        f"and {results.of_best_static:.0%} of the best static hint's\n"
        f"{training.queries:,} queries in {training.wall_s:.0f} s, {training.failed} failed; a "
        f"query waits {training.agent.p50_ms:.2f} ms for the agent (99 %: "
        f"{training.agent.p99_ms:.2f}) and {training.explain.p50_ms:.1f} ms for the planner's "
        f"estimates (99 %: {training.explain.p99_ms:.1f})\n"
        f"run folder: {folder.path}"
    )
    learned = agent.of_default < 1.0 and results.of_best_static < 1.0
    return ExitCode.OK if learned else ExitCode.FAILURE
