"""`python -m benchmarks.models`: train, publish, measure, write the report.

python -m benchmarks.models [--parts sizes,speed] [--tasks ppo_64x64] [--versions 40]
"""

from dataclasses import replace
from pathlib import Path
from typing import Final

import click
import torch

from benchmarks.models.catching_up import measure_catching_up
from benchmarks.models.identity import compare
from benchmarks.models.latency import measure_latency
from benchmarks.models.report import NAME, read_figures, write_report
from benchmarks.models.sizes import measure_run
from benchmarks.models.speed import measure_speed
from benchmarks.models.tasks import TASKS

ROOT: Final = Path(__file__).parents[2]
COMMAND: Final = f"python -m benchmarks.{NAME}"
PARTS: Final = ("speed", "identity", "sizes", "latency", "behind")


@click.command()
@click.option("--parts", default=",".join(PARTS), show_default=True)
@click.option("--tasks", default=",".join(task.name for task in TASKS), show_default=True)
@click.option("--versions", type=int, help="Of each run. Default: what the task says.")
@click.option("--seed", default=1, show_default=True)
@click.option("--identities", default=10_000, show_default=True, help="Versions to follow.")
@click.option("--agents", default=100, show_default=True)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=ROOT / "docs" / "benchmarks",
    help="Where the report goes; parts that were not asked for keep their figures.",
)
def main(
    parts: str,
    tasks: str,
    versions: int | None,
    seed: int,
    identities: int,
    agents: int,
    results: Path,
) -> None:
    """Measure what model versions cost."""
    torch.set_num_threads(1)
    figures, asked = read_figures(results), set(parts.split(","))
    if unknown := asked - set(PARTS):
        raise click.BadParameter(f"unknown parts: {', '.join(sorted(unknown))}")
    if "speed" in asked:
        figures.speed = measure_speed()
    if "identity" in asked:
        figures.identity = compare(identities)
    if "latency" in asked:
        figures.latency = [measure_latency(agents, processes, 100) for processes in (1, 10)]
    if "behind" in asked:
        figures.behind = measure_catching_up()
    write_report(results, figures, COMMAND)
    for task in TASKS if "sizes" in asked else ():
        if task.name not in tasks.split(","):
            continue
        chosen = task if versions is None else replace(task, versions=versions)
        run = measure_run(chosen, seed=seed)
        kept = {old.task: old for old in figures.runs} | {run.task: run}
        figures.runs = [kept[one.name] for one in TASKS if one.name in kept]
        write_report(results, figures, COMMAND)
    click.echo((results / f"{NAME}.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
