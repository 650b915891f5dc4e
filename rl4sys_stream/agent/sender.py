"""The sender thread: it alone talks to the stream, and offers each number until it is answered."""

import logging
import random
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import islice
from typing import Final

from rl4sys_stream.agent.outbox import Outbox
from rl4sys_stream.agent.parcels import Offered
from rl4sys_stream.agent.session import Backoff, SenderSession
from rl4sys_stream.broker.connection import AppendConnection
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.server_facts import IDENTITY_SECTIONS, server_identity
from rl4sys_stream.clock import Clock
from rl4sys_stream.config import AgentSettings
from rl4sys_stream.errors import (
    BrokerError,
    BrokerUnavailableError,
    BrokerUnsuitableError,
    SpoolError,
)
from rl4sys_stream.telemetry import StateLog, log_event
from rl4sys_stream.wire.trajectory import EntryAddress, address_fields

__all__ = ["Sender"]

logger = logging.getLogger("rl4sys_stream.agent")

BATCH_ENTRIES: Final = 64
BATCH_BYTES: Final = 1 << 20
PING_S: Final = 0.5
"""An idle connection is tried this often, so that a restarted broker is noticed."""
UNREGISTERED_PAUSE_S: Final = 0.5
HIGH_WATER_PAUSE_S: Final = 0.1
RETENTION_PAUSE_S: Final = 0.02
SIZES_KEPT: Final = 4096
"""So many sent entries are remembered by size, to estimate what lies in the stream."""


