"""What became of each agent's numbers: a watermark, the numbers above it, and counts.

Numbers 1 … watermark are settled; `above` holds settled ones beyond a gap. A number that is
settled already is a duplicate. A number below the agent's floor that is neither settled nor
pending was destroyed by a third party: it counts as skipped and the watermark passes it.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum

import msgspec

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.wire.json import decode_json

__all__ = ["AgentLedger", "LedgerRecord", "Outcome", "parse_ledgers", "read_ledgers"]


class Outcome(StrEnum):
    """What became of one trajectory at the worker."""

    TRAINED = "trained"
    QUARANTINED = "quarantined"
    DROPPED = "dropped"
    SKIPPED = "skipped"
    DUPLICATE = "duplicate"


class LedgerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger of one agent as it is stored.

    trained + quarantined + dropped + skipped + retired == watermark + len(above)

    Attributes:
        watermark: All numbers up to here are settled.
        above: Settled numbers beyond it, ascending.
        trained: Numbers whose trajectory was taken in.
        quarantined: Refused ones.
        dropped: Discarded by the worker's policy.
        skipped: Destroyed by a third party.
        duplicate: Second copies (they have no number of their own).
        steps: Environment steps in the trained ones.
        retired: Numbers whose outcomes are in the sums of the past agents, no longer in here: the
            agent has closed, and was forgotten but for its watermark.
    """

    watermark: int = 0
    above: tuple[int, ...] = ()
    trained: int = 0
    quarantined: int = 0
    dropped: int = 0
    skipped: int = 0
    duplicate: int = 0
    steps: int = 0
    retired: int = 0

    @property
    def highest(self) -> int:
        """The highest settled number, 0 if there is none."""
        return max(self.watermark, *self.above, 0)


class AgentLedger:
    """The ledger of one agent while a worker changes it."""

    def __init__(self, record: LedgerRecord | None = None) -> None:
        """Continue `record`, or begin with nothing settled."""
        record = record or LedgerRecord()
        self._watermark = record.watermark
        self._above = set(record.above)
        self._counts = {outcome: int(getattr(record, outcome)) for outcome in Outcome}
        self._steps = record.steps
        self._retired = record.retired

    def copy(self) -> "AgentLedger":
        """An independent copy, to be changed for a commit that may be refused."""
        return AgentLedger(self.record())

    def is_settled(self, seq: int) -> bool:
        """Whether the fate of number `seq` is committed."""
        return seq <= self._watermark or seq in self._above

    def settle(self, seq: int, outcome: Outcome, *, steps: int = 0) -> None:
        """Note the fate of number `seq`, or of a second copy of it.

        Raises:
            ValueError: If the number is settled already and `outcome` is not DUPLICATE.
        """
        if outcome is not Outcome.DUPLICATE and self.is_settled(seq):
            raise ValueError(f"number {seq} is settled already")
        self._counts[outcome] += 1
        if outcome is Outcome.DUPLICATE:
            return
        self._above.add(seq)
        if outcome is Outcome.TRAINED:
            self._steps += steps
        self._advance()

    def _advance(self) -> None:
        while self._watermark + 1 in self._above:
            self._watermark += 1
            self._above.discard(self._watermark)

    def has_gap_below(self, floor: int, present: Collection[int]) -> bool:
        """Whether a number below `floor` is neither settled nor `present`."""
        known = sum(1 for seq in {*self._above, *present} if self._watermark < seq < floor)
        return floor - 1 - self._watermark > known

    def skip_below(self, floor: int, present: Collection[int]) -> int:
        """Pass over numbers that nobody offers, holds or has settled; how many there were.

        Stops at the lowest number that is present: what lies beyond it waits until that one is
        settled, so no gap is ever written out number by number.

        Args:
            floor: The lowest number that the agent still offers.
            present: Numbers of entries that are pending or in hand.
        """
        limit = min([floor, *(seq for seq in present if seq > self._watermark)])
        if limit <= self._watermark + 1:
            return 0
        settled = {seq for seq in self._above if seq < limit}
        skipped = limit - 1 - self._watermark - len(settled)
        self._above -= settled
        self._watermark = limit - 1
        self._counts[Outcome.SKIPPED] += skipped
        self._advance()
        return skipped

    def record(self) -> LedgerRecord:
        """The ledger as it is stored."""
        counts = {outcome.value: count for outcome, count in self._counts.items()}
        return LedgerRecord(
            watermark=self._watermark,
            above=tuple(sorted(self._above)),
            steps=self._steps,
            retired=self._retired,
            **counts,
        )


def read_ledgers(broker: Broker, keys: ClientKeys) -> dict[str, LedgerRecord]:
    """agent_id -> ledger, for every agent that ever had a number settled.

    Raises:
        WireFormatError: As for `parse_ledgers`.
    """
    return parse_ledgers(keys.seq, broker.hash_all(keys.seq))


def parse_ledgers(key: str, fields: Mapping[bytes, bytes]) -> dict[str, LedgerRecord]:
    """agent_id -> ledger, as the hash `key` holds them.

    Raises:
        WireFormatError: If one does not decode: the watermarks decide what is trained, so a
            guess would train something twice.
    """
    found: dict[str, LedgerRecord] = {}
    for name, data in fields.items():
        what = f"{key} field {name!r}"
        try:
            agent_id = name.decode()
        except UnicodeDecodeError as error:
            raise WireFormatError(f"{what} does not decode: {error}") from error
        found[agent_id] = decode_json(data, LedgerRecord, what)
    return found
