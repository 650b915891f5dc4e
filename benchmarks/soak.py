"""Does memory stay where it is? `python -m benchmarks.soak [--minutes 30]`.

An application that decides without pause, a worker that learns from it and an embedded broker
with its append-only file, for half an hour. Every few seconds: resident memory of the three
processes, and what the broker says of itself. After a warm-up (buffers, queues and the allocators
fill) a straight line is fitted to each by least squares: once to all samples, and once to the
lowest of each of 16 equal parts, the *floor*. What an update or a rewrite of the file takes and
gives back lies above the floor, at times that chance decides; a leak lifts it. A process is *flat*
if its floor rises by less than 1 MB in 10 minutes, or, where 20 minutes or more were measured, by
less than 3 % of its mean over all of them (a shorter run cannot tell 3 % from noise). Exits with 1
if one is not flat, or if the audit does not close.

The application is faster than any worker, so the agent's drop policy decides what is sent: queue,
high-water mark and drops are all in use. Writes docs/benchmarks/soak.json and soak.png.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from benchmarks.rig.processes import (
    CLIENT,
    ROOT,
    Process,
    start_application,
    start_worker,
    write_definition,
)
from rl4sys_stream.broker.audit import audit_client
from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.embedded import EmbeddedServer
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.clock import SystemClock
from rl4sys_stream.testing import eventually

RESULTS = ROOT / "docs" / "benchmarks"
EPISODE_STEPS = 200
PARAMETERS = {"n_steps": 2048, "batch_size": 128, "n_epochs": 10}
AGENT = {"queue_entries": 256, "high_water_entries": 256}
"""Small, so that what waits is not too old to be trained on, and is not most of the memory."""
FLOOR_PARTS = 16
FLAT_MB_PER_HOUR = 6.0
FLAT_SHARE = 0.03
SHARE_NEEDS_S = 20 * 60
PROCESSES = ("application", "worker", "broker")
COLORS = {"application": "#0b69a3", "worker": "#c65d21", "broker": "#2d6a4f"}
GREY = "#616e7c"


@dataclass(frozen=True)
class Sample:
    """One look. Memory in MB, of 1e6 bytes; `broker_used` is what the broker has allocated."""

    at_s: float
    application: float
    worker: float
    broker: float
    broker_used: float
    stream_entries: int
    keys: int
    aof_mb: float
    version: int
    trained: int


@dataclass(frozen=True)
class Line:
    """Least-squares fits of MB over seconds.

    Attributes:
        mb_per_hour: Slope of all samples.
        floor_mb_per_hour: Slope of the floor.
        floor_first_half: That of its first half; a warm-up that was too short shows here.
        floor_second_half: That of its second half.
        mean_mb: Mean.
        peak_mb: Highest.
        floor_growth_share: Rise of the floor's line over all that was measured, by the mean.
        flat: See the module.
    """

    mb_per_hour: float
    floor_mb_per_hour: float
    floor_first_half: float
    floor_second_half: float
    mean_mb: float
    peak_mb: float
    floor_growth_share: float
    flat: bool


def resident_mb(pids: Mapping[str, int]) -> dict[str, float]:
    """Resident memory of each process, as `ps` tells it: in KiB."""
    numbers = ",".join(str(pid) for pid in pids.values())
    out = subprocess.run(
        ["ps", "-o", "pid=,rss=", "-p", numbers], check=True, capture_output=True, text=True
    ).stdout
    found = {int(pid): int(rss) * 1024 / 1e6 for pid, rss in map(str.split, out.splitlines())}
    return {name: round(found[pid], 3) for name, pid in pids.items()}


class Soak:
    """The three processes."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.keys = ClientKeys(CLIENT)
        self.folder = folder
        server = stack.enter_context(EmbeddedServer(folder / "broker"))
        config = write_definition(folder, parameters=PARAMETERS, worker={}, agent=AGENT)
        self.worker = stack.enter_context(start_worker(config, url=server.url, folder=folder))
        self.broker = stack.enter_context(Broker(BrokerAddress.from_url(server.url), name="soak"))
        eventually(lambda: read_head(self.broker, self.keys), 60, "the worker publishes")
        self.application: Process = stack.enter_context(
            start_application(
                config,
                url=server.url,
                folder=folder,
                options=("--untimed", "--episode-steps", str(EPISODE_STEPS)),
            )
        )
        self._pids = {
            "application": self.application.pid,
            "worker": self.worker.pid,
            "broker": server.pid,
        }

    def look(self, begun: float) -> Sample:
        """One sample."""
        for process in (self.application, self.worker):
            process.require_alive()
        head = read_head(self.broker, self.keys)
        files = (self.folder / "broker" / "appendonlydir").iterdir()
        return Sample(
            at_s=round(time.monotonic() - begun, 2),
            **resident_mb(self._pids),
            broker_used=round(self.broker.call("INFO", "memory")["used_memory"] / 1e6, 3),
            stream_entries=self.broker.call("XLEN", self.keys.traj),
            keys=self.broker.call("DBSIZE"),
            aof_mb=round(sum(file.stat().st_size for file in files) / 1e6, 2),
            version=head.version,
            trained=head.counts.trained,
        )

    def finish(self) -> dict[str, int | bool]:
        """End the application, let the worker go on with the rest, and audit."""
        self.application.stop()
        self.worker.stop()
        report = audit_client(self.broker, self.keys, now_ms=SystemClock().wall_ms())
        names = ("accepted", "trained", "quarantined", "dropped", "skipped", "pending", "lost")
        return {**{name: report.total(name) for name in names}, "closes": report.closes}


