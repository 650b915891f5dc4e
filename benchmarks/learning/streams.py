"""Our side: the system of a user, and applications that report their episodes."""

import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.learning.cases import ROOT, Case, Streams
from benchmarks.learning.messages import ApplicationOrder, Episode, Finished, Message, Ready
from benchmarks.learning.record import Curve, EpisodeLog
from benchmarks.learning.system import System, open_system

__all__ = ["StreamsOutcome", "merge_episodes", "run_streams"]

SEEDS_APART: Final = 1000
"""Between two seeds lie those of all environments of one run."""
PATIENCE_S: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsOutcome:
    """What came of a run.

    Attributes:
        curve: Of the training episodes of all applications.
        facts: See `Run.facts`.
    """

    curve: Curve
    facts: dict[str, float]


@dataclass(slots=True)
class _Reports:
    """What one application has said."""

    episodes: list[Episode] = field(default_factory=list)
    finished: Finished | None = None


def run_streams(case: Case, side: Streams, *, seed: int, budget: int, log: Path) -> StreamsOutcome:
    """Train until the target or the budget is reached.

    Args:
        case: The environment and the target.
        side: Settings.
        seed: Of everything.
        budget: Environment steps, over all applications, after which it ends.
        log: Where the errors of all processes go; the applications' beside it.

    Raises:
        SystemExit: If a process fails.
    """
    with open_system(case, side, seed=seed, log=log) as system, ExitStack() as stack:
        applications = _Applications(system, case, side, seed=seed, log=log)
        stack.callback(applications.kill)
        reports = applications.play(EpisodeLog(target=case.target, window=case.window), budget)
        facts = system.facts()
    finished = [one.finished for one in reports if one.finished is not None]
    began, ended = min(one.began for one in finished), max(one.at for one in finished)
    steps = sum(one.steps for one in finished)
    return StreamsOutcome(
        curve=merge_episodes([one.episodes for one in reports], began),
        facts={
            "steps": steps,
            "seconds": ended - began,
            "waited_s": sum(one.waited_s for one in finished) / len(finished),
            "versions": facts.versions,
            "trained_share": facts.trained_steps / steps,
            "unused_trajectories": facts.unused,
            **({} if facts.lag_mean is None else {"lag_mean": facts.lag_mean}),
        },
    )


def merge_episodes(applications: Sequence[Sequence[Episode]], began: float) -> Curve:
    """All episodes in the order in which they ended, with the steps of all applications.

    An application says how far it is when an episode of its ends; in between its steps are taken
    to come evenly.

    Args:
        applications: The episodes of each, in order.
        began: Monotonic seconds before the first step of all.
    """
    episodes = sorted((e for one in applications for e in one), key=lambda e: e.at)
    at = np.array([e.at for e in episodes])
    steps: NDArray[np.float64] = np.zeros(len(episodes))
    for one in applications:
        times, counts = [began, *(e.at for e in one)], [0, *(e.steps for e in one)]
        steps += np.interp(at, times, counts)
    return Curve(
        steps=[round(s) for s in steps.tolist()],
        seconds=(at - began).tolist(),
        returns=[e.total for e in episodes],
    )


class _Applications:
    """The application processes of one run."""

    def __init__(self, system: System, case: Case, side: Streams, *, seed: int, log: Path) -> None:
        self._said: queue.SimpleQueue[tuple[int, Message | None]] = queue.SimpleQueue()
        self._log = log
        self._readers: list[threading.Thread] = []
        self._processes = [
            self._start(number, system, _order(system, case, side, seed, number))
            for number in range(side.agents)
        ]

    def _start(
        self, number: int, system: System, order: ApplicationOrder
    ) -> subprocess.Popen[bytes]:
        with self._log.with_suffix(f".application{number}.log").open("wb") as errors:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "benchmarks.learning.application",
                    msgspec.json.encode(order).decode(),
                ],
                cwd=ROOT,
                env=system.environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        reader = threading.Thread(target=self._read, args=(number, process), daemon=True)
        reader.start()
        self._readers.append(reader)
        return process

    def _read(self, number: int, process: subprocess.Popen[bytes]) -> None:
        for line in process.stdout or ():
            self._said.put((number, msgspec.json.decode(line, type=Message)))
        self._said.put((number, None))

    def play(self, log: EpisodeLog, budget: int) -> list[_Reports]:
        """Begin when all are ready, stop at the target or the budget."""
        reports = [_Reports() for _ in self._processes]
        steps = [0] * len(reports)
        ready, running, stopped = 0, len(reports), False
        while running:
            number, said = self._said.get(timeout=PATIENCE_S)
            match said:
                case Ready():
                    ready += 1
                    if ready == len(reports):
                        self._tell_all(b"begin\n")
                case Episode():
                    reports[number].episodes.append(said)
                    steps[number] = said.steps
                    reached = log.add(steps=sum(steps), seconds=said.at, total=said.total)
                    if not stopped and (reached or sum(steps) >= budget):
                        stopped = True
                        self._close_all()
                case Finished():
                    reports[number].finished = said
                case None:
                    self._require_finished(number, reports[number])
                    running -= 1
        return reports

    def _require_finished(self, number: int, reports: _Reports) -> None:
        if reports.finished is None:
            log = self._log.with_suffix(f".application{number}.log")
            tail = log.read_text(errors="replace")[-3000:]
            raise SystemExit(f"application {number} failed; {log} ends with\n{tail}")

    def _tell_all(self, line: bytes) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.write(line)
                process.stdin.flush()

    def _close_all(self) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()

    def kill(self) -> None:
        """Whatever still runs; nothing is left open."""
        for process, reader in zip(self._processes, self._readers, strict=True):
            process.kill()
            reader.join()
            with process:  # closes its pipes and waits for it
                pass


def _order(system: System, case: Case, side: Streams, seed: int, number: int) -> ApplicationOrder:
    return ApplicationOrder(
        definition=str(system.definition),
        redis_url=system.url,
        environment=case.environment,
        envs=side.envs,
        agents=side.agents,
        seed=seed * SEEDS_APART + number * side.envs,
        updates_ahead=side.updates_ahead,
        versions_behind=side.versions_behind,
    )
