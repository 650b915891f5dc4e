"""How far a simulator may run ahead of the learner.

On-policy learning wants its steps from the newest policy. A system in production cannot wait, and
the learner corrects for the lag; a simulator can, and the newest policy makes better use of each
step. So it stays within one rollout of what the worker has settled.
"""

import logging
import threading
from typing import Final

import msgspec

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.ledger import LedgerRecord
from rl4sys_stream.clock import Clock
from rl4sys_stream.errors import BrokerError
from rl4sys_stream.telemetry import StateLog

__all__ = ["Pace"]

logger = logging.getLogger("rl4sys_stream.cli.demo")

LOOK_S: Final = 0.01


class Pace:
    """Lets a simulator take a step while fewer than `ahead_steps` of its steps are unsettled.

    Attributes:
        allowed: Steps that may be taken without another look at the broker.
        waited_s: How long the simulator has waited.
    """

    def __init__(
        self,
        broker: Broker,
        keys: ClientKeys,
        agent_id: str,
        *,
        n_steps: int,
        max_trajectory_steps: int,
        stopping: threading.Event,
        clock: Clock,
    ) -> None:
        """Nothing is asked before the first wait.

        Args:
            broker: Where the ledger is.
            keys: Of the client.
            agent_id: Whose steps are counted.
            n_steps: Steps of one rollout. The open trajectory comes on top of it: the learner
                sees none of its steps, so with less room both would wait for each other.
            max_trajectory_steps: Longest trajectory.
            stopping: Ends a wait.
            clock: Times the waits.
        """
        self._broker = broker
        self._keys = keys
        self._agent_id = agent_id
        self._ahead = n_steps + max_trajectory_steps
        self._trajectory = max_trajectory_steps
        self._stopping = stopping
        self._clock = clock
        self._log = StateLog(logger, client=keys.client)
        self.allowed = self._ahead
        self.waited_s = 0.0

    def wait(self, steps: int) -> None:
        """Return when the next step may be taken after `steps`, or when stopping."""
        begun = self._clock.monotonic()
        while not self._stopping.is_set():
            self._look()
            if steps < self.allowed:
                break
            self._clock.wait(self._stopping, LOOK_S)
        self.waited_s += self._clock.monotonic() - begun

    def _look(self) -> None:
        try:
            (data,) = self._broker.hash_get(self._keys.seq, self._agent_id)
        except BrokerError as error:
            self._log.set("demo.broker", "down", error=error)
            return
        self._log.set("demo.broker", "up", level=logging.DEBUG)
        if data is None:
            return
        record = msgspec.json.decode(data, type=LedgerRecord)
        # Ledgers count the steps of trained trajectories alone; of the others the longest length
        # is assumed: too much room makes the lag grow a little, too little would stop everything.
        unused = record.quarantined + record.dropped + record.skipped
        self.allowed = self._ahead + record.steps + unused * self._trajectory