def fit(seconds: np.ndarray, mb: np.ndarray) -> Line:
    """The lines through one process's samples."""
    parts = np.array_split(np.arange(len(mb)), FLOOR_PARTS)
    lowest = np.array([part[mb[part].argmin()] for part in parts if len(part)])
    half = len(lowest) // 2
    floor = slope(seconds[lowest], mb[lowest])
    window = seconds[-1] - seconds[0]
    share = float(floor / 3600 * window / mb.mean())
    return Line(
        mb_per_hour=slope(seconds, mb),
        floor_mb_per_hour=floor,
        floor_first_half=slope(seconds[lowest[:half]], mb[lowest[:half]]),
        floor_second_half=slope(seconds[lowest[half:]], mb[lowest[half:]]),
        mean_mb=round(float(mb.mean()), 2),
        peak_mb=round(float(mb.max()), 2),
        floor_growth_share=round(share, 4),
        flat=floor < FLAT_MB_PER_HOUR or bool(window >= SHARE_NEEDS_S and share < FLAT_SHARE),
    )


def slope(seconds: np.ndarray, mb: np.ndarray) -> float:
    """Of the least-squares line, in MB an hour."""
    return round(float(np.polyfit(seconds, mb, 1)[0] * 3600), 2)


def columns(samples: list[Sample]) -> dict[str, np.ndarray]:
    """Each field over time."""
    return {
        field.name: np.array([getattr(sample, field.name) for sample in samples], float)
        for field in fields(Sample)
    }


def draw(samples: list[Sample], warm_s: float, lines: dict[str, Line], path: Path) -> None:
    """Memory of the three above, what the broker holds below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - only here
    from matplotlib.figure import Figure  # noqa: PLC0415

    found = columns(samples)
    minutes = found["at_s"] / 60
    figure = Figure(figsize=(9.0, 6.4), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for name in PROCESSES:
        label = f"{name}: floor {lines[name].floor_mb_per_hour:+.1f} MB/h"
        axes.plot(minutes, found[name], color=COLORS[name], linewidth=2, label=label)
    axes.set_title("Resident memory at full speed", loc="left", fontweight="bold")
    axes.set_ylabel("MB")
    axes.legend(frameon=False, loc="center right")
    below.plot(minutes, found["broker_used"], color=COLORS["broker"], linewidth=2)
    below.set_ylabel("broker, used_memory, MB", color=COLORS["broker"])
    other = below.twinx()
    other.plot(minutes, found["stream_entries"], color=GREY, linewidth=1)
    other.set_ylabel("entries in the stream", color=GREY)
    other.set_ylim(bottom=0)
    below.set_xlabel("minutes")
    for one in (axes, below):
        one.set_ylim(bottom=0)
        one.axvspan(0, warm_s / 60, color="#e4e7eb", alpha=0.6, linewidth=0)
        one.grid(axis="y", color="#e4e7eb")
    for one in (axes, below, other):
        one.spines[["top", "right", "left"]].set_visible(False)
        one.tick_params(length=0)
    figure.savefig(path)


def soak(options: argparse.Namespace, folder: Path) -> tuple[list[Sample], dict]:
    """Run for as long as asked for; the samples, and the audit at the end."""
    samples: list[Sample] = []
    pause = threading.Event()
    with ExitStack() as stack:
        one = Soak(folder, stack)
        begun = time.monotonic()
        while time.monotonic() - begun < options.minutes * 60:
            pause.wait(options.interval)
            samples.append(one.look(begun))
            if len(samples) % 12 == 0:
                print(json.dumps(asdict(samples[-1])), flush=True)
        return samples, one.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--interval", type=float, default=5, help="seconds between two looks")
    parser.add_argument("--warm-up", type=float, default=0.2, help="share that is not fitted")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rl4sys-soak-") as folder:
        samples, audit = soak(options, Path(folder))
    warm_s = options.minutes * 60 * options.warm_up
    found = columns([sample for sample in samples if sample.at_s >= warm_s])
    lines = {name: fit(found["at_s"], found[name]) for name in (*PROCESSES, "broker_used")}
    seconds = samples[-1].at_s
    result = {
        "minutes": options.minutes,
        "warm_up_s": warm_s,
        "memory": {name: asdict(line) for name, line in lines.items()},
        "steps_accepted_per_s": round(audit["accepted"] * EPISODE_STEPS / seconds),
        "steps_trained_per_s": round(audit["trained"] * EPISODE_STEPS / seconds),
        "versions": samples[-1].version,
        "audit": audit,
        "samples": [asdict(sample) for sample in samples],
    }
    (options.results / "soak.json").write_text(json.dumps(result) + "\n")
    draw(samples, warm_s, lines, options.results / "soak.png")
    for name, line in lines.items():
        print(f"{name:12} {line}")
    print(json.dumps({key: result[key] for key in result if key not in {"samples", "memory"}}))
    if not audit["closes"] or not all(lines[name].flat for name in PROCESSES):
        sys.exit(1)


if __name__ == "__main__":
    main()
