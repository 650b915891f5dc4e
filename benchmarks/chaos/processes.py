"""Starting, finding and ending processes of a run. Every one of them bears the run's folder."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rl4sys_stream.broker.connection import URL_ENV

__all__ = ["ROOT", "ApplicationProcess", "find", "parent", "send", "start_module", "stop_process"]

ROOT = Path(__file__).resolve().parents[2]


def start_module(
    module: str, arguments: Sequence[str], *, url: str, log: Path, talk: bool = False
) -> subprocess.Popen[str]:
    """Run `python -m module arguments`, with the broker's address in its environment.

    Args:
        module: Of the package or of this folder.
        arguments: Its arguments.
        url: Of the broker.
        log: File that its output is appended to.
        talk: Give it pipes for input and output; else it reads nothing.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, URL_ENV: url, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talk else output,
            stderr=output,
            text=True,
        )


def find(*words: str) -> list[int]:
    """Ids of the processes whose argument list holds all of `words`, in /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if all(word in arguments for word in words):
            found.append(int(path.parent.name))
    return sorted(found)


def parent(pid: int) -> int:
    """Its parent's id, 0 if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[1])


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False if the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def stop_process(process: subprocess.Popen[str], timeout_s: float) -> int:
    """SIGTERM, SIGKILL if that takes too long; the exit code."""
    process.terminate()
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


class ApplicationProcess:
    """One application; another process after each kill."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Listen to a process that was started with `talk`."""
        self.process = process
        self._heard: Counter[str] = Counter()
        self._news = threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._heard[line.strip()] += 1
                self._news.notify_all()
        self.process.stdout.close()

    def say(self, word: str) -> None:
        """Tell it to `rest` or to `close`."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()

    def hears(self, word: str, timeout_s: float, *, times: int = 1) -> bool:
        """Wait until it has said `word` so often."""
        with self._news:
            return self._news.wait_for(lambda: self._heard[word] >= times, timeout_s)

    def ask(self, number: signal.Signals, answer: str, timeout_s: float) -> bool:
        """Send a signal, and wait until it has answered."""
        if not self.hears("playing", timeout_s):
            return False
        before = self._heard[answer]
        return send(self.process.pid, number) and self.hears(answer, timeout_s, times=before + 1)

    def leave(self, timeout_s: float) -> int | None:
        """SIGTERM; its exit code, None if it had to be killed."""
        if not self.hears("playing", timeout_s):
            self.kill()
            return None
        self.process.terminate()
        return self._wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        self._let_go()

    def close(self, timeout_s: float) -> int | None:
        """Ask it to close its agents; its exit code, None if it had to be killed."""
        self.say("close")
        return self._wait(timeout_s)

    def _wait(self, timeout_s: float) -> int | None:
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        self._let_go()
        return code

    def _let_go(self) -> None:
        self._listener.join(5)
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
