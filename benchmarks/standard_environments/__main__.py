"""`python -m benchmarks.standard_environments`: train, score, write the table.

python -m benchmarks.standard_environments [--tasks frozen_lake,blackjack] [--seeds 1,2,3]
"""

from pathlib import Path

import click

from benchmarks.rig.seeds import as_seeds
from benchmarks.standard_environments.reference import make_reference
from benchmarks.standard_environments.report import NAME, read_scores, table_lines, write_report
from benchmarks.standard_environments.tasks import ROOT, TASKS, Task, find_task
from benchmarks.standard_environments.training import Score, train

COMMAND = f"python -m benchmarks.{NAME}"


def _tasks(_ctx: click.Context, _option: click.Parameter, text: str) -> tuple[Task, ...]:
    try:
        return tuple(find_task(name) for name in text.split(","))
    except KeyError as error:
        raise click.BadParameter(str(error.args[0])) from error


def merge(kept: list[Score], new: list[Score]) -> list[Score]:
    """The new scores, and those kept of tasks that were not asked for now, in the tasks' order."""
    asked = {score.task for score in new}
    scores = [score for score in kept if score.task not in asked] + new
    order = [task.name for task in TASKS]
    return sorted(scores, key=lambda score: (order.index(score.task), score.seed))


@click.command()
@click.option(
    "--tasks",
    default=",".join(task.name for task in TASKS),
    callback=_tasks,
    help="Names, separated by commas. Default: all. The others' figures stay in the report.",
)
@click.option("--seeds", default="1,2,3", show_default=True, callback=as_seeds)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=ROOT / "docs" / "benchmarks",
    help="Where the report goes.  [default: docs/benchmarks]",
)
def main(tasks: tuple[Task, ...], seeds: tuple[int, ...], results: Path) -> None:
    """Train by the shipped definitions. Exits with 1 if a goal was missed."""
    scores: list[Score] = []
    for task in tasks:
        reference = make_reference(task)
        for seed in seeds:
            scores.append(train(task, reference, seed))
            click.echo(table_lines(scores)[-1])
            write_report(results, merge(read_scores(results), scores), COMMAND)
    click.echo(
        "\n".join(["", *table_lines(scores), "", f"written to {results}/{NAME}.json and .md"])
    )
    if missed := [f"{score.task} with seed {score.seed}" for score in scores if not score.reached]:
        raise SystemExit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
