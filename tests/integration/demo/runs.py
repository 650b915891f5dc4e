"""Running the demo as a subprocess, and finding what it left."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class DemoRun:
    """A demo that has ended."""

    code: int
    output: str
    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        """The parsed summary.json."""
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return found


def start_demo(out: Path, *arguments: str, task: str = "lunar_lander") -> "subprocess.Popen[str]":
    """Start `rl4sys-stream demo TASK --plain` with `arguments`."""
    command = [sys.executable, "-m", "rl4sys_stream", "demo", task, "--plain"]
    return subprocess.Popen(
        [*command, "--out", str(out), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: "subprocess.Popen[str]", out: Path, timeout_s: float = 60) -> DemoRun:
    """Wait for the end of a demo."""
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
        raise AssertionError(f"the demo did not end within {timeout_s} s:\n{output}") from None
    return DemoRun(process.returncode, output, only_folder(out))


def only_folder(out: Path) -> Path:
    """The one run folder in `out`."""
    (folder,) = out.iterdir()
    return folder


def children(folder: Path) -> set[int]:
    """Process ids of the worker, the applications and the broker of a run, from its logs."""
    text = "".join(path.read_text() for path in folder.glob("*.log") if path.name != "worker.log")
    worker = {int(pid) for pid in re.findall(r"worker_started .*pid=(\d+)", text)}
    agents = {int(pid) for pid in re.findall(r"agent=\S*-(\d+)-[0-9a-f]{8}", text)}
    record = folder / "broker" / "server.json"
    broker = {json.loads(record.read_text())["pid"]} if record.exists() else set()
    return worker | agents | broker


def alive(pids: set[int]) -> set[int]:
    """Those of `pids` that run; a zombie, which waits for its parent's look, does not."""
    return {pid for pid in pids if _state(pid) not in {"", "Z"}}


def _state(pid: int) -> str:
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout.strip()[:1]
