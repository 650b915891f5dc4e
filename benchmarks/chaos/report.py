"""The report of a run: JSON for machines, a table and a plot for people."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.chaos.control import ControlResult
from benchmarks.chaos.faults import KINDS
from benchmarks.chaos.run import ChaosResult

__all__ = ["write_report"]

BIN_S = 2.0
COLUMNS = (
    "client",
    "ends marked",
    "trained",
    "dropped",
    "quarantined",
    "skipped",
    "pending",
    "lost",
    "twice",
    "duplicates refused",
    "versions",
    "audit",
)
ELSEWHERE = (
    "Not in this run, because what they destroy cannot be told from a loss afterwards, or because",
    "they need a file system to themselves. They have tests of their own: `FLUSHALL`,",
    "failover to a replica that lags, deletion of the stream, the head, the watermarks or the",
    "heartbeats, a full disk under a spool, and a trajectory that kills the process that learns",
    "from it.",
)


def write_report(out: Path, result: ChaosResult, control: ControlResult | None) -> None:
    """Write chaos.json, chaos.md and chaos.png into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    data = _as_data(result, control)
    text = json.dumps(data, indent=1, sort_keys=False)
    (out / "chaos.json").write_text(text + "\n", encoding="utf-8")
    (out / "chaos.md").write_text(_markdown(result, control), encoding="utf-8")
    _plot(out / "chaos.png", result)


def _totals(result: ChaosResult) -> Counter[str]:
    total: Counter[str] = Counter()
    for verdict in result.verdicts:
        total.update(verdict.fates)
    return total


def _kinds(result: ChaosResult) -> Counter[str]:
    return Counter(fault.kind for fault in result.faults if fault.counts)


def _as_data(result: ChaosResult, control: ControlResult | None) -> dict[str, Any]:
    return {
        "passed": result.passed,
        "violations": result.violations,
        "settings": asdict(result.settings),
        "took_s": round(result.took_s, 1),
        "ended": sum(verdict.ended for verdict in result.verdicts),
        "fates": dict(_totals(result)),
        "twice": sum(verdict.twice for verdict in result.verdicts),
        "faults_by_kind": dict(_kinds(result)),
        "clients": {
            verdict.client: {
                "ended": verdict.ended,
                "fates": dict(verdict.fates),
                "twice": verdict.twice,
                "unwritten": dict(verdict.unwritten),
                "duplicates_refused": verdict.duplicates,
                "versions": verdict.versions,
                "audit": {
                    name: result.audits[verdict.client].get(name)
                    for name in ("exit_code", "closes", "total")
                },
            }
            for verdict in result.verdicts
        },
        "events_logged": dict(result.events.most_common()),
        "control": None if control is None else asdict(control),
        "faults": [
            {
                **asdict(fault),
                "began_s": round(fault.began_s, 2),
                "ended_s": round(fault.ended_s, 2),
            }
            for fault in result.faults
        ],
    }


def _markdown(result: ChaosResult, control: ControlResult | None) -> str:
    settings, total = result.settings, _totals(result)
    struck = _kinds(result)
    intro = (
        f"`make chaos`: {struck.total()} faults in {settings.minutes:g} minutes, seed "
        f"{settings.seed}; {len(settings.clients)} clients x {settings.agents} agents. "
        f"Verdict: **{'passed' if result.passed else 'FAILED'}**."
    )
    lines = ["# Chaos run", "", intro, "", _row(*COLUMNS), _row(*["---"] * len(COLUMNS))]
    for verdict in result.verdicts:
        fates = verdict.fates
        closes = "closes" if result.audits[verdict.client]["exit_code"] == 0 else "OPEN"
        lines.append(
            _row(
                verdict.client,
                verdict.ended,
                fates["trained"],
                fates["dropped"],
                sum(n for fate, n in fates.items() if fate.startswith("quarantined")),
                fates["skipped"],
                fates["pending"],
                fates["lost"],
                verdict.twice,
                verdict.duplicates,
                verdict.versions,
                closes,
            )
        )
    lines += ["", f"All clients: {dict(total)}.", ""]
    if control is not None:
        outcome = (
            f'Control ("publish, then ack"), struck with the {control.kinds} of {len(KINDS)} kinds '
            f"that have an object there (its worker, its broker, its connections): "
            f"{control.accepted} accepted, **{control.lost} lost, {control.twice} trained twice** "
            f"in {control.faults} faults of {len(control.faults_by_kind)} kinds."
        )
        lines += [outcome, ""]
    lines += ["![throughput and faults](chaos.png)", "", "| fault | times |", "|---|---|"]
    lines += [f"| {kind.name} | {struck[kind.name]} |" for kind in KINDS]
    lines += ["", *ELSEWHERE]
    if result.violations:
        lines += ["", "## Violations", "", *(f"- {text}" for text in result.violations)]
    return "\n".join(lines) + "\n"


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _plot(path: Path, result: ChaosResult) -> None:
    import matplotlib as mpl  # noqa: PLC0415 -- slow to import, and only here

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    kinds = sorted({fault.kind for fault in result.faults if fault.counts})
    rows = max(0.17 * len(kinds), 1.5)  # inches: each kind's name needs its own
    figure, (top, bottom) = plt.subplots(
        2, 1, sharex=True, figsize=(12, 4 + rows), height_ratios=(4, rows), layout="constrained"
    )
    end_s = max(result.took_s, 1.0)
    edges = [BIN_S * i for i in range(int(end_s / BIN_S) + 2)]
    times, weights = [], []
    for verdict in result.verdicts:
        times.append([(at - result.begun_ms) / 1000 for at, _ in verdict.trained_at])
        weights.append([count / BIN_S for _, count in verdict.trained_at])
    names = [verdict.client for verdict in result.verdicts]
    colors = ["#0b69a3", "#2d6a4f", "#c65d21", "#7b4fa3"][: len(names)]
    top.hist(times, bins=edges, weights=weights, stacked=True, label=names, color=colors)
    top.set_ylabel("trajectories trained per second")
    title = "passed" if result.passed else "FAILED"
    total = _totals(result)
    top.set_title(
        f"{_kinds(result).total()} faults: {total['trained']} trained once, {total['lost']} lost "
        f"({title}); versions of the final line"
    )
    top.legend(loc="upper right")
    for fault in result.faults:
        if fault.counts:
            row = kinds.index(fault.kind)
            bottom.plot(
                [fault.began_s, max(fault.ended_s, fault.began_s + end_s / 400)],
                [row, row],
                color="#a4133c",
                linewidth=5,
                solid_capstyle="butt",
            )
            top.axvline(fault.began_s, color="#a4133c", alpha=0.15, linewidth=0.8)
    bottom.set_yticks(range(len(kinds)), kinds, fontsize=7)
    bottom.set_ylim(-0.7, len(kinds) - 0.3)
    bottom.invert_yaxis()
    bottom.set_xlabel("seconds since the first fault was due")
    bottom.set_xlim(0, end_s)
    bottom.grid(axis="y", alpha=0.2)
    figure.savefig(path, dpi=90)
    plt.close(figure)
