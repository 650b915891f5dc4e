"""What a run leaves behind: a table, numbers as JSON, and two plots."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from matplotlib.figure import Figure

from examples.batch_sched.evaluation import AGENT, Score
from examples.batch_sched.training import Training

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Results", "draw_comparison", "draw_curves", "markdown", "write_json"]

DPI: Final = 130
COLOURS: Final = {False: "tab:blue", True: "tab:green"}
LABELS: Final = {False: "agent, from nothing", True: "agent, with SAF as a prior"}
LINES: Final = {"FCFS": "-", "SJF": "--", "SAF": ":"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One run.

    Attributes:
        trace: Name of its file.
        seed: Of the training.
        fold: Which third of the blocks was held out, from 0.
        prior: Whether the agent was told to prefer the smallest area.
        training: Its curve, and what was chosen from it.
        wall_s: How long it took.
        validation: The heuristics on the validation windows.
        held_out: The heuristics on held-out windows.
        agent: The best version on held-out windows.
    """

    trace: str
    seed: int
    fold: int
    prior: bool
    training: Training
    wall_s: float
    validation: tuple[Score, ...]
    held_out: tuple[Score, ...]
    agent: Score

    @property
    def scores(self) -> tuple[Score, ...]:
        """All on held-out windows, the agent's last."""
        return (*self.held_out, self.agent)

    def of(self, name: str) -> float:
        """The agent's geometric mean as a share of a heuristic's."""
        (other,) = (score for score in self.held_out if score.name == name)
        return self.agent.geometric_mean / other.geometric_mean


def markdown(results: Results) -> str:
    """The comparison as a table."""
    counted = f"{len(results.agent.slowdowns)} held-out windows"
    lines = [f"| {counted} | geometric mean | mean | agent's share |", "|---|---|---|---|"]
    for score in sorted(results.scores, key=lambda score: -score.geometric_mean):
        share = "" if score is results.agent else f"{results.of(score.name):.2f}"
        lines.append(f"| {score.name} | {score.geometric_mean:.1f} | {score.mean:.1f} | {share} |")
    return "\n".join(lines) + "\n"


def write_json(path: Path, results: Sequence[Results]) -> None:
    """All runs; of the scores their means."""
    data = [
        {
            "trace": run.trace,
            "seed": run.seed,
            "fold": run.fold,
            "prior": run.prior,
            "decisions": run.training.decisions,
            "windows_played": run.training.windows,
            "wall_s": round(run.wall_s, 1),
            "best_version": run.training.best.version,
            "validation_windows": len(run.training.best.score.slowdowns),
            "held_out_windows": len(run.agent.slowdowns),
            "held_out": _means(run.scores),
            "validation": _means(run.validation),
            "curve": [
                [point.decisions, point.version, round(point.score.geometric_mean, 3)]
                for point in run.training.curve
            ],
        }
        for run in results
    ]
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _means(scores: Iterable[Score]) -> dict[str, dict[str, float]]:
    return {
        score.name: {
            "geometric_mean": round(score.geometric_mean, 3),
            "mean": round(score.mean, 3),
        }
        for score in scores
    }


def draw_curves(path: Path, results: Sequence[Results]) -> None:
    """Validation slowdown over decisions, a line for each run, as a PNG.

    Runs that validate on the same windows belong together: a panel for each fold.
    """
    folds = sorted({run.fold for run in results})
    figure = Figure(figsize=(1.5 + 4.5 * len(folds), 4.2), layout="constrained")
    panels = figure.subplots(1, len(folds), squeeze=False)[0]
    for axes, fold in zip(panels, folds, strict=True):
        mine = [run for run in results if run.fold == fold]
        for run in mine:
            points = run.training.curve
            axes.plot(
                [point.decisions for point in points],
                [point.score.geometric_mean for point in points],
                color=COLOURS[run.prior],
                lw=1.3,
                alpha=0.85,
            )
            best = run.training.best
            axes.plot(best.decisions, best.score.geometric_mean, "o", color=COLOURS[run.prior])
        for prior in sorted({run.prior for run in mine}):
            axes.plot([], [], "-o", color=COLOURS[prior], label=LABELS[prior])
        for score in mine[0].validation:
            if score.name in LINES:
                level, style = score.geometric_mean, LINES[score.name]
                axes.axhline(level, color="0.35", ls=style, lw=1.2, label=score.name)
        axes.set_yscale("log")
        axes.set_xlabel("decisions learned from")
        axes.set_ylabel("bounded slowdown on validation windows,\ngeometric mean")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
        if len(folds) > 1:
            axes.set_title(f"fold {fold}", fontsize=10, loc="left")
        axes.legend(frameon=False, fontsize=8)
        _tidy(axes)
    figure.savefig(path, dpi=DPI)


def draw_comparison(path: Path, results: Results) -> None:
    """Geometric means beside every heuristic, and each window by itself, as a PNG."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    bars, dots = figure.subplots(1, 2)
    colour = COLOURS[results.prior]
    scores = sorted(results.scores, key=lambda score: score.geometric_mean)
    drawn = bars.barh(
        [score.name for score in scores],
        [score.geometric_mean for score in scores],
        color=[colour if score.name == AGENT else "0.6" for score in scores],
    )
    bars.bar_label(drawn, [f"{score.geometric_mean:.1f}" for score in scores], padding=3)
    bars.margins(x=0.12)
    bars.set_xlabel(f"bounded slowdown, geometric mean of {len(results.agent.slowdowns)} windows")
    (saf,) = (score for score in results.held_out if score.name == "SAF")
    dots.loglog(saf.slowdowns, results.agent.slowdowns, ".", color=colour, ms=6)
    ends = [1.0, max(*saf.slowdowns, *results.agent.slowdowns)]
    dots.plot(ends, ends, color="0.35", lw=1)
    dots.set_xlabel("bounded slowdown of a window under SAF")
    dots.set_ylabel("under the agent")
    _tidy(dots)
    figure.savefig(path, dpi=DPI)


def _tidy(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", lw=0.8)
    axes.set_axisbelow(True)
