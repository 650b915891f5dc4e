"""The experiment: a database, what an agent is compared with, a training, and what it reached."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from examples.pg_steer.application import make_agent
from examples.pg_steer.data import SCHEMA, load_flights
from examples.pg_steer.database import TIMEOUT_S, Cost, Database, check_url
from examples.pg_steer.evaluation import (
    Table,
    baselines,
    best_static,
    by_template,
    choose,
    measure,
    score,
    with_asking,
)
from examples.pg_steer.hints import HINTS
from examples.pg_steer.report import Results
from examples.pg_steer.server import find_programs, private_server, programs_of_the_wheel
from examples.pg_steer.training import train
from examples.pg_steer.workload import Workload
from rl4sys_stream.cli.demo.systems import DemoClient, ProgressLine, SystemOptions
from rl4sys_stream.config import load_config
from rl4sys_stream.errors import ConfigError

__all__ = ["Judges", "PgSteerOptions", "measure_judges", "open_database", "train_and_score"]

STATIC_SEED: Final = 1_000_000
"""Of the training queries on which static hints compete; no training of an agent has it."""
ASKING: Final = "agent, asking included"


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
            url, cost=options.cost, timeout_s=options.timeout_s, schema=schema, read_only=True
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


@contextmanager
def _server(options: PgSteerOptions, line: ProgressLine) -> Iterator[str]:
    if options.postgres_url is not None:
        yield check_url(options.postgres_url)
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
    asking = None
    if database.cost is not Cost.BLOCKS:
        asking = with_asking(ASKING, judges.held_out, choices, training.agent.mean_ms)
    results = Results(
        algorithm=load_config(definition, environ={}).algorithm,
        seed=seed,
        cost=database.cost,
        server=database.server_version,
        held_out=len(judges.held_out.queries),
        best_static=HINTS[judges.static].name,
        scores=(*baselines(judges.held_out), score("agent", judges.held_out, choices)),
        asking=asking,
        templates=by_template(judges.held_out, choices),
        training=training,
        split=workload.split,
        unseen=workload.unseen,
    )
    return results, choices
