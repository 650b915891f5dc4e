"""What a run leaves behind: a table, numbers as JSON, and two plots."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
import orjson
from matplotlib.figure import Figure
from numpy.typing import NDArray

from examples.pg_steer.application import FLOOR
from examples.pg_steer.database import Cost
from examples.pg_steer.evaluation import Score, Table
from examples.pg_steer.hints import DEFAULT, HINTS
from examples.pg_steer.training import CurvePoint, Training

__all__ = ["UNITS", "Results", "draw_comparison", "draw_curves", "markdown", "write_json"]

UNITS: Final = {Cost.TIME: "ms", Cost.CPU: "ms of CPU", Cost.BLOCKS: "blocks"}
DPI: Final = 130
STEERED: Final = "tab:blue"
PLAIN: Final = "0.6"


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One run.

    Attributes:
        algorithm: Of the learner.
        seed: Of the training.
        cost: What was measured.
        server: PostgreSQL's version.
        held_out: Number of queries that all are judged by.
        best_static: Name of the hint that was best on training queries.
        scores: Each hint alone, the oracle, and last the agent.
        asking: The agent with what asking it and the planner costs; None where blocks are counted.
        templates: The agent on the queries of each template alone.
        training: How the agent came to its choices.
        split: Seed of the held-out queries.
        unseen: Templates that it was not trained on.
    """

    algorithm: str
    seed: int
    cost: Cost
    server: str
    held_out: int
    best_static: str
    scores: tuple[Score, ...]
    asking: Score | None
    templates: tuple[Score, ...]
    training: Training
    split: str
    unseen: tuple[str, ...]

    @property
    def agent(self) -> Score:
        """The agent's score."""
        return self.scores[-1]

    @property
    def of_best_static(self) -> float:
        """The agent's total as a share of the best static hint's."""
        return self.agent.total / self._static.total

    @property
    def asking_of_best_static(self) -> float | None:
        """The same with what asking costs; static hints ask nobody."""
        return None if self.asking is None else self.asking.total / self._static.total

    @property
    def _static(self) -> Score:
        (static,) = (score for score in self.scores if score.name == self.best_static)
        return static


def markdown(results: Results) -> str:
    """The comparison as a table, and the agent template by template as another."""
    counted = f"{results.held_out} held-out queries"
    lines = [
        f"| {counted} | total {UNITS[results.cost]} | of default | geometric mean | worst query |",
        "|---|---|---|---|---|",
    ]
    asking = [] if results.asking is None else [results.asking]
    for score in sorted([*results.scores, *asking], key=lambda score: -score.total):
        name = score.name
        if name == results.best_static:
            name += " (best alone on training queries)"
        lines.append(
            f"| {name} | {score.total:,.0f} | {score.of_default:.2f} "
            f"| {score.geomean_of_default:.2f} | × {score.slowest_of_default:.1f} |"
        )
    lines += [
        "",
        f"| the agent, by template | total {UNITS[results.cost]} | of default | worst query |",
        "|---|---|---|---|",
    ]
    for score in results.templates:
        unseen = " (never trained on)" if score.name in results.unseen else ""
        lines.append(
            f"| {score.name}{unseen} | {score.total:,.0f} | {score.of_default:.2f} "
            f"| × {score.slowest_of_default:.1f} |"
        )
    return "\n".join(lines) + "\n"


def write_json(path: Path, results: Sequence[Results]) -> None:
    """All runs; of a curve the columns."""
    data = []
    for run in results:
        record = asdict(run) | {
            "of_best_static": run.of_best_static,
            "asking_of_best_static": run.asking_of_best_static,
        }
        record["training"]["curve"] = {
            "queries": [point.queries for point in run.training.curve],
            "version": [point.version for point in run.training.curve],
            "of_default": [point.held_out.of_default for point in run.training.curve],
        }
        data.append(record)
    path.write_bytes(orjson.dumps(data, option=orjson.OPT_APPEND_NEWLINE))


def draw_curves(path: Path, results: Sequence[Results]) -> None:
    """Held-out cost over answered queries, a line for each run, as a PNG."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    colours = dict(zip(dict.fromkeys(run.algorithm for run in results), _cycle(), strict=False))
    for run in results:
        axes.plot(*_line(run.training.curve), color=colours[run.algorithm], lw=1.4, alpha=0.85)
    for algorithm, colour in colours.items():
        axes.plot([], [], color=colour, label=f"agent ({algorithm})")
    for name, style in ((results[0].best_static, "--"), ("oracle", ":")):
        (score,) = (score for score in results[0].scores if score.name == name)
        label = f"best static hint ({name})" if name != "oracle" else "oracle (hindsight)"
        axes.axhline(score.of_default, color="0.35", ls=style, lw=1.2, label=label)
    axes.axhline(1.0, color="0.35", lw=1.2, label="default planner")
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("queries answered while learning")
    axes.set_ylabel(f"{UNITS[results[0].cost]} of held-out queries,\nshare of the default planner")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=DPI)


def draw_comparison(path: Path, results: Results, table: Table, choices: NDArray[np.int64]) -> None:
    """Totals beside every baseline, and each query by itself, as a PNG."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    bars, dots = figure.subplots(1, 2)
    scores = sorted(results.scores, key=lambda score: score.total)
    colours = [STEERED if score is results.agent else PLAIN for score in scores]
    drawn = bars.barh([score.name for score in scores], [s.total for s in scores], color=colours)
    bars.bar_label(drawn, [f"{score.of_default:.2f}" for score in scores], padding=3, fontsize=8)
    bars.margins(x=0.12)
    bars.set_xlabel(f"total {UNITS[results.cost]}, {results.held_out} held-out queries")
    default = table.costs[:, DEFAULT] + FLOOR
    steered = table.costs[np.arange(len(choices)), choices] + FLOOR
    for number, hint in enumerate(HINTS):
        mine = choices == number
        if mine.any():
            dots.loglog(
                default[mine], steered[mine], ".", ms=5, label=f"{hint.name} ({mine.sum()})"
            )
    ends = [min(default.min(), steered.min()), max(default.max(), steered.max())]
    dots.plot(ends, ends, color="0.35", lw=1)
    dots.set_xlabel(f"default planner, {UNITS[results.cost]}")
    dots.set_ylabel(f"steered, {UNITS[results.cost]}")
    dots.legend(frameon=False, fontsize=8, title="chosen hint", title_fontsize=8)
    figure.savefig(path, dpi=DPI)


def _line(curve: Sequence[CurvePoint]) -> tuple[list[int], list[float]]:
    return [point.queries for point in curve], [point.held_out.of_default for point in curve]


def _cycle() -> list[str]:
    colours: list[str] = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    return colours
