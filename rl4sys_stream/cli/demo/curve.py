"""The learning curve as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rl4sys_stream.cli.demo.progress import EpisodePoint, VersionPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_learning_curve"]

INK: Final = "#1f2933"
MUTED: Final = "#616e7c"
FAINT: Final = "#9aa5b1"
GRID: Final = "#e4e7eb"
RETURN: Final = "#0b69a3"
TARGET: Final = "#c65d21"
VERSION: Final = "#2d6a4f"
FIRST_MEAN: Final = 10
"""The mean of fewer episodes says nothing yet."""


def draw_learning_curve(
    path: Path,
    episodes: Sequence[EpisodePoint],
    versions: Sequence[VersionPoint],
    *,
    target: float | None,
    title: str,
    subtitle: str,
) -> None:
    """Write a PNG: returns above, model versions and policy lag below, over environment steps.

    Args:
        path: Where it goes.
        episodes: Training episodes in order; may be empty.
        versions: Model versions in order; may be empty.
        target: Mean return that counts as learned; None if there is none.
        title: Large, above.
        subtitle: Small, below the title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 6.0), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    upper.set_title(f"{subtitle}\n", loc="left", fontsize=9.5, color=MUTED, linespacing=0.6)
    upper.annotate(
        title,
        xy=(0, 1),
        xytext=(0, 26),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=14,
        fontweight="bold",
        color=INK,
    )
    _draw_returns(upper, episodes, target)
    _draw_versions(lower, versions)
    for axes in (upper, lower):
        _tidy(axes)
    last = max([1, *(e.steps for e in episodes), *(v.trained_steps for v in versions)])
    lower.set_xlim(0, last * 1.01)
    lower.set_xlabel("environment steps", color=INK)
    lower.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
    figure.align_ylabels([upper, lower])
    figure.savefig(path)


def _draw_returns(axes: "Axes", episodes: Sequence[EpisodePoint], target: float | None) -> None:
    steps = [episode.steps for episode in episodes]
    totals = [episode.total for episode in episodes]
    axes.scatter(
        steps, totals, s=9, color=RETURN, alpha=0.3, linewidths=0, label="one episode", zorder=2
    )
    axes.plot(
        steps[FIRST_MEAN - 1 :],
        [episode.mean for episode in episodes[FIRST_MEAN - 1 :]],
        color=RETURN,
        linewidth=2.4,
        label="mean of the last 100",
        zorder=4,
    )
    if target is not None:
        axes.axhline(
            target, color=TARGET, linewidth=1.4, linestyle=(0, (5, 3)), label=f"target {target:g}"
        )
    axes.set_ylabel("return", color=INK)
    # A few crashes far below would press everything else together.
    if totals:
        low = min([sorted(totals)[len(totals) // 50], *(e.mean for e in episodes)])
        high = max([*totals, *([] if target is None else [target])])
        room = 0.08 * (high - low) or 1.0
        axes.set_ylim(low - room, high + room)
    axes.legend(loc="lower right", frameon=False, fontsize=9, labelcolor=INK)


def _draw_versions(axes: "Axes", versions: Sequence[VersionPoint]) -> None:
    from matplotlib.ticker import MaxNLocator

    steps = [version.trained_steps for version in versions]
    axes.plot(
        steps, [version.version for version in versions], color=VERSION, linewidth=1.8, zorder=3
    )
    axes.set_ylabel("model version", color=VERSION)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_ylim(bottom=0)
    right = axes.twinx()
    right.step(steps, [version.lag for version in versions], where="post", color=TARGET, lw=1.1)
    right.set_ylabel("policy lag", color=TARGET)
    right.set_ylim(0, max(2.0, *(version.lag * 1.15 for version in versions), 2.0))
    right.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    right.tick_params(colors=FAINT, labelsize=9, length=0)
    for side in right.spines.values():
        side.set_visible(False)


def _tidy(axes: "Axes") -> None:
    for name, side in axes.spines.items():
        side.set_visible(name == "bottom")
        side.set_color(FAINT)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=9, length=0)
