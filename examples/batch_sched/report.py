"""What a run leaves behind: a table, numbers as JSON, and two plots."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from matplotlib.figure import Figure

from examples.batch_sched.evaluation import AGENT, Score
from examples.batch_sched.training import Training
from rl4sys_stream.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Means",
    "Point",
    "Results",
    "Run",
    "draw_comparison",
    "draw_curves",
    "markdown",
    "read_runs",
    "summarise",
    "write_runs",
]

DPI: Final = 130
COLOURS: Final = {False: "tab:blue", True: "tab:green"}
LABELS: Final = {False: "agent, from nothing", True: "agent, with SAF as a prior"}
LINES: Final = {"FCFS": "-", "SJF": "--", "SAF": ":", "SAF-LIFO": "-."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One run, with what became of each held-out window.

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


class Means(msgspec.Struct, frozen=True):
    """Mean bounded slowdown over windows, by both means."""

    geometric_mean: float
    mean: float


class Point(msgspec.Struct, frozen=True):
    """A version's geometric mean over the validation windows, after so many decisions."""

    decisions: int
    version: int
    geometric_mean: float


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a run in a file; see `Results`, of which it has the means.

    Attributes:
        trace: Name of its file.
        seed: Of the training.
        fold: Which third was held out.
        prior: Whether there was one.
        decisions: Learned from.
        windows_played: In which they were made.
        wall_s: How long it took.
        cpu_s: Processor time of application, broker and worker, with the scores of all; None where
            nobody asked.
        best_version: The one that was judged.
        validation_windows: How many.
        held_out_windows: How many.
        held_out: Name -> means, the agent's under "agent".
        validation: Name of each heuristic -> means.
        curve: Of the training.
    """

    trace: str
    seed: int
    fold: int
    prior: bool
    decisions: int
    windows_played: int
    wall_s: float
    best_version: int
    validation_windows: int
    held_out_windows: int
    held_out: Mapping[str, Means]
    validation: Mapping[str, Means]
    curve: tuple[Point, ...]
    cpu_s: float | None = None


def markdown(results: Results) -> str:
    """The comparison as a table."""
    counted = f"{len(results.agent.slowdowns)} held-out windows"
    lines = [f"| {counted} | geometric mean | mean | agent's share |", "|---|---|---|---|"]
    for score in sorted(results.scores, key=lambda score: -score.geometric_mean):
        share = "" if score is results.agent else f"{results.of(score.name):.2f}"
        lines.append(f"| {score.name} | {score.geometric_mean:.1f} | {score.mean:.1f} | {share} |")
    return "\n".join(lines) + "\n"


def summarise(results: Results) -> Run:
    """What is kept of a run."""
    training = results.training
    return Run(
        trace=results.trace,
        seed=results.seed,
        fold=results.fold,
        prior=results.prior,
        decisions=training.decisions,
        windows_played=training.windows,
        wall_s=round(results.wall_s, 1),
        best_version=training.best.version,
        validation_windows=len(training.best.score.slowdowns),
        held_out_windows=len(results.agent.slowdowns),
        held_out=_means(results.scores),
        validation=_means(results.validation),
        curve=tuple(
            Point(point.decisions, point.version, round(point.score.geometric_mean, 3))
            for point in training.curve
        ),
    )


def _means(scores: Iterable[Score]) -> dict[str, Means]:
    return {
        score.name: Means(round(score.geometric_mean, 3), round(score.mean, 3)) for score in scores
    }


def write_runs(path: Path, runs: Sequence[Run]) -> None:
    """Keep runs as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(runs), indent=1) + b"\n")


def read_runs(path: Path) -> list[Run]:
    """What `write_runs` kept; nothing if there is no such file.

    Raises:
        ConfigError: If it is something else.
    """
    if not path.exists():
        return []
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Run])
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} holds no runs of batch_sched: {error}; delete it") from error


def draw_curves(path: Path, runs: Sequence[Run]) -> None:
    """Validation slowdown over decisions, a line for each run, as a PNG.

    Runs that validate on the same windows belong together: a panel for each fold.
    """
    folds = sorted({run.fold for run in runs})
    figure = Figure(figsize=(2.5 + 4.0 * len(folds), 4.2), layout="constrained")
    panels = figure.subplots(1, len(folds), squeeze=False)[0]
    for axes, fold in zip(panels, folds, strict=True):
        _draw_fold(axes, [run for run in runs if run.fold == fold])
        axes.set_title(f"third {fold} of the trace held out", fontsize=10, loc="left")
    panels[0].set_ylabel("bounded slowdown on validation windows,\ngeometric mean")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=DPI)


def _draw_fold(axes: "Axes", runs: Sequence[Run]) -> None:
    for run in runs:
        colour = COLOURS[run.prior]
        decisions = [point.decisions for point in run.curve]
        values = [point.geometric_mean for point in run.curve]
        axes.plot(decisions, values, color=colour, lw=1.3, alpha=0.85)
        best = min(run.curve, key=lambda point: point.geometric_mean)
        axes.plot(best.decisions, best.geometric_mean, "o", color=colour, ms=5)
    for prior in sorted({run.prior for run in runs}):
        axes.plot([], [], "-o", color=COLOURS[prior], ms=5, label=LABELS[prior])
    for name, style in LINES.items():
        level = runs[0].validation[name].geometric_mean
        axes.axhline(level, color="0.35", ls=style, lw=1.2, label=name)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("decisions learned from")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
    _tidy(axes)


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
