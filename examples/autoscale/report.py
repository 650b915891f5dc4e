"""What a run leaves behind: a table, numbers as JSON, and plots."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from matplotlib.figure import Figure

from examples.autoscale.control import REPLICA_RATE, STEP_S, Outcome
from examples.autoscale.demand import DAY_STEPS
from examples.autoscale.evaluation import Score
from examples.autoscale.training import Training

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "AGENT",
    "LiveScore",
    "Results",
    "draw_comparison",
    "draw_curves",
    "draw_day",
    "live_table",
    "markdown",
    "write_json",
]

AGENT: Final = "agent"
DPI: Final = 130
COLOURS: Final = {
    AGENT: "tab:blue",
    "HPA": "tab:red",
    "KEDA": "tab:orange",
    "weekly predictive": "tab:green",
    "HPA, floor": "tab:pink",
    "weekly predictive, floor": "tab:olive",
}


@dataclass(frozen=True, slots=True)
class LiveScore:
    """A controller on a live pool, and on twins under the same demand.

    Attributes:
        live: What it reached on real processes.
        twin: What the twin said.
        behind_s: How much later than planned the live steps began, in sum.
        died: Replicas that died.
    """

    live: Score
    twin: Score
    behind_s: float
    died: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One run.

    Attributes:
        seed: Of the training.
        training: Its curve, and what was chosen from it.
        trained_s: Seconds of the training.
        validation: The baselines on the validation weeks.
        held_out: The baselines and, last, the agent on held-out weeks.
        live: The same on live pools; empty if there was no live part.
        stretch: How much slower their time passed.
    """

    seed: int
    training: Training
    trained_s: float
    validation: tuple[Score, ...]
    held_out: tuple[Score, ...]
    live: tuple[LiveScore, ...]
    stretch: float = 1.0

    @property
    def agent(self) -> Score:
        """The agent on held-out weeks."""
        return self.held_out[-1]

    def better_than(self, name: str) -> float:
        """By which share of a baseline's cost the agent's is lower, on held-out weeks."""
        (other,) = (score for score in self.held_out if score.name == name)
        return 1.0 - self.agent.objective / other.objective


def markdown(results: Results) -> str:
    """The comparisons as tables."""
    agent = results.agent
    days = f"held-out demand, {agent.steps / DAY_STEPS:.0f} days"
    lines = [
        f"| {days} | objective | replicas | late, of all | late, mean of steps | agent's cost |",
        "|---|---|---|---|---|---|",
    ]
    for score in results.held_out:
        less = "" if score is agent else f"{-results.better_than(score.name):+.0%}"
        lines.append(
            f"| {score.name} | {score.objective:.3f} | {score.replicas:.1f} | {score.late:.2%} "
            f"| {score.late_steps:.2%} | {less} |"
        )
    table = "\n".join(lines) + "\n"
    return f"{table}\n{live_table(results.live, results.stretch)}" if results.live else table


def live_table(live: Sequence[LiveScore], stretch: float) -> str:
    """Live pools beside what twins say of them."""
    steps = f"live, {live[0].live.steps} steps of {STEP_S * stretch:g} s"
    lines = [
        f"| {steps} | objective | replicas | late | twin: replicas | late |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.live.name} | {one.live.objective:.3f} | {one.live.replicas:.1f} "
        f"| {one.live.late:.2%} | {one.twin.replicas:.1f} | {one.twin.late:.2%} |"
        for one in live
    ]
    return "\n".join(lines) + "\n"


def write_json(path: Path, results: Sequence[Results]) -> None:
    """All runs, in full."""
    data = [
        asdict(run)
        | {
            "best_version": run.training.best.version,
            "late_steps": {score.name: score.late_steps for score in run.held_out},
            "better_than": {score.name: run.better_than(score.name) for score in run.held_out[:-1]},
        }
        for run in results
    ]
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def draw_curves(path: Path, results: Sequence[Results]) -> None:
    """Objective on validation weeks over decisions, a line for each run, as a PNG."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for run in results:
        points = run.training.curve
        decisions = [point.decisions for point in points]
        values = [point.score.objective for point in points]
        axes.plot(decisions, values, color=COLOURS[AGENT], lw=1.4, alpha=0.85)
        best = run.training.best
        axes.plot(best.decisions, best.score.objective, "o", color=COLOURS[AGENT], ms=5)
    axes.plot([], [], "-o", color=COLOURS[AGENT], ms=5, label="agent, best version marked")
    for score in results[0].validation:
        colour = COLOURS[score.name]
        axes.axhline(score.objective, color=colour, ls="--", lw=1.2, label=score.name)
    floor = min(score.objective for score in results[0].validation)
    axes.set_ylim(bottom=1.25 * floor)
    axes.set_xlabel("decisions on twins")
    axes.set_ylabel("objective on validation weeks")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    _tidy(axes)
    figure.savefig(path, dpi=DPI)


def draw_comparison(path: Path, results: Sequence[Results]) -> None:
    """Replicas against lateness on held-out weeks, and on live pools, as a PNG.

    Lateness both ways: of the requests, and of a step's requests, which the objective counts.
    """
    twins = [score for run in results for score in run.held_out]
    live = [one.live for run in results for one in run.live]
    parts = [
        ("held-out weeks, on twins", "late, % of all requests", twins, _late),
        ("the same as judged", "late, % of a step's requests, mean of steps", twins, _late_steps),
    ]
    if live:
        title = f"{live[0].steps} steps live, on processes"
        parts.append((title, "late, % of all requests", live, _late))
    figure = Figure(figsize=(4.6 * len(parts), 4.2), layout="constrained")
    for axes, (title, label, scores, late) in zip(
        figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True
    ):
        for name, colour in reversed(COLOURS.items()):
            mine = [score for score in scores if score.name == name]
            if mine:
                axes.scatter(
                    [score.replicas for score in mine],
                    [100.0 * late(score) for score in mine],
                    color=colour,
                    s=36,
                    alpha=0.8,
                    label=name,
                )
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("replicas, mean (cost)")
        axes.set_ylabel(label)
        axes.margins(0.15)
        axes.set_ylim(bottom=-0.2)
        _tidy(axes)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=DPI)


def _late(score: Score) -> float:
    return score.late


def _late_steps(score: Score) -> float:
    return score.late_steps


def draw_day(path: Path, runs: Mapping[str, Sequence[Outcome]], title: str) -> None:
    """Replicas and lateness over one span of the demand, for each controller, as a PNG."""
    figure = Figure(figsize=(9.5, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    rates = [outcome.reading.arrived / STEP_S for outcome in next(iter(runs.values()))]
    needed = [rate / REPLICA_RATE for rate in rates]
    upper.fill_between(range(len(needed)), needed, color="0.88", label="needed at load 1")
    for name, outcomes in runs.items():
        colour = COLOURS[name]
        replicas = [outcome.replicas for outcome in outcomes]
        upper.step(range(len(replicas)), replicas, color=colour, lw=1.3, label=name, where="post")
        late = [outcome.reading.late for outcome in outcomes]
        lower.step(range(len(late)), late, color=colour, lw=1.3, where="post")
    upper.set_title(title, fontsize=10, loc="left")
    upper.set_ylabel("replicas")
    upper.legend(
        frameon=False,
        fontsize=8,
        ncols=5,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        borderaxespad=0.2,
    )
    lower.set_ylabel("late requests a step")
    lower.set_xlabel("steps of half a second; each stands for 5 minutes of the demand")
    for axes in (upper, lower):
        _tidy(axes)
    figure.savefig(path, dpi=DPI)


def _tidy(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92", lw=0.8)
    axes.set_axisbelow(True)
