"""What is written down: a JSON file, a page with the goals beside the figures, and a plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
import msgspec
import numpy as np

from benchmarks.models.catching_up import CatchingUp
from benchmarks.models.identity import Identity
from benchmarks.models.latency import Latency
from benchmarks.models.sizes import Run
from benchmarks.models.speed import Speed

__all__ = ["NAME", "Figures", "read_figures", "write_report"]

NAME: Final = "models"
STEADY: Final = 30
"""Versions at the end of a run that count as its steady state."""

GOALS: Final = {"ppo_64x64": 0.055, "ppo_256x256": 0.026, "dqn_1m": 0.014}


class Figures(msgspec.Struct, kw_only=True):
    """What was measured; None and empty for what was not.

    Attributes:
        runs: Training runs.
        speed: Of a small and a large model.
        identity: Of all readers.
        latency: With agents.
        behind: Of agents that are behind.
    """

    runs: list[Run] = []
    speed: list[Speed] = []
    identity: Identity | None = None
    latency: list[Latency] = []
    behind: list[CatchingUp] = []


def read_figures(folder: Path) -> Figures:
    """What `write_report` wrote; nothing if there is nothing."""
    path = folder / f"{NAME}.json"
    return msgspec.json.decode(path.read_bytes(), type=Figures) if path.exists() else Figures()


def write_report(folder: Path, figures: Figures, command: str) -> None:
    """Write everything into `folder`, made where needed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.json").write_bytes(msgspec.json.encode(figures) + b"\n")
    lines = [
        "# Model versions: bytes, exactness, time",
        "",
        f"    {command}",
        "",
        *_size_lines(figures.runs),
        *_speed_lines(figures.speed),
        *_identity_lines(figures.identity),
        *_latency_lines(figures.latency),
        *_behind_lines(figures.behind),
    ]
    (folder / f"{NAME}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if figures.runs:
        _plot(folder / f"{NAME}.png", figures.runs)


def _size_lines(runs: Sequence[Run]) -> list[str]:
    lines = [
        "## Bytes of a version",
        "",
        "Shares of the raw float32 of the published net; agents act by what is published. *Steady*",
        f"is the mean of the last {STEADY} versions. *Held out* is the effect of rounding on steps",
        "that the choice of the grid did not see.",
        "",
        (
            "| run | versions | budget | compact diff | steady | goal | bytes | exact diff "
            "| snapshot | exact snapshot | held out, median / p95 | regrids |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        raw = 4 * run.parameters
        mean, steady = (float(np.mean(part)) for part in (run.diff_bytes, run.diff_bytes[-STEADY:]))
        cells = (
            f"{run.task}, seed {run.seed}",
            f"{len(run.diff_bytes)}",
            f"{run.budget:g}",
            f"**{mean / raw:.4f}**",
            f"{steady / raw:.4f}",
            f"{GOALS.get(run.task, 0):g}",
            f"{mean:,.0f}",
            f"{np.mean(run.exact_bytes) / raw:.3f}",
            f"{np.mean(run.full_bytes) / raw:.3f}",
            f"{np.mean(run.exact_full_bytes) / raw:.3f}",
            f"{np.median(run.held_out):.1e} / {np.quantile(run.held_out, 0.95):.1e}",
            f"{run.regrids}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", "![bytes and effect of every version](models.png)", ""] if runs else []


def _speed_lines(speeds: Sequence[Speed]) -> list[str]:
    lines = [
        "## Time of the codec",
        "",
        "Processor time of one thread, the least of many; × is multiples of a memcpy of the model.",
        "Encoding includes rounding; both include the digests.",
        "",
        (
            "| parameters | memcpy µs | diff / raw | encode µs | decode µs | snapshot enc / dec µs "
            "| exact enc / dec µs |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for one in speeds:
        cells = (
            f"{one.parameters:,}",
            f"{one.memcpy_us:,.1f}",
            f"{one.ratio:.4f}",
            f"{one.encode_us:,.0f} ({one.encode_us / one.memcpy_us:.1f}×)",
            f"{one.decode_us:,.0f} ({one.decode_us / one.memcpy_us:.1f}×)",
            f"{one.snapshot_encode_us:,.0f} / {one.snapshot_decode_us:,.0f}",
            f"{one.exact_encode_us:,.0f} / {one.exact_decode_us:,.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""] if speeds else []


def _identity_lines(found: Identity | None) -> list[str]:
    if found is None:
        return []
    wrong = ", ".join(f"{name} {count}" for name, count in found.mismatches.items())
    layouts = ", ".join(f"{count} {name}" for name, count in found.layouts.items())
    return [
        "## Bit-identity",
        "",
        f"{found.versions:,} versions, {found.regrids:,} of them with another grid, followed by",
        f"readers in numpy, torch and C++ (`{found.flags}`): float32 patterns that differ from the",
        f"publisher's: {wrong}. Layouts: {layouts}.",
        "",
    ]


def _latency_lines(found: Sequence[Latency]) -> list[str]:
    lines = [
        "## From publication to action",
        "",
        f"    python -m benchmarks.{NAME} --parts latency",
        "",
        "Milliseconds until an agent acts by a version; loopback, 64×64. First from before the",
        "version is staged, with all that its publisher does; then from before its notice is sent.",
        "*Out* is when the publisher has sent it. Load is the whole machine's, on so many cores.",
        "",
        (
            "| agents | processes | versions | diff bytes | p50 | p99 | from the notice, p50 | p99 "
            "| first agent, p50 | out, p50 | load / cores |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.agents} | {one.processes} | {one.versions} | {one.diff_bytes:,.0f} "
        f"| {one.p50_ms} | {one.p99_ms} | {one.notice_p50_ms} | {one.notice_p99_ms} "
        f"| {one.first_p50_ms} | {one.commit_ms} | {one.load} / {one.cores} |"
        for one in found
    ]
    return [*lines, ""] if found else []


def _behind_lines(found: Sequence[CatchingUp]) -> list[str]:
    lines = [
        "## Agents that are behind, or new",
        "",
        "Bytes over the socket until the newest version is whole: manifest, frames, extras,",
        "protocol. 64×64 with statistics of observations, a worker's defaults, at 40 versions in",
        "a row. One round trip reads the head with its manifest, another one all frames, which are",
        "at most 2 keyframes. A small diff rides in the notice: then nothing is read.",
        "",
        (
            "| codec | versions behind | newest keyframe | bytes, median | most | most / keyframe "
            "| frames alone / keyframe | round trips |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.codec} | {'new' if one.behind is None else f'{one.behind:,}'} "
        f"| {one.keyframe_bytes:,.0f} | {one.bytes_median:,.0f} | {one.bytes_most:,} "
        f"| {one.keyframes_most:.2f} | {one.frames_most:.2f} | {one.round_trips} |"
        for one in found
    ]
    return [*lines, ""] if found else []


def _plot(path: Path, runs: Sequence[Run]) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 -- after the backend is chosen

    figure, axes = plt.subplots(2, len(runs), figsize=(4.2 * len(runs), 6), squeeze=False)
    for column, run in enumerate(runs):
        raw = 4 * run.parameters
        versions = np.arange(2, 2 + len(run.diff_bytes))
        top, bottom = axes[0][column], axes[1][column]
        for label, sizes in (
            ("exact diff", run.exact_bytes),
            ("compact snapshot", run.full_bytes),
            ("compact diff", run.diff_bytes),
        ):
            top.plot(versions, np.array(sizes) / raw, label=label)
        top.set(title=run.task, ylabel="bytes / raw float32", ylim=(0, None))
        bottom.semilogy(versions, np.maximum(run.held_out, 1e-12), ".", label="held out")
        bottom.axhline(run.budget, color="tab:red", label="budget")
        bottom.set(xlabel="model version", ylabel="effect of rounding")
        top.legend(fontsize=8)
        bottom.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
