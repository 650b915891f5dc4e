"""The dispatcher's loop: registry and leases in, worker processes out."""

import logging
import os
import random
import socket
import subprocess
import threading
from dataclasses import dataclass

import msgspec

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import DISPATCHERS_KEY, ClientKeys
from rl4sys_stream.broker.lease import read_lease
from rl4sys_stream.broker.registry import (
    WorkerReport,
    list_clients,
    read_registration,
    write_worker_report,
)
from rl4sys_stream.clock import Clock, SystemClock
from rl4sys_stream.dispatcher.process import SpawnWorker, WorkerProcess, describe_exit
from rl4sys_stream.errors import BrokerError, WireError
from rl4sys_stream.telemetry import StateLog, log_event

__all__ = ["Dispatcher", "DispatcherSettings"]

logger = logging.getLogger("rl4sys_stream.dispatcher")


@dataclass(frozen=True, slots=True)
class DispatcherSettings:
    """How a dispatcher starts, restarts and stops workers.

    Attributes:
        tick_s: Time between two looks at the registry.
        capacity: Most workers at once on this host.
        backoff_s: Wait before the first restart; doubled for each failure in a row.
        max_backoff_s: Longest wait before a restart.
        healthy_s: A worker that ran this long starts the count of failures anew.
        crash_limit: After this many failures in a row the client is left alone, and says so.
        grace_s: From SIGTERM to SIGKILL; above the time of one update.
    """

    tick_s: float = 0.5
    capacity: int = 64
    backoff_s: float = 0.5
    max_backoff_s: float = 30.0
    healthy_s: float = 60.0
    crash_limit: int = 5
    grace_s: float = 30.0


@dataclass(slots=True)
class _Ward:
    """One client as this dispatcher sees it."""

    process: WorkerProcess | None = None
    started: float = 0.0
    not_before: float = 0.0
    failures: int = 0
    given_up_on: str = ""
    """Lineage in which it was given up; a reset or a restart of the dispatcher tries again."""