class Sender:
    """Appends what the outbox holds to the client's stream, in order of the numbers.

    A number is *offered* from its first attempt until the broker has answered and `retain_s` has
    passed; whatever is offered is sent again when the broker may have lost it.
    """

    def __init__(
        self,
        connection: AppendConnection,
        *,
        agent_id: str,
        keys: ClientKeys,
        outbox: Outbox,
        session: SenderSession,
        settings: AgentSettings,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        """Prepare; `start` begins to send.

        Args:
            connection: Of its own.
            agent_id: Whose numbers these are.
            keys: Of the client.
            outbox: What to send.
            session: Shared with the refresher.
            settings: Limits and times.
            clock: For retention.
            rng: For the jitter of the pauses.
        """
        self._connection = connection
        self._agent_id = agent_id
        self._keys = keys
        self._outbox = outbox
        self._session = session
        self._settings = settings
        self._clock = clock
        self._backoff = Backoff(rng)
        self._states = StateLog(logger, client=keys.client, agent=agent_id)
        self._offered: OrderedDict[int, Offered] = OrderedDict()
        self._offered_bytes = 0
        self._to_send: deque[Offered] = deque()
        self._answered: deque[Offered] = deque()
        self._connected = False
        self._reoffers = session.reoffers
        self._server: str | None = None
        self._is_replica = False
        self._look_at = self._server_known_at = 0.0
        self._unsettled = 0
        # Bytes sent in all, after each of the last entries.
        self._sent_bytes: deque[int] = deque([0], maxlen=SIZES_KEPT + 1)
        self._spoken_at = 0.0
        self._spool_fails = False
        self._stopping = False
        self._nudged = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rl4sys-agent-send", daemon=True)

    def start(self, offered: Sequence[Offered] = ()) -> None:
        """Start the thread.

        Args:
            offered: What a dead process of the same agent had offered, oldest first: it comes first
                again, under its old numbers.
        """
        for entry in offered:
            self._offered[entry.seq] = entry
            self._offered_bytes += entry.size_bytes
            self._to_send.append(entry)
        self._session.floor = next(iter(self._offered), self._outbox.counts().issued + 1)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether nothing is offered any more; what is queued is the outbox's to say."""
        return not self._offered

    def nudge(self) -> None:
        """End the pause that the thread may be in, since something has changed."""
        self._nudged.set()
        self._outbox.poke()

    def stop(self, timeout_s: float) -> None:
        """End the thread; what is not answered by now stays so."""
        self._stopping = True
        self.nudge()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except BrokerError as error:
                self._disconnect(error)
            except Exception as error:
                # The last resort: a fault of this package may cost a pause, not the thread.
                logger.exception("agent.sender_failed")
                self._disconnect(error)
        self._connection.close()
        self._session.sender_state = "closed"

    def _disconnect(self, error: Exception) -> None:
        self._connected = False
        self._connection.close()
        self._session.last_error = str(error)
        self._state("down", logging.WARNING, error=error)
        self._pause(self._backoff.next_s())

    def _turn(self) -> None:
        session = self._session
        if not session.registered:
            self._pause(UNREGISTERED_PAUSE_S)
            return
        if not self._connected:
            self._connect()
        self._look_at_server()
        if self._is_replica:
            self._wait_for_primary()
            return
        if self._reoffers != session.reoffers:
            self._reoffers = session.reoffers
            self._offer_again()
        if self._above_high_water():
            self._wait_for_room()
            return
        batch = self._next_batch()
        if batch:
            self._send(batch)
        elif self._spool_fails:
            # What is offered goes on all the same: its end makes room on the disk.
            self._pause(self._backoff.next_s())
            self._keep_alive()
        elif self._offered_bytes >= self._settings.retain_bytes:
            self._pause(RETENTION_PAUSE_S)
            self._keep_alive()
        else:
            self._outbox.wait_for_work(PING_S)
            self._keep_alive()

    def _connect(self) -> None:
        self._connection.connect()
        self._connected = True
        self._server = self._server or None
        self._look_at = 0.0
        self._look_at_server()
        # The broker may have been restarted, and may have lost its last seconds: all that was
        # answered since is offered again, and the numbers make that harmless.
        self._offer_again()
        self._state("up", logging.INFO)

    def _look_at_server(self) -> None:
        """Offer everything again if another server answers than before, or in another role.

        Both lose writes, and neither need cut a connection: a failover behind a proxy, a primary
        that takes the writes of its replica over and becomes the primary again.
        """
        now = self._clock.monotonic()
        if self._server == "" or now < self._look_at:
            return  # where this user is not told, asking on would fill the broker's log of refusals
        self._look_at = now + self._settings.heartbeat_s
        try:
            info = self._connection.info(*IDENTITY_SECTIONS)
            server, self._is_replica = server_identity(info), info.get("role") == "slave"
        except BrokerUnavailableError:
            raise
        except BrokerError:
            server, self._is_replica = "", False
        if self._server is not None and self._server != server:
            self._session.server_changes += 1
            self._offer_again()
        self._server = server
        self._server_known_at = now

    def _wait_for_primary(self) -> None:
        """Send nothing to a replica: one that takes writes loses them with its next copy."""
        error = BrokerUnsuitableError(
            "the broker is a replica, read-only or about to lose what it is sent; use the "
            "primary's URL"
        )
        self._session.last_error = str(error)
        self._state("refusing", logging.ERROR, error=error)
        self._pause(self._backoff.next_s())

    def _offer_again(self) -> None:
        count = len(self._answered)
        for entry in self._answered:
            entry.answered_at = None
        self._answered.clear()
        self._to_send = deque(self._offered.values())
        self._outbox.answered(-count)
        self._session.resent += count
        if count:
            log_event(
                logger, logging.INFO, "agent.offered_again", agent=self._agent_id, entries=count
            )

    def _next_batch(self) -> list[Offered]:
        room = self._settings.high_water_entries - self._unsettled
        max_entries = max(min(BATCH_ENTRIES, room), 1)
        missing = max_entries - len(self._to_send)
        free_bytes = self._settings.retain_bytes - self._offered_bytes
        if missing > 0 and free_bytes > 0:
            self._take(missing, min(free_bytes, BATCH_BYTES))
        batch: list[Offered] = []
        size = 0
        for entry in islice(self._to_send, max_entries):
            size += entry.size_bytes
            if batch and size > BATCH_BYTES:
                break
            batch.append(entry)
        return batch

    def _take(self, max_entries: int, max_bytes: int) -> None:
        try:
            taken = self._outbox.take(max_entries, max_bytes)
        except SpoolError as error:
            self._spool_fails = True
            self._session.last_error = str(error)
            self._state("spool_failing", logging.ERROR, error=error)
            return
        self._spool_fails = False
        for entry in taken:
            self._offered[entry.seq] = entry
            self._offered_bytes += entry.size_bytes
            self._to_send.append(entry)

    def _send(self, batch: list[Offered]) -> None:
        floor = next(iter(self._offered))
        self._session.floor = floor
        sent_at = self._clock.monotonic()
        replies, length = self._connection.append(
            self._keys.traj,
            [
                (*address_fields(EntryAddress(self._agent_id, entry.seq, floor)), *entry.fields)
                for entry in batch
            ],
        )
        now = self._spoken_at = self._clock.monotonic()
        refused: list[Offered] = []
        refusal: BrokerError | None = None
        for entry, reply in zip(batch, replies, strict=True):
            if isinstance(reply, BrokerError):
                refused.append(entry)
                refusal = reply
            else:
                entry.answered_at = now
                self._answered.append(entry)
                self._sent_bytes.append(self._sent_bytes[-1] + entry.size_bytes)
        rest = islice(self._to_send, len(batch), None)
        self._to_send = deque((*refused, *rest))
        if length is not None:
            self._unsettled = max(length - self._session.retained, 0)
        self._release(sent_at)
        self._outbox.answered(len(batch) - len(refused))
        if refusal is None:
            self._backoff.reset()
            self._state("up", logging.INFO)
        else:
            # Every refusal that a broker has for an append is about its own state (memory, rights,
            # a key of another type), so the entry is kept, offered again, and the others with it.
            self._session.last_error = str(refusal)
            self._state("refusing", logging.ERROR, error=refusal, entries=len(refused))
            if isinstance(refusal, BrokerUnavailableError | BrokerUnsuitableError):
                # It has become a replica, or is reading its data in again: what it had may be gone.
                self._offer_again()
            self._pause(self._backoff.next_s())

    def _release(self, proven_at: float) -> None:
        """Forget entries that were answered `retain_s` before the broker was last proven alive.

        Args:
            proven_at: When a request was sent that this very connection answered. Time alone does
                not count: in an outage of an hour, the last entries before it are the ones at risk.
                Nor does an answer of a server that may not be the one that took the entries.
        """
        known_at = self._server_known_at if self._server else proven_at
        deadline = min(proven_at, known_at) - self._settings.retain_s
        while self._answered:
            entry = self._answered[0]
            if entry.answered_at is None or entry.answered_at > deadline:
                break
            self._answered.popleft()
            del self._offered[entry.seq]
            self._offered_bytes -= entry.size_bytes
        issued = self._outbox.counts().issued
        self._session.floor = next(iter(self._offered), issued + 1)
        self._outbox.released(self._session.floor)

    def _keep_alive(self) -> None:
        """Prove the connection alive when nothing else has."""
        sent_at = self._clock.monotonic()
        if self._stopping or sent_at - self._spoken_at < PING_S:
            return
        self._connection.request("PING")
        self._spoken_at = self._clock.monotonic()
        self._backoff.reset()
        self._release(sent_at)

    def _above_high_water(self) -> bool:
        settings, unsettled = self._settings, self._unsettled
        return (
            unsettled >= settings.high_water_entries
            or self._unsettled_bytes() >= settings.high_water_bytes
        )

    def _unsettled_bytes(self) -> float:
        """What lies unsettled in the stream, if all of it is like this agent's last entries.

        Not like the mean of all that it ever sent: the longer an application runs, the longer its
        episodes may get. For an agent that has the client to itself it is no estimate.
        """
        sent = self._sent_bytes
        count = min(self._unsettled, len(sent) - 1)
        return self._unsettled * (sent[-1] - sent[-1 - count]) / count if count else 0.0

    def _wait_for_room(self) -> None:
        self._state("paused", logging.WARNING, unsettled=self._unsettled)
        self._pause(HIGH_WATER_PAUSE_S)
        sent_at = self._clock.monotonic()
        length = int(self._connection.request("XLEN", self._keys.traj))
        self._spoken_at = self._clock.monotonic()
        self._unsettled = max(length - self._session.retained, 0)
        self._release(sent_at)
        if not self._above_high_water():
            self._state("up", logging.INFO)

    def _state(self, state: str, level: int, **fields: object) -> None:
        self._session.sender_state = state
        self._states.set("agent.sender", state, level=level, **fields)

    def _pause(self, seconds: float) -> None:
        if not self._stopping:
            self._clock.wait(self._nudged, seconds)
        self._nudged.clear()
