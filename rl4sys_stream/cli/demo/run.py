"""One run from the command to the artifacts."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

from rl4sys_stream.cli.demo.applications import Applications, Ended
from rl4sys_stream.cli.demo.board import Board
from rl4sys_stream.cli.demo.curve import draw_learning_curve
from rl4sys_stream.cli.demo.display import Display, make_display, shown
from rl4sys_stream.cli.demo.folder import RunFolder, make_run_folder
from rl4sys_stream.cli.demo.messages import Episode, Evaluated, Finished, Message, Ready
from rl4sys_stream.cli.demo.monitor import Monitor, RunAudit
from rl4sys_stream.cli.demo.progress import Progress
from rl4sys_stream.cli.demo.settings import DemoSettings
from rl4sys_stream.cli.demo.summary import (
    ExitReason,
    Summary,
    make_summary,
    software,
    write_episodes,
    write_summary,
)
from rl4sys_stream.cli.demo.system import System, open_system
from rl4sys_stream.cli.demo.task import Task
from rl4sys_stream.clock import Clock
from rl4sys_stream.errors import ExitCode

__all__ = ["run_demo"]

LOOK_S: Final = 0.5
MESSAGE_WAIT_S: Final = 0.1
LOG_TAIL_LINES: Final = 5


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What is known when the system is about to be taken down."""

    reason: ExitReason
    detail: str
    code: int
    audit: RunAudit
    settled: bool
    wall_s: float
    software: dict[str, str]


class _Run:
    """The part of a run in which a broker is there."""

    def __init__(
        self,
        task: Task,
        settings: DemoSettings,
        folder: RunFolder,
        system: System,
        display: Display,
        progress: Progress,
        interrupted: threading.Event,
        clock: Clock,
    ) -> None:
        self._task = task
        self._settings = settings
        self._folder = folder
        self._system = system
        self._display = display
        self._progress = progress
        self._interrupted = interrupted
        self._clock = clock
        self._monitor = Monitor(system.broker, task.client, clock=clock)
        self._board = Board(folder.tensorboard)
        self._reason: ExitReason | None = None
        self._detail = ""
        self._code = 0
        self._first: float | None = None
        self._last = 0.0
        self._next_look = 0.0

    def run(self) -> _Outcome:
        """Train, settle, count."""
        progress = self._progress
        progress.phase = self._starting()
        with Applications(
            self._task, self._settings, self._folder, self._system.address
        ) as applications:
            while applications.running:
                said = applications.next_message(MESSAGE_WAIT_S)
                if said is not None:
                    self._hear(*said)
                self._look()
                self._decide()
                if self._reason is not None:
                    applications.stop()
        progress.phase = "waiting for the learner to finish"
        self._display.update(progress)
        settled = self._monitor.settle(progress)
        self._board.update(progress)
        self._board.close()
        return _Outcome(
            reason=self._reason or ExitReason.STEPS,
            detail=self._detail,
            code=self._code,
            audit=self._monitor.audit(),
            settled=settled,
            wall_s=self._last - self._first if self._first is not None else 0.0,
            software=software(self._system.broker),
        )

    def _starting(self) -> str:
        if self._system.own:
            return "the worker is starting"
        return (
            f"waiting for a first model; is a dispatcher or worker running at "
            f"{self._system.address.public_url}?"
        )

    def _hear(self, number: int, said: Message | Ended) -> None:
        progress, now = self._progress, self._clock.monotonic()
        match said:
            case Ready():
                self._monitor.agents.add(said.agent_id)
                self._first = now if self._first is None else self._first
                progress.phase = "learning"
            case Episode():
                progress.add_episode(number, said, target=self._task.target, now=now)
                self._last = now
            case Evaluated():
                progress.evaluated = said
            case Finished():
                progress.finished.append(said)
            case Ended() if said.code and self._reason is None:
                self._reason, self._code = ExitReason.APPLICATION, said.code
                self._detail = _tail(self._folder, number)

    def _look(self) -> None:
        now = self._clock.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_S
            self._monitor.look(self._progress)
            self._board.update(self._progress)
        self._display.update(self._progress)

    def _decide(self) -> None:
        """Whether to end, unless that is decided."""
        progress = self._progress
        if self._reason is not None:
            return
        if progress.target_steps is not None:
            self._reason, progress.phase = ExitReason.TARGET, "learned; playing it once more"
        elif self._interrupted.is_set():
            self._reason = ExitReason.INTERRUPTED
            progress.phase = "stopping in order; Ctrl-C again stops at once"
        elif progress.trouble.startswith("worker "):
            self._reason, self._detail = ExitReason.WORKER, progress.trouble
        elif progress.finished:
            progress.phase = "step limit reached"


