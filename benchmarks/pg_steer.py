"""The figures of examples/pg_steer: three seeds of PPO and DQN on one PostgreSQL, live.

    python -m benchmarks.pg_steer                       # milliseconds of waiting
    python -m benchmarks.pg_steer --cost cpu            # on a machine that is busy otherwise

One server and one table of held-out queries under all hints, then one training after another, each
with a broker and a worker of its own. Writes docs/benchmarks/pg_steer.json after each, and the
plots of the example's README.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from examples.pg_steer.database import Cost
from examples.pg_steer.demo import (
    DEFINITIONS,
    PgSteerOptions,
    measure_judges,
    open_database,
    train_and_score,
)
from examples.pg_steer.report import Results, draw_comparison, draw_curves, markdown, write_json
from examples.pg_steer.workload import TemplateWorkload
from rl4sys_stream.cli.demo.systems import CHECKOUT, ProgressLine, SystemOptions, open_client
from rl4sys_stream.clock import SystemClock

RESULTS = CHECKOUT / "docs" / "benchmarks" / "pg_steer.json"
PLOTS = CHECKOUT / "examples" / "pg_steer"


@click.command()
@click.option("--cost", type=click.Choice([cost.value for cost in Cost]), default="time")
@click.option("--count", default=3000, show_default=True)
@click.option("--held-out", default=350, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--static", default=200, show_default=True)
@click.option("--timeout-s", default=3.0, show_default=True)
@click.option("--seeds", default="1,2,3", show_default=True)
@click.option("--algorithms", default="ppo,dqn", show_default=True)
def main(
    cost: str,
    count: int,
    held_out: int,
    repeats: int,
    static: int,
    timeout_s: float,
    seeds: str,
    algorithms: str,
) -> None:
    """Measure, train, write."""
    options = PgSteerOptions(
        system=SystemOptions(seed=0, out=Path(), plain=True),
        cost=Cost(cost),
        count=count,
        held_out=held_out,
        repeats=repeats,
        static=static,
        timeout_s=timeout_s,
    )
    clock = SystemClock()
    line = ProgressLine(clock, plain=True)
    workload = TemplateWorkload(held_out)
    results: list[Results] = []
    with open_database(options, line) as database, TemporaryDirectory() as scratch:
        judges = measure_judges(options, database, workload, line)
        for algorithm in algorithms.split(","):
            for seed in map(int, seeds.split(",")):
                system = SystemOptions(seed=seed, out=Path(scratch), plain=True)
                definition = CHECKOUT / "workers" / DEFINITIONS[algorithm]
                with open_client(system, definition, clock) as client:
                    run, choices = train_and_score(
                        client, database, workload, judges, count, seed=seed, line=line
                    )
                line.say(f"{algorithm} seed {seed}\n{markdown(run)}")
                if not results:
                    draw_comparison(PLOTS / "comparison.png", run, judges.held_out, choices)
                results.append(run)
                write_json(RESULTS, results)
                draw_curves(PLOTS / "learning_curve.png", results)


if __name__ == "__main__":
    main()
