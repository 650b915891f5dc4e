"""The figures of examples/batch_sched: three seeds, each third of the trace held out in turn.

    python -m benchmarks.batch_sched                        # 18 trainings
    python -m benchmarks.batch_sched --seeds 1 --folds 2    # a part; what is there is kept
    python -m benchmarks.batch_sched --resume               # what is not there

Each training has a broker and a worker of its own. What a run brought is merged into
docs/benchmarks/batch_sched.json after it; the tables beside it are made of what is there, and so is
the learning curve of the example's README. `--seeds ""` makes them again.
"""

import itertools
import math
import resource
import statistics
from collections import Counter
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
from examples.batch_sched.windows import FOLDS
from rl4sys_stream.cli.demo.systems import CHECKOUT, SystemOptions

RESULTS = CHECKOUT / "docs" / "benchmarks" / "batch_sched.json"
PLOTS = CHECKOUT / "examples" / "batch_sched"
HEADING = """# Ordering a cluster's queue

`python -m benchmarks.batch_sched` made this of [batch_sched.json](batch_sched.json). Mean bounded
slowdown of a window; shares are of geometric means over windows, the median seed's and each seed's.
"""
JUDGES = ("FCFS", "SJF", "SAF", "SAF-LIFO")
AGENTS = {False: "from nothing", True: "with the prior"}


@click.command()
@click.option("--seeds", default="1,2,3", show_default=True)
@click.option("--folds", default="0,1,2", show_default=True)
@click.option("--prior", type=click.Choice(["both", "with", "without"]), default="both")
@click.option("--decisions", default=PLAN.decisions, show_default=True)
@click.option("--resume", is_flag=True, help="Leave out trainings whose results are there.")
def main(seeds: str, folds: str, prior: str, decisions: int, *, resume: bool) -> None:
    """Train, judge, write."""
    priors = {"both": (False, True), "with": (True,), "without": (False,)}[prior]
    done = {key(run) for run in read_runs(RESULTS)} if resume else set()
    for seed, fold, with_prior in itertools.product(
        map(int, filter(None, seeds.split(","))), map(int, folds.split(",")), priors
    ):
        if (with_prior, fold, seed) not in done:
            train(seed, fold, with_prior, decisions)
    runs = read_runs(RESULTS)
    draw_curves(PLOTS / "learning_curve.png", runs)
    tables = "\n".join((by_rule(runs), by_fold(runs), by_run(runs)))
    RESULTS.with_suffix(".md").write_text(f"{HEADING}\n{tables}", encoding="utf-8")
    click.echo(tables)


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


def whole(runs: list[Run], *, prior: bool) -> list[Run]:
    """Those with or without a prior whose seeds have been judged on all thirds of the trace."""
    mine = [run for run in runs if run.prior is prior]
    folds = Counter(run.seed for run in mine)
    return [run for run in mine if folds[run.seed] == FOLDS]


def by_rule(runs: list[Run]) -> str:
    """The geometric mean of all rules and agents: by thirds, and over the whole trace."""
    folds = sorted({run.fold for run in runs})
    lines = ["| held out | " + " | ".join(f"third {fold}" for fold in folds) + " | whole trace |"]
    lines.append("|---" * (2 + len(folds)) + "|")
    one_each = list({run.fold: run for run in runs}.values())  # of rules all say the same
    rows = [(name, name, one_each, one_each) for name in one_each[0].held_out if name != AGENT]
    for prior, label in AGENTS.items():
        mine = [run for run in runs if run.prior is prior]
        rows.append((f"**agent, {label}**", AGENT, mine, whole(runs, prior=prior)))
    for label, name, mine, complete in rows:
        thirds = [[run for run in mine if run.fold == fold] for fold in folds]
        covered = complete if len(folds) == FOLDS else []
        cells = [f"{pooled(part, name):.1f}" if part else "–" for part in (*thirds, covered)]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def by_fold(runs: list[Run]) -> str:
    """The agent's share of each judge's geometric mean: by thirds, and over the whole trace."""
    lines = ["| | " + " | ".join(f"of {judge}" for judge in JUDGES) + " |"]
    lines.append("|---" * (1 + len(JUDGES)) + "|")
    for prior, label in AGENTS.items():
        mine = [run for run in runs if run.prior is prior]
        for fold in sorted({run.fold for run in mine}):
            part = [run for run in mine if run.fold == fold]
            windows = part[0].held_out_windows
            lines.append(f"| {label}, third {fold} ({windows} windows) | {shares(part)} |")
        if complete := whole(runs, prior=prior):
            lines.append(f"| **{label}, whole trace** | {shares(complete)} |")
    return "\n".join(lines) + "\n"


def by_run(runs: list[Run]) -> str:
    """What each training reached, which version was judged, and what it cost."""
    lines = [
        "| training | version | on validation windows | held out | of SAF-LIFO | CPU s | s |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        best = min(point.geometric_mean for point in run.curve)
        reached = run.held_out[AGENT].geometric_mean
        share = reached / run.held_out["SAF-LIFO"].geometric_mean
        cost = "" if run.cpu_s is None else f"{run.cpu_s:.0f}"
        lines.append(
            f"| {AGENTS[run.prior]}, third {run.fold}, seed {run.seed} | {run.best_version} "
            f"of {run.curve[-1].version} | {best:.1f} | {reached:.1f} | {share:.2f} | {cost} "
            f"| {run.wall_s:.0f} |"
        )
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
