"""The dispatcher's loop: registry and leases in, worker processes out."""

import logging
import os
import random
import socket
import subprocess
import threading

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.lease import Lease, read_lease
from rl4sys_stream.broker.registry import (
    WorkerReport,
    list_clients,
    read_registration,
    read_worker_report,
    write_worker_report,
)
from rl4sys_stream.clock import Clock, SystemClock
from rl4sys_stream.dispatcher.process import SpawnWorker, WorkerProcess, describe_exit
from rl4sys_stream.dispatcher.report import DispatcherReport, forget_dispatcher, write_dispatcher
from rl4sys_stream.dispatcher.ward import DispatcherSettings, Leaver, Ward
from rl4sys_stream.errors import (
    BrokerError,
    BrokerUnavailableError,
    ExitCode,
    StreamError,
    WireError,
)
from rl4sys_stream.telemetry import StateLog, log_event

__all__ = ["Dispatcher", "DispatcherSettings"]

logger = logging.getLogger("rl4sys_stream.dispatcher")


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
        self._wards: dict[str, Ward] = {}
        self._leavers: list[Leaver] = []
        self._started_ms = self._clock.wall_ms()
        self._host = socket.gethostname()
        self._id = f"{self._host}-{os.getpid()}"
        self._log = StateLog(logger)
        self._client_logs: dict[str, StateLog] = {}

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
                self._try_to_look_after(client)
            for client in [name for name in self._wards if name not in clients]:
                self._let_go(client)
            self._report(clients)
        except BrokerError as error:
            # Workers wait for the broker by themselves; nothing is stopped on its account.
            self._log.set("dispatcher.broker", "down", error=error)

    def _try_to_look_after(self, client: str) -> None:
        """One client's damaged keys are not the others' trouble."""
        log = self._client_logs.setdefault(client, StateLog(logger, client=client))
        try:
            self._look_after(client)
        except BrokerUnavailableError:
            raise
        except StreamError as error:
            log.set("dispatcher.client", "unreadable", level=logging.ERROR, error=error)
        else:
            log.set("dispatcher.client", "readable", level=logging.DEBUG)

    def _look_after(self, client: str) -> None:
        ward = self._wards.setdefault(client, Ward())
        if ward.process is not None or self._clock.monotonic() < ward.not_before:
            return
        if any(leaver.client == client for leaver in self._leavers):
            return
        keys = ClientKeys(client)
        if read_lease(self._broker, keys).holder:
            return
        if ward.given_up_on:
            if self._lineage(keys) == ward.given_up_on:
                return
            ward.note_success(self._clock.monotonic(), self._settings)
        if sum(w.process is not None for w in self._wards.values()) >= self._settings.capacity:
            self._log.set(
                "dispatcher.capacity", "full", capacity=self._settings.capacity, waiting=client
            )
            return
        self._log.set("dispatcher.capacity", "free", level=logging.DEBUG)
        self._start(client, ward)

    def _start(self, client: str, ward: Ward) -> None:
        try:
            ward.process = self._spawn(client)
        except OSError as error:
            self._note_failure(client, ward, f"it could not be started: {error}")
            return
        ward.started = self._clock.monotonic()
        log_event(
            logger,
            logging.INFO,
            "dispatcher.worker_started",
            client=client,
            pid=ward.process.pid,
            failures=ward.failures,
        )
        # It takes seconds to load what it trains with, and says nothing of itself until then.
        self._speak_for(client, "starting", pid=ward.process.pid, detail=ward.cause)

    def _speak_for(self, client: str, state: str, *, detail: str, pid: int = 0) -> None:
        report = WorkerReport(
            state=state,
            host=self._host,
            pid=pid,
            time_ms=self._clock.wall_ms(),
            detail=detail,
        )
        write_worker_report(self._broker, ClientKeys(client), report)

    def _lineage(self, keys: ClientKeys) -> str:
        try:
            registration = read_registration(self._broker, keys)
        except WireError:
            return "unreadable"
        return registration.lineage if registration else "none"

    def _reap(self) -> None:
        for client, ward in self._wards.items():
            process = ward.process
            code = process.poll() if process else None
            if process is None or code is None:
                continue
            ward.process = None
            if self._clock.monotonic() - ward.started >= self._settings.healthy_s:
                ward.failures = 0
            if code == 0:
                ward.note_success(self._clock.monotonic(), self._settings)
                log_event(logger, logging.INFO, "dispatcher.worker_ended", client=client, how="ok")
                continue
            cause = describe_exit(code) + self._last_words(client, process.pid)
            # A broker that refuses its workers is no fault of the client: that ends by itself.
            self._note_failure(client, ward, cause, final=code != ExitCode.UNAVAILABLE)
        self._reap_leavers()

    def _last_words(self, client: str, pid: int) -> str:
        """Why the dead worker failed, if it could say so; its lease is given back meanwhile."""
        keys = ClientKeys(client)
        try:
            report = read_worker_report(self._broker, keys)
            if report is None or (report.host, report.pid) != (self._host, pid):
                return ""
            if report.token:
                # Nobody has to wait for the lease of a process that is known to be dead.
                lease = Lease(self._broker, keys, ttl_s=1.0)
                lease.token = report.token
                lease.release()
        except BrokerError as error:
            self._log.set("dispatcher.broker", "down", error=error)
            return ""
        return f": {report.detail}" if report.state == "failed" else ""

    def _note_failure(self, client: str, ward: Ward, cause: str, *, final: bool = True) -> None:
        wait_s = ward.note_failure(cause, self._clock.monotonic(), self._settings, self._rng)
        if final and ward.failures >= self._settings.crash_limit:
            self._give_up(client, ward)
            return
        log_event(
            logger,
            logging.WARNING,
            "dispatcher.worker_ended",
            client=client,
            how=cause,
            failures=ward.failures,
            restart_in_s=round(wait_s, 2),
        )

    def _give_up(self, client: str, ward: Ward) -> None:
        detail = f"given up after {ward.failures} failures in a row, the last: {ward.cause}"
        log_event(
            logger,
            logging.ERROR,
            "dispatcher.crash_loop",
            client=client,
            detail=detail,
            next="mend the cause, then restart the dispatcher",
        )
        try:
            self._speak_for(client, "crash_loop", detail=detail)
            ward.given_up_on = self._lineage(ClientKeys(client))
        except BrokerError as error:
            # Its lineage is unknown: one more round of failures will find the broker again.
            ward.failures = 0
            self._log.set("dispatcher.broker", "down", error=error)

    def _let_go(self, client: str) -> None:
        """The client was deleted: its worker has nothing to do any more."""
        process = self._wards.pop(client).process
        if process is None:
            return
        log_event(logger, logging.INFO, "dispatcher.client_deleted", client=client, pid=process.pid)
        process.terminate()
        deadline = self._clock.monotonic() + self._settings.grace_s
        self._leavers.append(Leaver(client, process, deadline))

    def _reap_leavers(self) -> None:
        for leaver in self._leavers:
            if leaver.process.poll() is None and self._clock.monotonic() >= leaver.deadline:
                _kill(leaver.process)
        self._leavers = [one for one in self._leavers if one.process.poll() is None]

    def _stop_all(self) -> None:
        running = [ward.process for ward in self._wards.values() if ward.process is not None]
        self._end(running + [leaver.process for leaver in self._leavers])
        try:
            forget_dispatcher(self._broker, self._id, now_ms=self._clock.wall_ms())
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
                _kill(process)

    def _report(self, clients: list[str]) -> None:
        mine = [name for name in clients if (w := self._wards.get(name)) and w.process]
        report = DispatcherReport(
            dispatcher_id=self._id,
            host=self._host,
            pid=os.getpid(),
            started_ms=self._started_ms,
            time_ms=self._clock.wall_ms(),
            capacity=self._settings.capacity,
            clients=tuple(mine),
        )
        write_dispatcher(self._broker, report)


def _kill(process: WorkerProcess) -> None:
    log_event(logger, logging.WARNING, "dispatcher.worker_killed", pid=process.pid)
    process.kill()
    process.wait()
