"""Does the demo learn? Runs it for some seeds and prints a table.

    python -m benchmarks.demo_learning [--seeds 1,2,3] [--out runs/benchmark]

Writes docs/benchmarks/demo_learning.json and .png. Exits with 1 if a seed does not reach the
target, or fewer than 90 % of its environment steps were trained on.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "benchmarks"
MIN_TRAINED_SHARE = 0.9
COLUMNS = (
    ("seed", "seed", "{}"),
    ("learned", "learned", "{}"),
    ("steps to target", "steps_to_target", "{}"),
    ("steps", "steps", "{}"),
    ("wall s", "wall_s", "{:.1f}"),
    ("steps/s", "steps_per_s", "{:.0f}"),
    ("waited s", "waited_s", "{:.1f}"),
    ("mean return", "mean_return", "{:.1f}"),
    ("best landing", "best_landing", "{:.0f}"),
    ("trained", "trained_share", "{:.3f}"),
    ("lag mean", "policy_lag_mean", "{:.2f}"),
    ("lag max", "policy_lag_max", "{:.0f}"),
)
COLORS = ("#0b69a3", "#2d6a4f", "#c65d21", "#7b4fa3", "#616e7c")


def run_seed(seed: int, out: Path, max_steps: int, target: float) -> Path:
    """One demo; its run folder."""
    before = set(out.glob("*"))
    command = [sys.executable, "-m", "rl4sys_stream", "demo", "lunar_lander", "--plain"]
    options = ["--seed", str(seed), "--max-steps", str(max_steps), "--target", str(target)]
    subprocess.run(
        [*command, *options, "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,  # the summary says more than the exit code
    )
    (folder,) = set(out.glob("*")) - before
    return folder


def read_summary(folder: Path) -> dict:
    """The summary of a run, with the best landing beside it."""
    found = json.loads((folder / "summary.json").read_text())
    return {**found, "best_landing": max(found["evaluation_returns"], default=float("nan"))}


def print_table(summaries: list[dict]) -> None:
    """One line a seed."""
    click.echo("  ".join(title.rjust(max(len(title), 9)) for title, _, _ in COLUMNS))
    for one in summaries:
        cells = []
        for title, name, form in COLUMNS:
            text = "-" if one[name] is None else form.format(one[name])
            cells.append(text.rjust(max(len(title), 9)))
        click.echo("  ".join(cells))


def draw(curves: list[tuple[int, list[tuple[int, float]]]], target: float, path: Path) -> None:
    """Mean returns of all seeds in one picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - only here
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9.0, 4.6), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for (seed, curve), color in zip(curves, COLORS * len(curves), strict=False):
        steps, means = zip(*curve, strict=True)
        axes.plot(steps, means, color=color, linewidth=2, label=f"seed {seed}")
    axes.axhline(target, color="#616e7c", linewidth=1.2, linestyle=(0, (5, 3)))
    axes.set_title("rl4sys-stream demo lunar_lander", loc="left", fontweight="bold")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("mean return of the last 100 episodes")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
    axes.grid(axis="y", color="#e4e7eb")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path)


@click.command()
@click.option("--seeds", default="1,2,3", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "runs" / "benchmark")
@click.option("--max-steps", default=300_000, show_default=True)
@click.option("--target", default=200.0, show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
def main(seeds: str, out: Path, max_steps: int, target: float, results: Path) -> None:
    """Run the demo once for each seed, one at a time."""
    for folder in (out, results):
        folder.mkdir(parents=True, exist_ok=True)
    summaries, curves = [], []
    for seed in [int(text) for text in seeds.split(",")]:
        folder = run_seed(seed, out, max_steps, target)
        summaries.append(read_summary(folder))
        episodes = json.loads((folder / "episodes.json").read_text())
        curves.append((seed, list(zip(episodes["steps"], episodes["mean"], strict=True))))
    print_table(summaries)
    (results / "demo_learning.json").write_text(json.dumps(summaries, indent=2) + "\n")
    draw(curves, target, results / "demo_learning.png")
    click.echo(f"written to {results}/demo_learning.json and .png")
    short = [s["seed"] for s in summaries if s["trained_share"] < MIN_TRAINED_SHARE]
    lost = [s["seed"] for s in summaries if not s["learned"]]
    if short or lost:
        raise SystemExit(f"not learned: seeds {lost}; trained on too little: seeds {short}")


if __name__ == "__main__":
    main()
