"""Signs of life: one thread renews the lease and reports, whatever the learner is busy with."""

import logging
import os
import socket
import threading

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.lease import Lease
from rl4sys_stream.broker.registry import WorkerReport, write_worker_report
from rl4sys_stream.clock import Clock
from rl4sys_stream.errors import BrokerError
from rl4sys_stream.telemetry import StateLog

__all__ = ["Health"]

logger = logging.getLogger("rl4sys_stream.worker")


class Health:
    """Renews a lease in the background and stores the worker's report."""

    def __init__(
        self, broker: Broker, keys: ClientKeys, lease: Lease, *, renew_s: float, clock: Clock
    ) -> None:
        """Prepare; `start` begins to renew.

        Args:
            broker: Of its own, so that no long reply delays a renewal.
            keys: Of the client.
            lease: Held already.
            renew_s: Seconds between two renewals.
            clock: For the stamps.
        """
        self._broker = broker
        self._keys = keys
        self._lease = lease
        self._renew_s = renew_s
        self._clock = clock
        self._state, self._detail = "starting", ""
        self._wake = threading.Event()
        self._stop = False
        self._log = StateLog(logger, client=keys.client)
        self.lost = threading.Event()
        """Set when a newer worker owns the client."""
        self._thread = threading.Thread(target=self._run, name="rl4sys-health", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def set_state(self, state: str, detail: str = "") -> None:
        """Say what the worker does, and why; reported at once if it is news."""
        if (state, detail) != (self._state, self._detail):
            self._state, self._detail = state, detail
            self._wake.set()

    def stop(self) -> None:
        """Stop renewing; the lease itself is released by its holder."""
        self._stop = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop:
            try:
                if not self._lease.renew():
                    self.lost.set()
                    return
                report_state(
                    self._broker,
                    self._keys,
                    self._state,
                    self._clock,
                    self._lease.token,
                    self._detail,
                )
                self._log.set("worker.lease", "held", level=logging.DEBUG)
            except BrokerError as error:
                self._log.set("worker.lease", "not_renewed", error=error)
            self._clock.wait(self._wake, self._renew_s)
            self._wake.clear()


def report_state(
    broker: Broker, keys: ClientKeys, state: str, clock: Clock, token: str = "", detail: str = ""
) -> None:
    """Store what a worker says of itself. Raises BrokerError."""
    report = WorkerReport(
        state=state,
        host=socket.gethostname(),
        pid=os.getpid(),
        time_ms=clock.wall_ms(),
        token=token,
        detail=detail,
    )
    write_worker_report(broker, keys, report)
