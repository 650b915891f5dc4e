"""The figures of examples/batch_sched: three seeds, each third of the trace held out in turn.

    python -m benchmarks.batch_sched                        # 18 trainings
    python -m benchmarks.batch_sched --seeds 1 --folds 2    # a part; what is there is kept

Each training has a broker and a worker of its own. What a run brought is merged into
docs/benchmarks/batch_sched.json after it; the tables are made of what is there, and so is the
learning curve of the example's README.
"""

import math
import resource
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import msgspec

from examples.batch_sched.demo import PLAN, BatchSchedOptions, measure
from examples.batch_sched.evaluation import AGENT
from examples.batch_sched.report import (
    Run,
    draw_comparison,
    draw_curves,
    read_runs,
    summarise,
    write_runs,
)
from examples.batch_sched.training import Plan
from rl4sys_stream.cli.demo.systems import CHECKOUT, SystemOptions

RESULTS = CHECKOUT / "docs" / "benchmarks" / "batch_sched.json"
PLOTS = CHECKOUT / "examples" / "batch_sched"
JUDGES = ("FCFS", "SJF", "SAF", "SAF-LIFO")


@click.command()
@click.option("--seeds", default="1,2,3", show_default=True)
@click.option("--folds", default="0,1,2", show_default=True)
@click.option("--prior", type=click.Choice(["both", "with", "without"]), default="both")
@click.option("--decisions", default=PLAN.decisions, show_default=True)
def main(seeds: str, folds: str, prior: str, decisions: int) -> None:
    """Train, judge, write."""
    for seed in map(int, filter(None, seeds.split(","))):
        for fold in map(int, folds.split(",")):
            for with_prior in {"both": (False, True), "with": (True,), "without": (False,)}[prior]:
                train(seed, fold, with_prior, decisions)
    runs = read_runs(RESULTS)
    draw_curves(PLOTS / "learning_curve.png", runs)
    click.echo(by_rule(runs) + "\n" + by_fold(runs))


def train(seed: int, fold: int, prior: bool, decisions: int) -> None:
    """One training, merged into the results."""
    begun_s = cpu_s()
    with TemporaryDirectory() as scratch:
        results = measure(
            BatchSchedOptions(
                system=SystemOptions(seed=seed, out=Path(scratch), plain=True),
                plan=Plan(decisions=decisions),
                prior=prior,
                fold=fold,
            )
        )
    run = msgspec.structs.replace(summarise(results), cpu_s=round(cpu_s() - begun_s, 1))
    if prior and seed == 1:
        draw_comparison(PLOTS / "comparison.png", results)
    others = [one for one in read_runs(RESULTS) if key(one) != key(run)]
    write_runs(RESULTS, sorted([*others, run], key=key))


def cpu_s() -> float:
    """Processor time of this process so far, and of those that it has started and seen end."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def key(run: Run) -> tuple[bool, int, int]:
    """What a run is told apart by."""
    return run.prior, run.fold, run.seed


def pooled(runs: list[Run], name: str) -> float:
    """The geometric mean over the held-out windows of runs, each window once for each run."""
    windows = sum(run.held_out_windows for run in runs)
    logs = (run.held_out_windows * math.log(run.held_out[name].geometric_mean) for run in runs)
    return math.exp(sum(logs) / windows)


def by_rule(runs: list[Run]) -> str:
    """All rules and agents over the whole trace: geometric mean and mean."""
    rows = [(name, runs, name) for name in runs[0].held_out if name != AGENT]
    for prior, label in ((False, "agent, from nothing"), (True, "agent, with the prior")):
        if mine := [run for run in runs if run.prior is prior]:
            rows.append((label, mine, AGENT))
    lines = ["| all windows, held out in turn | geometric mean | mean |", "|---|---|---|"]
    for label, mine, name in sorted(rows, key=lambda row: -pooled(row[1], row[2])):
        windows = sum(run.held_out_windows for run in mine)
        mean = sum(run.held_out_windows * run.held_out[name].mean for run in mine) / windows
        lines.append(f"| {label} | {pooled(mine, name):.1f} | {mean:.1f} |")
    return "\n".join(lines) + "\n"


def by_fold(runs: list[Run]) -> str:
    """The agent's share of each judge's geometric mean: by thirds, and over the whole trace."""
    lines = ["| | " + " | ".join(f"of {judge}" for judge in JUDGES) + " |", "|---" * 5 + "|"]
    for prior, label in ((False, "from nothing"), (True, "with the prior")):
        mine = [run for run in runs if run.prior is prior]
        for fold in sorted({run.fold for run in mine}):
            part = [run for run in mine if run.fold == fold]
            windows = part[0].held_out_windows
            lines.append(f"| {label}, third {fold} ({windows} windows) | {shares(part)} |")
        if mine:
            lines.append(f"| **{label}, whole trace** | {shares(mine)} |")
    return "\n".join(lines) + "\n"


def shares(runs: list[Run]) -> str:
    """The median seed's share of each judge, and all seeds'."""
    cells = []
    for judge in JUDGES:
        by_seed = [
            pooled(part, AGENT) / pooled(part, judge)
            for seed in sorted({run.seed for run in runs})
            if (part := [run for run in runs if run.seed == seed])
        ]
        every = ", ".join(f"{share:.2f}" for share in by_seed)
        cells.append(f"**{statistics.median(by_seed):.2f}** ({every})")
    return " | ".join(cells)


if __name__ == "__main__":
    main()
