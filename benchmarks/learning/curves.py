"""Learning curves of a case, over steps and over seconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.learning.record import Curve
from benchmarks.learning.summary import CaseSummary, SideSummary

__all__ = ["draw_case", "median_curve"]

COLORS: Final = (
    *("#616e7c", "#0b69a3", "#2d6a4f", "#c65d21", "#7b4fa3"),
    *("#b0206a", "#8a6d00", "#1f9d94"),
)
GRID: Final = 400


def draw_case(summary: CaseSummary, path: Path) -> None:
    """Every seed thin, the median over seeds thick."""
    figure = Figure(figsize=(10.5, 4.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    by_steps, by_seconds = figure.subplots(1, 2, sharey=True)
    for side, color in zip(summary.sides, COLORS, strict=False):
        _draw_side(by_steps, side, color, [np.array(s.curve.steps, float) for s in side.seeds])
        _draw_side(by_seconds, side, color, [np.array(s.curve.seconds) for s in side.seeds])
    for axes, label in ((by_steps, "environment steps"), (by_seconds, "seconds")):
        axes.axhline(summary.target, color="#9aa5b1", linewidth=1.1, linestyle=(0, (5, 3)))
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        axes.grid(axis="y", color="#e4e7eb")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
    by_steps.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
    by_steps.set_ylabel(f"mean return of {summary.window} episodes")
    by_steps.set_title(f"{summary.title}, to {summary.target:g}", loc="left", fontweight="bold")
    by_seconds.legend(frameon=False, loc="lower right")
    figure.savefig(path)


def _draw_side(
    axes: Axes, side: SideSummary, color: str, xs: Sequence[NDArray[np.float64]]
) -> None:
    curves = [s.curve for s in side.seeds]
    for x, curve in zip(xs, curves, strict=True):
        axes.plot(x, curve.returns, color=color, linewidth=0.8, alpha=0.35)
    grid, median = median_curve(xs, curves)
    axes.plot(grid, median, color=color, linewidth=2.2, label=side.side)


def median_curve(
    xs: Sequence[NDArray[np.float64]], curves: Sequence[Curve]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The median over runs, as far as half of them go; a run that has ended stays at its end."""
    drawn = [(x, curve.returns) for x, curve in zip(xs, curves, strict=True) if len(x)]
    if not drawn:
        return np.zeros(0), np.zeros(0)
    first = max(float(x[0]) for x, _ in drawn)
    last = float(np.median([x[-1] for x, _ in drawn]))
    grid = np.linspace(min(first, last), last, GRID)
    rows = [np.interp(grid, x, np.array(returns)) for x, returns in drawn]
    return grid, np.median(rows, axis=0)
