"""The figures of examples/pg_steer: three seeds of PPO and DQN on one PostgreSQL, live.

    python -m benchmarks.pg_steer                       # milliseconds of waiting
    python -m benchmarks.pg_steer --cost cpu            # on a machine that is busy otherwise
    python -m benchmarks.pg_steer --count 20 --held-out 9 --static 5 --figures /tmp/try

One server and one table of held-out queries under all hints, then one training after another, each
with a broker and a worker of its own. The held-out queries are of a split of their own, which is
looked at for the verdict alone: the demo's were seen while settings were chosen. Writes
docs/benchmarks/pg_steer.json after each training, and the plots of the example's README.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from examples.pg_steer.database import Cost
from examples.pg_steer.demo import DEFINITIONS
from examples.pg_steer.experiment import (
    PgSteerOptions,
    measure_judges,
    open_database,
    train_and_score,
)
from examples.pg_steer.report import Results, draw_comparison, draw_curves, markdown, write_json
from examples.pg_steer.workload import TemplateWorkload
from rl4sys_stream.cli.demo.systems import CHECKOUT, ProgressLine, SystemOptions, open_client
from rl4sys_stream.clock import SystemClock

RESULTS = CHECKOUT / "docs" / "benchmarks"
PLOTS = CHECKOUT / "examples" / "pg_steer"
SPLIT = "verdict"


@click.command()
@click.option("--cost", type=click.Choice([cost.value for cost in Cost]), default="time")
@click.option("--count", default=3000, show_default=True)
@click.option("--held-out", default=350, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--static", default=200, show_default=True)
@click.option("--timeout-s", default=3.0, show_default=True)
@click.option("--seeds", default="1,2,3", show_default=True)
@click.option("--algorithms", default="ppo,dqn", show_default=True)
@click.option("--split", default=SPLIT, show_default=True, help="Seed of the held-out queries.")
@click.option("--unseen", default="", help="Templates to hold out altogether: a,b.")
@click.option(
    "--figures",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for figures and plots. Default: where the documents have them.",
)
def main(
    cost: str,
    count: int,
    held_out: int,
    repeats: int,
    static: int,
    timeout_s: float,
    seeds: str,
    algorithms: str,
    split: str,
    unseen: str,
    figures: Path | None,
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
    without = tuple(filter(None, unseen.split(",")))
    workload = TemplateWorkload(held_out, split=split, unseen=without)
    numbers, plots = figures or RESULTS, figures or PLOTS
    numbers.mkdir(parents=True, exist_ok=True)
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
                    draw_comparison(plots / "comparison.png", run, judges.held_out, choices)
                results.append(run)
                write_json(numbers / "pg_steer.json", results)
                draw_curves(plots / "learning_curve.png", results)


if __name__ == "__main__":
    main()
