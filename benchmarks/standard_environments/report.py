"""What is written down of a campaign."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.standard_environments.training import Score

__all__ = ["NAME", "read_scores", "table_lines", "write_report"]

NAME: Final = "standard_environments"

_HEAD: Final = (
    "| definition | by | seed | steps | s | played, mean | expected | optimum | goal | |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def table_lines(scores: Sequence[Score]) -> list[str]:
    """The scores as a Markdown table."""
    return [*_HEAD, *map(_row, scores)]


def write_report(folder: Path, scores: Sequence[Score], command: str) -> None:
    """Write the figures and the table.

    Args:
        folder: Where they go.
        scores: Of all runs.
        command: That made them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = msgspec.json.format(msgspec.json.encode(scores), indent=2)
    (folder / f"{NAME}.json").write_bytes(figures + b"\n")
    lines = [
        "# Standard environments",
        "",
        f"    {command}",
        "",
        "A run is a broker, a worker with the definition in `workers/`, and `play`; afterwards the",
        "greedy policy is scored. *Played* is the mean return of as many new episodes as stand in",
        f"[{NAME}.json]({NAME}.json); *expected* is what the policy earns by the environment's",
        "rules, and *optimum* what the best one does. Where these are known the goal is the",
        "optimum within 5 %, and it is the expectation that has to reach it.",
        "",
        *table_lines(scores),
    ]
    (folder / f"{NAME}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_scores(folder: Path) -> list[Score]:
    """What `write_report` wrote; [] if there is nothing."""
    path = folder / f"{NAME}.json"
    return msgspec.json.decode(path.read_bytes(), type=list[Score]) if path.exists() else []


def _row(score: Score) -> str:
    cells = (
        f"`{score.task}`",
        score.algorithm,
        f"{score.seed}",
        f"{score.steps:,}",
        f"{score.seconds:.0f}",
        _shown(score.played_mean),
        _shown(score.expected_return),
        _shown(score.optimum),
        _shown(score.goal),
        "reached" if score.reached else "**missed**",
    )
    return f"| {' | '.join(cells)} |"


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.4f}"
