"""The ledger of an agent: whatever the order, every number has exactly one fate."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl4sys_stream.broker.ledger import AgentLedger, LedgerRecord, Outcome

FATES = (Outcome.TRAINED, Outcome.QUARANTINED, Outcome.DROPPED)


def outcomes(record: LedgerRecord) -> int:
    """Numbers with a fate, by the counts."""
    return record.trained + record.quarantined + record.dropped + record.skipped


@given(st.permutations(range(1, 15)), st.data())
def test_the_order_of_settling_does_not_matter(order, data):
    """Watermark, rest above it and counts agree after each step; at the end nothing is above."""
    ledger = AgentLedger()
    done: set[int] = set()
    for seq in order:
        assert not ledger.is_settled(seq)
        ledger.settle(seq, data.draw(st.sampled_from(FATES)), steps=2)
        done.add(seq)
        record = ledger.record()
        settled = {*range(1, record.watermark + 1), *record.above}
        assert settled == done
        assert record.watermark + 1 not in record.above
        assert list(record.above) == sorted(record.above)
        assert outcomes(record) == len(done)
        assert record.steps == 2 * record.trained
        assert all(ledger.is_settled(number) for number in done)
    assert ledger.record().watermark == 14
    assert ledger.record().above == ()


def test_a_number_is_settled_once():
    """A second fate is refused; a second copy is a duplicate, which has no number of its own."""
    ledger = AgentLedger()
    ledger.settle(1, Outcome.TRAINED, steps=5)
    ledger.settle(3, Outcome.DROPPED)
    for seq in (1, 3):
        with pytest.raises(ValueError, match="settled already"):
            AgentLedger(ledger.record()).settle(seq, Outcome.TRAINED)
        ledger.settle(seq, Outcome.DUPLICATE)
    record = ledger.record()
    assert (record.watermark, record.above, record.duplicate) == (1, (3,), 2)
    assert outcomes(record) == 2


def test_a_refused_second_fate_leaves_the_counts_alone():
    """A ledger that raised is still one that can be stored."""
    ledger = AgentLedger(LedgerRecord(watermark=1, trained=1))
    with pytest.raises(ValueError, match="settled already"):
        ledger.settle(1, Outcome.DROPPED)
    assert ledger.record() == LedgerRecord(watermark=1, trained=1)


@given(
    st.sets(st.integers(1, 20)),
    st.sets(st.integers(1, 20)),
    st.integers(1, 22),
)
def test_skipping_passes_exactly_what_nobody_has(settled, present, floor):
    """Numbers below the floor and below all that is present are skipped, no others, once."""
    present -= settled
    ledger = AgentLedger()
    for seq in settled:
        ledger.settle(seq, Outcome.TRAINED)
    before = ledger.record()
    limit = min([floor, *(seq for seq in present if seq > before.watermark)])
    lost = {seq for seq in range(before.watermark + 1, limit) if seq not in settled}
    gap = {seq for seq in range(before.watermark + 1, floor) if seq not in settled | present}
    assert ledger.has_gap_below(floor, present) == bool(gap)
    assert ledger.skip_below(floor, present) == len(lost)
    record = ledger.record()
    assert {*range(1, record.watermark + 1), *record.above} == settled | lost
    assert record.skipped == len(lost)
    assert outcomes(record) == len(settled | lost)
    assert ledger.skip_below(floor, present) == 0
    for seq in sorted(present):
        ledger.settle(seq, Outcome.TRAINED)
    ledger.skip_below(floor, ())
    assert not ledger.has_gap_below(floor, ())


def test_a_floor_of_a_quadrillion_costs_nothing():
    """What a hostile or very old agent says must not be counted out number by number."""
    ledger = AgentLedger(LedgerRecord(above=(7, 9), trained=2))
    floor = (1 << 53) - 1
    begun = time.monotonic()
    assert ledger.has_gap_below(floor, {11})
    assert ledger.skip_below(floor, {11}) == 8
    assert ledger.has_gap_below(floor, {11})
    ledger.settle(11, Outcome.TRAINED)
    assert ledger.skip_below(floor, ()) == floor - 12
    assert time.monotonic() - begun < 1.0
    record = ledger.record()
    assert (record.watermark, record.above) == (floor - 1, ())
    assert outcomes(record) == record.watermark


def test_a_copy_is_independent():
    """A commit that is refused must not leave traces."""
    ledger = AgentLedger()
    copy = ledger.copy()
    copy.settle(1, Outcome.TRAINED)
    copy.settle(3, Outcome.TRAINED)
    assert ledger.record() == LedgerRecord()