def run_demo(task: Task, settings: DemoSettings, clock: Clock) -> ExitCode:
    """Run the demo, leave the artifacts, print where they are.

    Returns:
        OK if it learned, FAILURE if not, INTERRUPTED after Ctrl-C; the application's own exit
        code if that failed.

    Raises:
        BrokerError: If the broker cannot be started or used.
    """
    began = clock.monotonic()
    folder = make_run_folder(
        settings.out,
        task.client,
        task.definition,
        seed=settings.seed,
        wall_ms=clock.wall_ms(),
        film_name=task.film_name,
    )
    with _interrupts() as interrupted, make_display(task, settings, clock) as display:
        progress = Progress(phase="the broker is starting")
        display.update(progress)
        with open_system(settings.redis_url, folder, clock) as system:
            run = _Run(task, settings, folder, system, display, progress, interrupted, clock)
            outcome = run.run()
            progress.phase = "stopping"
            display.update(progress)
        progress.phase = "writing the run folder"
        display.update(progress)
        summary = make_summary(
            task,
            settings,
            progress,
            outcome.audit,
            reason=outcome.reason,
            detail=outcome.detail,
            settled=outcome.settled,
            wall_s=outcome.wall_s,
            total_s=clock.monotonic() - began,
            versions_of=outcome.software,
        )
        _draw(folder, task, settings, progress, summary)
        write_episodes(folder.episodes, progress.episodes)
        write_summary(folder.summary, summary)
        progress.phase = str(summary.exit_reason)
        display.update(progress)
    sys.stdout.write(_result(summary, settings, folder))
    return _exit_code(summary, outcome.code)


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """The first SIGINT or SIGTERM asks for an orderly end, the second one insists."""
    interrupted = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _draw(
    folder: RunFolder, task: Task, settings: DemoSettings, progress: Progress, summary: Summary
) -> None:
    if summary.steps_to_target is not None:
        end = f"mean return {task.target:g} after {summary.steps_to_target:,} steps"
    else:
        end = f"{summary.exit_reason} after {summary.steps:,} steps"
    draw_learning_curve(
        folder.learning_curve,
        progress.episodes,
        progress.versions,
        target=task.target,
        title=f"{task.environment}, {task.algorithm} over Redis streams",
        subtitle=(
            f"seed {settings.seed}: {end}, {summary.wall_s:.0f} s, "
            f"{summary.trained_share:.1%} of the steps trained on"
        ),
    )


def _result(summary: Summary, settings: DemoSettings, folder: RunFolder) -> str:
    mean = "no episode ended" if summary.mean_return is None else shown(summary.mean_return)
    verdict = {True: "learned", False: "not learned", None: "ended"}[summary.learned]
    lines = [
        f"{verdict}: {summary.exit_reason}"
        + (f" ({summary.exit_detail})" if summary.exit_detail else ""),
        f"mean return of the last 100 episodes: {mean}",
        (
            f"{summary.steps:,} environment steps in {summary.wall_s:.1f} s "
            f"({summary.steps_per_s:,.0f}/s), {summary.trained_share:.1%} of them trained on"
        ),
    ]
    if summary.evaluation_returns:
        returns = summary.evaluation_returns
        average = shown(sum(returns) / len(returns))
        lines.append(f"the last policy without chance: {average}, mean of {len(returns)} episodes")
    if summary.filmed_return is not None:
        film = folder.film.name if settings.video is None else settings.video
        lines.append(f"{film}: the last policy, return {shown(summary.filmed_return)}")
    return "\n".join([*lines, f"run folder: {folder.path}", ""])


def _exit_code(summary: Summary, application_code: int) -> ExitCode:
    untargeted = summary.learned is None and summary.exit_reason is ExitReason.STEPS
    if summary.learned or untargeted:
        return ExitCode.OK
    if summary.exit_reason is ExitReason.INTERRUPTED:
        return ExitCode.INTERRUPTED
    if application_code in set(ExitCode):
        return ExitCode(application_code) or ExitCode.FAILURE
    return ExitCode.FAILURE


def _tail(folder: RunFolder, number: int) -> str:
    log = folder.application_log(number)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return " / ".join(lines[-LOG_TAIL_LINES:]) or f"see {log}"
