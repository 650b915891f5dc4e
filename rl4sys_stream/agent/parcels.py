"""What goes into an outbox and what comes out of it, how much fits, and what it counts."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["DropPolicy", "Fields", "Offered", "OutboxCounts", "OutboxLimits", "Sealed"]

DropPolicy = Literal["drop_oldest", "drop_newest", "block"]
Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Sealed:
    """An encoded trajectory without an address.

    Attributes:
        fields: Of the stream entry.
        size_bytes: Names and values together.
    """

    fields: Fields
    size_bytes: int


class Offered:
    """A trajectory that has its number, for good.

    Attributes:
        seq: The number, from 1.
        fields: Of the stream entry, without the address.
        size_bytes: Names and values together.
        answered_at: Monotonic seconds of the broker's last answer; None while there is none.
    """

    __slots__ = ("answered_at", "fields", "seq", "size_bytes")

    def __init__(self, seq: int, fields: Fields, size_bytes: int) -> None:
        self.seq = seq
        self.fields = fields
        self.size_bytes = size_bytes
        self.answered_at: float | None = None


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """The books at one instant.

    Attributes:
        accepted: Trajectories whose end was marked, or that were cut.
        steps: Environment steps in them.
        sealing: Those that wait for rewards.
        queued: Those sealed and never offered yet.
        queued_bytes: Their size.
        issued: Numbers given.
        unanswered: Numbers that are offered and not answered by the broker.
        dropped: Discarded by the drop policy.
        quarantined: Given up because rewards were missing.
        spooled: Whether a spool keeps what is queued and offered.
        unsaved: Trajectories that the spool had no room for on its disk.
    """

    accepted: int
    steps: int
    sealing: int
    queued: int
    queued_bytes: int
    issued: int
    unanswered: int
    dropped: int
    quarantined: int
    spooled: bool = False
    unsaved: int = 0


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """How much may wait.

    Attributes:
        max_entries: Entries that may be queued in memory.
        max_bytes: Their size.
        drop_policy: What `put` does when it is full.
        block_timeout_s: Longest wait of `put` under "block"; then the newest is dropped.
        spool_bytes: Size of what may be queued in the spool, if there is one, together with what
            dead agents left beside it.
    """

    max_entries: int
    max_bytes: int
    drop_policy: DropPolicy
    block_timeout_s: float | None
    spool_bytes: int = 0
