"""What all campaigns have found: docs/benchmarks/learning.json, learning.md and the pictures."""

import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.learning.cases import CASES
from benchmarks.learning.curves import draw_case
from benchmarks.learning.summary import CaseSummary, SideSummary
from benchmarks.learning.threads import ThreadChoice

__all__ = ["Report", "read_report", "table_lines", "write_report"]

PACKAGES: Final = ("stable-baselines3", "torch", "gymnasium", "numpy")
FIRST_LINES: Final = """# Learning, side by side with Stable-Baselines3

    make bench-learning    # or: python -m benchmarks.learning --cases CASE,... --seeds 1,2,3,4,5

For each case and seed all sides run one after the other on the same two cores; who
begins alternates with the seed. Counted are environment steps and seconds until the mean return
of the last episodes of *training* reaches the target, by the same code for all. Stable-Baselines3
(sb3) is timed from its first rollout on, with one torch thread or torch's default, whichever is
faster for it; ours from the application's first step on, with broker, dispatcher, worker and
application processes, one thread each. Settings are in `benchmarks/learning/cases.py`. Medians
are over all seeds, and a run that did not reach the target counts as longer than any that did; in
brackets the lowest and the highest.
"""


class Report(msgspec.Struct, kw_only=True):
    """Everything that is kept.

    Attributes:
        machine: In words.
        python: Version.
        packages: Versions by name.
        threads: What each case's measurement of the reference's threads said.
        cases: Summaries by name.
    """

    machine: str
    python: str
    packages: dict[str, str]
    threads: dict[str, ThreadChoice]
    cases: dict[str, CaseSummary]


def read_report(path: Path) -> Report:
    """What is there, or an empty report, with the present machine and versions."""
    kept = msgspec.json.decode(path.read_bytes(), type=Report) if path.exists() else None
    return Report(
        machine=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages={name: version(name) for name in PACKAGES},
        threads={} if kept is None else kept.threads,
        cases={} if kept is None else kept.cases,
    )


def write_report(
    folder: Path, summaries: Iterable[CaseSummary], threads: Mapping[str, ThreadChoice]
) -> None:
    """Merge the summaries into what is in `folder`, and draw them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "learning.json"
    report = read_report(path)
    report.threads.update(threads)
    for summary in summaries:
        report.cases[summary.case] = _merged(report.cases.get(summary.case), summary)
        draw_case(report.cases[summary.case], folder / f"learning_{summary.case}.png")
    path.write_bytes(msgspec.json.encode(report) + b"\n")
    (folder / "learning.md").write_text("\n".join(_document(report)) + "\n", encoding="utf-8")


def _merged(old: CaseSummary | None, new: CaseSummary) -> CaseSummary:
    """Sides that did not run this time keep what they had."""
    if old is None or (old.target, old.window) != (new.target, new.window):
        return new
    sides = {one.side: one for one in (*old.sides, *new.sides)}
    order = {
        side.name: i for case in CASES if case.name == new.case for i, side in enumerate(case.sides)
    }
    kept = sorted((s for s in sides.values() if s.side in order), key=lambda s: order[s.side])
    return msgspec.structs.replace(new, sides=kept)


def _document(report: Report) -> list[str]:
    versions = ", ".join(f"{name} {found}" for name, found in report.packages.items())
    lines = [FIRST_LINES, f"Python {report.python}, {versions}; {report.machine}.", ""]
    for case in CASES:
        if summary := report.cases.get(case.name):
            lines += [f"## {summary.title}", "", *table_lines(summary), ""]
            if choice := report.threads.get(case.name):
                lines += [
                    (
                        f"Threads for sb3: {choice.threads} ({choice.one:,.0f} steps/s with one, "
                        f"{choice.default:,.0f} with torch's default of {choice.default_threads})."
                    ),
                    "",
                ]
            loads = [seed.load_before for side in summary.sides for seed in side.seeds]
            lines += [
                (
                    f"Load of the machine before a run: {min(loads):.1f} to {max(loads):.1f}; the "
                    "run before leaves 1 to 2. Where it was more, seconds are too many."
                ),
                "",
            ]
            lines += [f"![learning curves](learning_{case.name}.png)", ""]
    return lines[:-1]


def table_lines(summary: CaseSummary) -> list[str]:
    """The Markdown table of one case; ratios are to its first side."""
    titles = [
        *("side", f"reached {summary.target:g}", "steps", "seconds"),
        *("× steps", "× seconds", "steps/s", "best mean"),
    ]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    first = summary.sides[0]
    for side in summary.sides:
        cells = [
            side.side,
            f"{side.reached} of {len(side.seeds)}",
            _spread(side.steps, [s.steps_to_target for s in side.seeds], ",.0f"),
            _spread(side.seconds, [s.seconds_to_target for s in side.seeds], ",.1f"),
            _ratio(side.steps, first.steps),
            _ratio(side.seconds, first.seconds),
            _speed(side),
            _best(side),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _spread(median: float | None, values: Sequence[float | None], form: str) -> str:
    found = sorted(math.inf if v is None else v for v in values)
    low, high = (format(v, form) if math.isfinite(v) else "–" for v in (found[0], found[-1]))
    return f"{'–' if median is None else format(median, form)} ({low} to {high})"


def _ratio(value: float | None, to: float | None) -> str:
    return "–" if value is None or not to else f"{value / to:.2f}"


def _speed(side: SideSummary) -> str:
    steps = sum(s.facts["steps"] for s in side.seeds)
    return f"{steps / sum(s.facts['seconds'] for s in side.seeds):,.0f}"


def _best(side: SideSummary) -> str:
    found = [s.best_mean for s in side.seeds if s.best_mean is not None]
    return f"{min(found):.0f} to {max(found):.0f}" if found else "–"