class Dispatcher:
    """Runs one worker process a client. `run` is called once, `stop` from elsewhere."""

    def __init__(
        self,
        broker: Broker,
        spawn: SpawnWorker,
        *,
        settings: DispatcherSettings | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            broker: Where the registry is.
            spawn: Starts a worker.
            settings: Timing and limits.
            clock: Time.
            rng: For the jitter of the backoff.
        """
        self._broker = broker
        self._spawn = spawn
        self._settings = settings or DispatcherSettings()
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._stop = threading.Event()
        self._wards: dict[str, _Ward] = {}
        self._started_ms = self._clock.wall_ms()
        self._id = f"{socket.gethostname()}-{os.getpid()}"
        self._log = StateLog(logger)

    def stop(self) -> None:
        """Stop all workers, then return from `run`."""
        self._stop.set()

    def run(self) -> None:
        """Look after the clients until `stop`; a broker that is away is waited for."""
        log_event(logger, logging.INFO, "dispatcher.started", broker=self._broker.where)
        try:
            while not self._stop.is_set():
                self.tick()
                self._clock.wait(self._stop, self._settings.tick_s)
        finally:
            self._stop_all()

    def tick(self) -> None:
        """One look: reap what ended, start what is missing, stop what is gone."""
        self._reap()
        try:
            clients = list_clients(self._broker)
            self._log.set("dispatcher.broker", "up", level=logging.INFO)
            for client in clients:
                self._look_after(client)
            for client in [name for name in self._wards if name not in clients]:
                self._let_go(client)
            self._report(clients)
        except BrokerError as error:
            # Workers wait for the broker by themselves; nothing is stopped on its account.
            self._log.set("dispatcher.broker", "down", error=error)

    def _look_after(self, client: str) -> None:
        ward = self._wards.setdefault(client, _Ward())
        if ward.process is not None or self._clock.monotonic() < ward.not_before:
            return
        if sum(w.process is not None for w in self._wards.values()) >= self._settings.capacity:
            self._log.set("dispatcher.capacity", "full", capacity=self._settings.capacity)
            return
        keys = ClientKeys(client)
        if read_lease(self._broker, keys).holder:
            return
        if ward.given_up_on:
            if self._lineage(keys) == ward.given_up_on:
                return
            ward.given_up_on, ward.failures = "", 0
        ward.process = self._spawn(client)
        ward.started = self._clock.monotonic()
        log_event(
            logger,
            logging.INFO,
            "dispatcher.worker_started",
            client=client,
            pid=ward.process.pid,
            failures=ward.failures,
        )

    def _lineage(self, keys: ClientKeys) -> str:
        try:
            registration = read_registration(self._broker, keys)
        except WireError:
            return "unreadable"
        return registration.lineage if registration else "none"

    def _reap(self) -> None:
        for client, ward in self._wards.items():
            code = ward.process.poll() if ward.process else None
            if code is None:
                continue
            ward.process = None
            self._note_exit(client, ward, code)

    def _note_exit(self, client: str, ward: _Ward, code: int) -> None:
        now = self._clock.monotonic()
        if now - ward.started >= self._settings.healthy_s:
            ward.failures = 0
        ward.failures = ward.failures + 1 if code else 0
        wait = 0.0
        if ward.failures:
            doubled = self._settings.backoff_s * 2.0 ** min(ward.failures - 1, 16)
            wait = min(doubled, self._settings.max_backoff_s) * self._rng.uniform(0.5, 1.0)
        ward.not_before = now + wait
        log_event(
            logger,
            logging.WARNING if code else logging.INFO,
            "dispatcher.worker_ended",
            client=client,
            how=describe_exit(code),
            failures=ward.failures,
            restart_in_s=round(wait, 2),
        )
        if ward.failures >= self._settings.crash_limit:
            self._give_up(client, ward, code)

    def _give_up(self, client: str, ward: _Ward, code: int) -> None:
        keys = ClientKeys(client)
        detail = (
            f"ended {ward.failures} times in a row, last by {describe_exit(code)}; mend the cause, "
            f"then restart the dispatcher or run `rl4sys-stream clients reset {client}`"
        )
        log_event(logger, logging.ERROR, "dispatcher.crash_loop", client=client, detail=detail)
        try:
            ward.given_up_on = self._lineage(keys)
            report = WorkerReport(
                state="crash_loop",
                host=socket.gethostname(),
                time_ms=self._clock.wall_ms(),
                detail=detail,
            )
            write_worker_report(self._broker, keys, report)
        except BrokerError as error:
            # Its lineage is unknown: one more round of failures will find the broker again.
            ward.failures = 0
            self._log.set("dispatcher.broker", "down", error=error)

    def _let_go(self, client: str) -> None:
        """The client was deleted: its worker has nothing to do any more."""
        ward = self._wards.pop(client)
        if ward.process is not None:
            self._end([ward.process])

    def _stop_all(self) -> None:
        running = [ward.process for ward in self._wards.values() if ward.process is not None]
        self._end(running)
        try:
            self._broker.call("HDEL", DISPATCHERS_KEY, self._id)
        except BrokerError as error:
            log_event(logger, logging.DEBUG, "dispatcher.report_left", error=error)
        log_event(logger, logging.INFO, "dispatcher.stopped", workers=len(running))

    def _end(self, processes: list[WorkerProcess]) -> None:
        """Ask all first, then wait: they finish their updates at the same time."""
        for process in processes:
            process.terminate()
        deadline = self._clock.monotonic() + self._settings.grace_s
        for process in processes:
            try:
                process.wait(timeout=max(deadline - self._clock.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                log_event(logger, logging.WARNING, "dispatcher.worker_killed", pid=process.pid)
                process.kill()
                process.wait()

    def _report(self, clients: list[str]) -> None:
        mine = [name for name in clients if (w := self._wards.get(name)) and w.process]
        report = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_ms": self._started_ms,
            "time_ms": self._clock.wall_ms(),
            "clients": mine,
        }
        self._broker.hash_set(DISPATCHERS_KEY, {self._id: msgspec.json.encode(report)})
