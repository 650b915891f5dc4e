"""The application processes of a run, seen from the demo."""

import os
import queue
import subprocess
import sys
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

import msgspec

from rl4sys_stream.broker.connection import URL_ENV, BrokerAddress
from rl4sys_stream.cli.demo.folder import RunFolder
from rl4sys_stream.cli.demo.messages import ApplicationOrder, Message, decode_message
from rl4sys_stream.cli.demo.settings import DemoSettings
from rl4sys_stream.cli.demo.system import ONE_THREAD
from rl4sys_stream.cli.demo.task import Task

__all__ = ["Applications", "Ended"]

ENVIRONMENT = {**ONE_THREAD, "SDL_VIDEODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
GRACE_S = 60.0
"""An application that was asked to stop flushes, and makes a film."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An application process is gone.

    Attributes:
        code: Its exit code.
    """

    code: int


class Applications:
    """Starts the applications, collects what they say, stops them.

    They end by themselves when their standard input does: with `stop`, or with this process
    however it dies.
    """

    def __init__(
        self, task: Task, settings: DemoSettings, folder: RunFolder, address: BrokerAddress
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            task: What they play.
            settings: Of the run.
            folder: Where logs and film go.
            address: Of the broker; handed on in the environment, never in `ps`.
        """
        self._orders = _orders(task, settings, folder)
        self._folder = folder
        self._address = address
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[IO[bytes]] = []
        self._readers: list[threading.Thread] = []
        self._said: queue.SimpleQueue[tuple[int, Message | Ended]] = queue.SimpleQueue()
        self._running = 0

    def __enter__(self) -> Self:
        """Start them."""
        for order in self._orders:
            self._start(order)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop them, and kill after a while, or at once if something went wrong."""
        self.stop()
        for process in self._processes:
            try:
                process.wait(GRACE_S if kind is None else 1.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for reader in self._readers:
            reader.join()
        for log in self._logs:
            log.close()

    @property
    def running(self) -> int:
        """Applications whose end has not been reported by `next_message`."""
        return self._running

    def stop(self) -> None:
        """Ask all to end in order; safe to repeat."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()

    def next_message(self, timeout_s: float) -> tuple[int, Message | Ended] | None:
        """What an application said, and which; None if none did within `timeout_s`."""
        try:
            number, said = self._said.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(said, Ended):
            self._running -= 1
        return number, said

    def _start(self, order: ApplicationOrder) -> None:
        log = self._folder.application_log(order.number).open("wb")
        self._logs.append(log)
        argument = msgspec.json.encode(order).decode()
        process = subprocess.Popen(
            [sys.executable, "-m", "rl4sys_stream.cli.demo.application", argument],
            env={**os.environ, **ENVIRONMENT, URL_ENV: self._address.secret_url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # a Ctrl-C at the terminal is the demo's business
        )
        self._processes.append(process)
        self._running += 1
        reader = threading.Thread(
            target=self._read, args=(order.number, process), name="rl4sys-application", daemon=True
        )
        reader.start()
        self._readers.append(reader)

    def _read(self, number: int, process: subprocess.Popen[bytes]) -> None:
        for line in process.stdout or ():
            try:
                self._said.put((number, decode_message(line)))
            except msgspec.MsgspecError:
                continue  # half a line of a process that was killed
        if process.stdout is not None:
            process.stdout.close()
        self._said.put((number, Ended(process.wait())))


def _orders(task: Task, settings: DemoSettings, folder: RunFolder) -> list[ApplicationOrder]:
    share, rest = divmod(task.max_steps, settings.agents)
    return [
        ApplicationOrder(
            number=number,
            seed=settings.seed + 1000 * number,
            max_steps=share + (number < rest),
            definition=str(folder.definition),
            client=task.client,
            environment=task.environment,
            envs=settings.envs,
            agents=settings.agents,
            max_episode_steps=settings.max_episode_steps,
            eval_episodes=0 if number else settings.eval_episodes,
            film=str(settings.video or folder.film) if settings.gif and task.draws else None,
        )
        for number in range(settings.agents)
    ]
