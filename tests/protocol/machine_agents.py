"""An agent's real outbox, spool and sender, one step at a time, with answers that can be lost."""

import random
import re
from collections.abc import Sequence
from pathlib import Path

from rl4sys_stream.agent.outbox import Outbox
from rl4sys_stream.agent.parcels import Offered, OutboxLimits, Sealed
from rl4sys_stream.agent.sender import Sender
from rl4sys_stream.agent.session import Session
from rl4sys_stream.agent.spool.folder import SpoolFolder
from rl4sys_stream.agent.spool.journal import SpoolJournal
from rl4sys_stream.agent.spool.records import Fields as EntryFields
from rl4sys_stream.broker.connection import AppendConnection, BrokerAddress, Fields
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import AgentHeartbeat
from rl4sys_stream.config import AgentSettings
from rl4sys_stream.errors import BrokerError, BrokerUnavailableError
from rl4sys_stream.wire.trajectory import encode_trajectory
from tests.unit.agent.rig import ManualClock
from tests.unit.worker.entries import trajectory

__all__ = ["RETAIN_S", "SteppedAgent", "tag_of", "tagged"]

RETAIN_S = 3.0
LIMITS = OutboxLimits(
    max_entries=3,
    max_bytes=1 << 20,
    drop_policy="drop_oldest",
    block_timeout_s=None,
    spool_bytes=3 << 10,
)


def tagged(tag: int, *, readable: bool) -> EntryFields:
    """A trajectory that is known by its tag wherever it turns up."""
    fields = encode_trajectory(trajectory(1, episode=tag))
    return fields if readable else ((b"h", b"tag %d" % tag), *fields[1:])


def tag_of(fields: dict[bytes, bytes]) -> int:
    """The tag of an entry, decoded or not."""
    found = re.search(rb'(?:tag |"episode":)(\d+)', fields[b"h"])
    assert found, fields
    return int(found[1])


class LossyConnection(AppendConnection):
    """A connection that breaks when the next append has arrived, and before its answer has."""

    breaks = False

    def append(
        self, key: str, entries: Sequence[Fields]
    ) -> tuple[list[bytes | BrokerError], int | None]:
        """See `AppendConnection.append`."""
        found = super().append(key, entries)
        if self.breaks:
            self.breaks = False
            self.close()
            raise BrokerUnavailableError("the answer was lost")
        return found


class SteppedAgent:
    """One agent id. With a spool it can be killed and adopted."""

    def __init__(
        self,
        agent_id: str,
        address: BrokerAddress,
        keys: ClientKeys,
        clock: ManualClock,
        spool: Path | None,
    ) -> None:
        self.agent_id = agent_id
        self.adopted = False
        self._address, self._keys, self._clock, self._spool = address, keys, clock, spool
        journal = None
        if spool is not None:
            journal = SpoolJournal.create(spool, agent_id, fsync=False, clock=clock)
        self._begin(journal)

    def _begin(self, journal: SpoolJournal | None) -> None:
        self.journal = journal
        self.outbox = Outbox(LIMITS)
        offered = self.outbox.attach(journal) if journal is not None else []
        self.session = Session()
        self.session.registered = True
        self.connection = LossyConnection(self._address, timeout_s=5, name="stepped")
        self.sender = Sender(
            self.connection,
            agent_id=self.agent_id,
            keys=self._keys,
            outbox=self.outbox,
            session=self.session,
            settings=AgentSettings(retain_s=RETAIN_S),
            clock=self._clock,
            rng=random.Random(0),
        )
        self._start(offered)

    def _start(self, offered: Sequence[Offered]) -> None:
        """Start the sender with a thread that ends at once: the test takes its turns."""
        self.sender._stopping = True
        self.sender.start(offered)
        self.sender._thread.join()
        self.sender._stopping = False

    def put(self, tag: int, *, readable: bool) -> None:
        """End a trajectory."""
        fields = tagged(tag, readable=readable)
        self.outbox.accept(1)
        self.outbox.put(Sealed(fields, sum(len(name) + len(value) for name, value in fields)))

    def turn(self) -> None:
        """One turn of the sender's loop."""
        self.outbox.poke()
        try:
            self.sender._turn()
        except BrokerError as error:
            self.sender._disconnect(error)

    def number_and_die(self) -> None:
        """Give out a number and be killed before anything is sent."""
        self.outbox.take(1, 1 << 20)
        self.die_and_be_adopted()

    def die_and_be_adopted(self) -> None:
        """What the spool says is all that is left; another process goes on from there."""
        assert self.journal is not None
        assert self._spool is not None
        self.connection.close()
        self.journal.close(remove=False)
        folder = SpoolFolder.adopt(self._spool / self.agent_id)
        assert folder is not None
        journal = SpoolJournal.recover(folder, fsync=False, clock=self._clock)
        assert journal is not None
        self.adopted = True
        self._begin(journal)

    def tags(self) -> set[int]:
        """Of everything that this agent holds."""
        held = [offer.fields for offer in self.sender._offered.values()]
        for item in self.outbox._queue:
            fields = item.fields
            if fields is None:
                assert self.journal is not None
                assert item.ordinal is not None
                fields = self.journal.read(item.ordinal)
            held.append(fields)
        return {tag_of(dict(fields)) for fields in held}

    def beat(self) -> AgentHeartbeat:
        """What the registry would be told."""
        counts = self.outbox.counts()
        return AgentHeartbeat(
            agent_id=self.agent_id,
            accepted=counts.accepted,
            issued=counts.issued,
            floor=self.session.floor,
            queued=counts.queued,
            dropped=counts.dropped,
            steps=counts.steps,
        )

    def close(self) -> None:
        """End it."""
        self.connection.close()
        if self.journal is not None:
            self.journal.close(remove=True)
