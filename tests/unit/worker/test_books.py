"""Who gets trained: every candidate has one fate, and the books say which."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl4sys_stream.broker.head import Counts, Head
from rl4sys_stream.broker.ledger import LedgerRecord
from rl4sys_stream.model_store.publisher import Provenance
from rl4sys_stream.wire.trajectory import BehaviorRun, End
from rl4sys_stream.worker.intake import Candidate
from rl4sys_stream.worker.settlement import Books, Settlement, policy_lag
from tests.unit.worker.entries import candidate, trajectory


def head(version: int = 1) -> Head:
    """Committed by a worker of epoch 5."""
    return Head(version, "5:now", "line", "m", "c", ())


class Pending:
    """What a rescan brings up; counts how often it is asked."""

    def __init__(self, *found: Candidate) -> None:
        self.found = list(found)
        self.asked: list[str] = []

    def __call__(self, before: str) -> list[Candidate]:
        """As `Intake.rescan`."""
        self.asked.append(before)
        found, self.found = self.found, []
        return found


def books(
    ledgers: dict[str, LedgerRecord] | None = None,
    *,
    pending: Pending | None = None,
    max_policy_lag: int | None = 8,
    lineage_epoch: int = 2,
) -> Books:
    """Of a fresh session."""
    return Books(
        ledgers or {},
        Counts(),
        lineage_epoch=lineage_epoch,
        max_policy_lag=max_policy_lag,
        rescan=pending or Pending(),
    )


def ledger_of(settlement: Settlement, agent_id: str = "a") -> LedgerRecord:
    """As it would be stored."""
    return msgspec.json.decode(settlement.watermarks[agent_id], type=LedgerRecord)


def test_what_is_accepted_is_settled_by_the_commit_that_trains_it():
    """Not before: a session that dies in between has settled nothing."""
    accounts = books()
    for seq in (1, 2, 3):
        (accepted,) = accounts.accept(candidate(seq), head())
        assert accepted.address.seq == seq
    assert accounts.settle_refused() == Settlement()
    settlement = accounts.settle_trained()
    assert settlement.entry_ids == ("1-0", "2-0", "3-0")
    assert settlement.counts == Counts(trained=3, steps=12, episodes=3)
    assert ledger_of(settlement) == LedgerRecord(watermark=3, trained=3, steps=12)
    provenance = settlement.provenance
    assert (provenance.first_id, provenance.last_id) == ("1-0", "3-0")
    assert provenance.agents == {"a": [1, 2, 3]}
    assert (provenance.trajectories, provenance.steps) == (3, 12)
    assert provenance.behavior == [(0, "", 12)]
    assert accounts.settle_trained().entry_ids == ()


def accounts_of_nothing() -> Provenance:
    """The provenance of a commit that trains nothing."""
    return books().settle_refused().provenance


def test_a_second_copy_in_hand_is_a_duplicate():
    """The first one is still with the learner, and is trained once."""
    accounts = books()
    accounts.accept(candidate(1), head())
    assert accounts.accept(candidate(1, entry_id="9-0"), head()) == []
    settlement = accounts.settle_trained()
    assert settlement.entry_ids == ("1-0", "9-0")
    assert ledger_of(settlement) == LedgerRecord(watermark=1, trained=1, duplicate=1, steps=4)
    assert settlement.provenance.agents == {"a": [1]}


@pytest.mark.parametrize("seq", [3, 5])
def test_a_second_copy_of_what_was_settled_before_is_a_duplicate(seq):
    """Below the watermark or above it."""
    accounts = books({"a": LedgerRecord(watermark=3, above=(5,), trained=4)})
    assert accounts.accept(candidate(seq), head()) == []
    settlement = accounts.settle_refused()
    assert ledger_of(settlement).duplicate == 1
    assert ledger_of(settlement).trained == 4
    assert settlement.refusals == ()


def test_a_second_copy_of_a_refused_entry_is_no_second_refusal():
    """The number has its fate."""
    accounts = books()
    accounts.accept(candidate(1, reason="bad"), head())
    assert accounts.accept(candidate(1, entry_id="2-0"), head()) == []
    settlement = accounts.settle_refused()
    assert [refusal.entry_id for refusal in settlement.refusals] == ["1-0"]
    assert ledger_of(settlement) == LedgerRecord(watermark=1, quarantined=1, duplicate=1)


def test_numbers_belong_to_their_agent():
    """Two agents count apart."""
    accounts = books()
    assert len(accounts.accept(candidate(1, agent_id="a"), head())) == 1
    assert len(accounts.accept(candidate(1, agent_id="b", entry_id="1-1"), head())) == 1
    settlement = accounts.settle_trained()
    assert settlement.provenance.agents == {"a": [1], "b": [1]}
    assert set(settlement.watermarks) == {"a", "b"}


def test_an_entry_that_does_not_decode_is_quarantined_under_its_number():
    """With the reason; the agent's balance knows of it."""
    accounts = books()
    assert accounts.accept(candidate(1, reason="WireFormatError: no"), head()) == []
    settlement = accounts.settle_refused()
    assert [(r.entry_id, r.reason) for r in settlement.refusals] == [("1-0", "WireFormatError: no")]
    assert ledger_of(settlement).quarantined == 1
    assert settlement.counts.quarantined == 1


def test_an_entry_without_an_address_is_quarantined_and_counted_for_nobody():
    """Nothing says whose it is."""
    accounts = books()
    assert accounts.accept(Candidate("1-0", 9, reason="no agent_id"), head()) == []
    settlement = accounts.settle_refused()
    assert settlement.entry_ids == ("1-0",)
    assert len(settlement.refusals) == 1
    assert settlement.counts == Counts(quarantined=1)
    assert settlement.watermarks == {}


def test_an_entry_that_was_deleted_while_pending_is_settled_silently():
    """Its number comes up as skipped, when a later entry says its floor."""
    accounts = books()
    accounts.accept(Candidate("1-0", 0, reason="deleted"), head())
    accounts.accept(candidate(2, floor=2), head())
    settlement = accounts.settle_trained()
    assert set(settlement.entry_ids) == {"1-0", "2-0"}
    assert settlement.refusals == ()
    assert ledger_of(settlement) == LedgerRecord(watermark=2, trained=1, skipped=1, steps=4)


@pytest.mark.parametrize(("version", "kept"), [(10, True), (2, True), (1, False)])
def test_trajectories_beyond_the_lag_limit_are_dropped(version, kept):
    """Exactly at the limit they are still trained on."""
    accounts = books()
    found = accounts.accept(candidate(1, trajectory(behavior=[(version, "5:x")])), head(10))
    assert [item.lag for item in found] == ([10 - version] if kept else [])
    if not kept:
        settlement = accounts.settle_refused()
        assert settlement.refusals == ()
        assert ledger_of(settlement) == LedgerRecord(watermark=1, dropped=1)
        assert settlement.counts.dropped == 1


@pytest.mark.parametrize(("version", "kept"), [(12, True), (18, True), (19, False)])
def test_models_ahead_of_a_broker_that_went_back_count_by_their_distance(version, kept):
    """Their log-probabilities are as true as any."""
    found = books().accept(candidate(1, trajectory(behavior=[(version, "5:lost")])), head(10))
    assert [item.lag for item in found] == ([version - 10] if kept else [])


def test_models_of_an_older_lineage_are_dropped():
    """Whatever their number: they belong to another history."""
    accounts = books(lineage_epoch=4)
    old = trajectory(behavior=[(1, "4:old")])
    mixed = trajectory(behavior=[(1, "5:now"), (1, "3:older")])
    assert accounts.accept(candidate(1, old), head()) == []
    assert accounts.accept(candidate(2, mixed), head()) == []
    assert len(accounts.accept(candidate(3, trajectory(behavior=[(1, "5:now")])), head())) == 1
    assert ledger_of(accounts.settle_refused()).dropped == 2


def test_the_oldest_model_of_a_trajectory_decides():
    """It acted with several."""
    runs = (BehaviorRun(9, "5:a", 3), BehaviorRun(4, "5:b", 1), BehaviorRun(10, "5:c", 9))
    assert policy_lag(head(10), 2, runs) == (6, True)
    assert policy_lag(head(10), 2, (BehaviorRun(0, "", 5),)) == (10, True)
    assert policy_lag(head(10), 5, (BehaviorRun(0, "", 5),)) == (10, True)
    assert policy_lag(head(10), 0, (BehaviorRun(9, "no token", 5),)) == (0, False)
    mixed = (BehaviorRun(8, "5:c", 3), BehaviorRun(0, "fallback", 1))
    assert policy_lag(head(10), 2, mixed) == (2, False)
    assert policy_lag(head(10), 2, (BehaviorRun(10, "fallback", 1),)) == (0, False)


@pytest.mark.parametrize("behavior", [(1, "5:now"), (1, "4:old"), (0, "fallback")])
def test_without_a_limit_of_lag_whatever_acted_is_trained_on(behavior):
    """A replay buffer's learner needs no probabilities: old, another history's, the fallback's."""
    accounts = books(max_policy_lag=None, lineage_epoch=4)
    assert len(accounts.accept(candidate(1, trajectory(behavior=[behavior])), head(1000))) == 1
    assert accounts.settle_trained().counts.trained == 1


def test_the_fallbacks_actions_are_dropped():
    """Nobody knows how probable they were."""
    accounts = books()
    fallback = trajectory(behavior=[(1, "fallback")])
    assert accounts.accept(candidate(1, fallback), head()) == []
    assert ledger_of(accounts.settle_refused()).dropped == 1


def test_a_gap_is_looked_for_before_it_is_given_up():
    """A paused worker had taken number 1; it is trained before what came after it."""
    pending = Pending(candidate(1))
    accounts = books(pending=pending)
    found = accounts.accept(candidate(2, floor=2), head())
    assert [item.address.seq for item in found] == [1, 2]
    assert pending.asked == ["2-0"]
    settlement = accounts.settle_trained()
    assert ledger_of(settlement) == LedgerRecord(watermark=2, trained=2, steps=8)
    assert settlement.counts.skipped == 0


def test_a_gap_that_nobody_holds_is_skipped_and_counted_once():
    """Someone destroyed the entries; no later entry asks again."""
    pending = Pending()
    accounts = books(pending=pending)
    accounts.accept(candidate(5, floor=4), head())
    accounts.accept(candidate(6, floor=4), head())
    accounts.accept(candidate(7, floor=4), head())
    settlement = accounts.settle_trained()
    assert pending.asked == ["5-0"]
    assert ledger_of(settlement) == LedgerRecord(
        watermark=3, above=(5, 6, 7), trained=3, skipped=3, steps=12
    )
    # Number 4 may still come; when the floor has passed it, it will not.
    accounts.accept(candidate(8, floor=8), head())
    settlement = accounts.settle_trained()
    assert ledger_of(settlement) == LedgerRecord(watermark=8, trained=4, skipped=4, steps=16)
    assert settlement.counts.skipped == 4


def test_what_the_learner_holds_is_no_gap():
    """It is neither searched for nor skipped, however high the floor."""
    pending = Pending()
    accounts = books(pending=pending)
    accounts.accept(candidate(1), head())
    accounts.accept(candidate(2), head())
    accounts.accept(candidate(3, floor=3), head())
    assert pending.asked == []
    assert ledger_of(accounts.settle_trained()) == LedgerRecord(watermark=3, trained=3, steps=12)


def test_a_gap_beyond_what_the_learner_holds_is_passed_with_it():
    """Number 1 is in hand, 2 was destroyed; the agent may never say its floor again."""
    accounts = books()
    accounts.accept(candidate(1), head())
    accounts.accept(candidate(3, floor=3), head())
    settlement = accounts.settle_trained()
    assert ledger_of(settlement) == LedgerRecord(watermark=3, trained=2, skipped=1, steps=8)
    assert settlement.counts.skipped == 1


def test_a_copy_of_what_the_learner_holds_is_not_settled_before_it():
    """The broker may have lost the one in hand; then the copy is the only one that there is."""
    accounts = books()
    accounts.accept(candidate(1), head())
    accounts.accept(candidate(1, entry_id="9-0"), head())
    accounts.accept(candidate(2, reason="bad"), head())
    assert accounts.settle_refused().entry_ids == ("2-0",)
    assert (accounts.unsettled, accounts.size) == (0, 2)
    settlement = accounts.settle_trained()
    assert settlement.entry_ids == ("1-0", "9-0")
    assert settlement.counts == Counts(trained=1, quarantined=1, duplicate=1, steps=4, episodes=1)


def test_a_copy_stays_while_only_others_are_refused():
    """What the learner keeps is still to be trained, and its copy goes with it."""
    accounts = books()
    (first,) = accounts.accept(candidate(1), head())
    accounts.accept(candidate(2), head())
    accounts.accept(candidate(2, entry_id="9-0"), head())
    assert accounts.refuse_accepted("not finite", [first]) == 1
    assert accounts.settle_refused().entry_ids == ("1-0",)
    assert accounts.settle_trained().entry_ids == ("2-0", "9-0")


def test_a_copy_of_what_cannot_be_trained_goes_with_it():
    """Neither stays for ever."""
    accounts = books()
    accounts.accept(candidate(1), head())
    accounts.accept(candidate(1, entry_id="9-0"), head())
    assert accounts.refuse_accepted("not finite") == 1
    assert accounts.settle_refused().entry_ids == ("1-0", "9-0")


def test_a_skipped_number_that_turns_up_is_a_duplicate():
    """A zombie's resend must not be trained after it was given up."""
    accounts = books()
    accounts.accept(candidate(2, floor=2), head())
    assert accounts.accept(candidate(1, entry_id="9-0"), head()) == []
    settlement = accounts.settle_trained()
    assert ledger_of(settlement) == LedgerRecord(
        watermark=2, trained=1, skipped=1, duplicate=1, steps=4
    )


def test_a_rollout_that_cannot_be_trained_is_quarantined_whole():
    """Its update was rolled back; what was refused or dropped before keeps its fate."""
    accounts = books()
    accounts.accept(candidate(1), head())
    accounts.accept(candidate(2, reason="bad"), head())
    accounts.accept(candidate(3), head())
    assert accounts.refuse_accepted("not finite") == 2
    assert accounts.accepted == 0
    assert accounts.accept(candidate(3, entry_id="9-0"), head()) == []
    settlement = accounts.settle_refused()
    assert set(settlement.entry_ids) == {"1-0", "2-0", "3-0", "9-0"}
    assert {r.entry_id: r.reason for r in settlement.refusals} == {
        "1-0": "not finite",
        "2-0": "bad",
        "3-0": "not finite",
    }
    assert ledger_of(settlement) == LedgerRecord(watermark=3, quarantined=3, duplicate=1)


def test_cut_trajectories_are_no_episodes():
    """The episode goes on in the next one."""
    accounts = books()
    accounts.accept(candidate(1, trajectory(end=End.CUT)), head())
    accounts.accept(candidate(2, trajectory(end=End.TRUNCATED)), head())
    assert accounts.settle_trained().counts == Counts(trained=2, steps=8, episodes=1)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 12),
            st.sampled_from(["good", "bad", "old"]),
            st.integers(1, 12),
            st.sampled_from(["", "", "trained", "refused"]),
        ),
        max_size=40,
    )
)
def test_every_number_gets_one_fate_and_every_entry_is_settled_once(arrivals):
    """Copies, gaps, refusals and drops in any order, with commits in between."""
    accounts = books(max_policy_lag=1)
    fates = Counts()
    settled: list[str] = []
    trained: list[int] = []
    record = LedgerRecord()
    for ordinal, (seq, kind, floor, commit) in enumerate([*arrivals, (1, "bad", 1, "trained")]):
        what = trajectory(behavior=[(1, "5:x")] if kind == "old" else [(9, "5:x")])
        arrived = candidate(
            seq,
            what,
            floor=min(floor, seq),
            entry_id=f"{ordinal}-0",
            reason="bad" if kind == "bad" else "",
        )
        accounts.accept(arrived, head(9))
        if commit:
            close = accounts.settle_trained if commit == "trained" else accounts.settle_refused
            settlement = close()
            settled += settlement.entry_ids
            trained += settlement.provenance.agents.get("a", ())
            fates = settlement.counts
            if "a" in settlement.watermarks:
                record = ledger_of(settlement)
    assert sorted(settled) == sorted(f"{ordinal}-0" for ordinal in range(len(arrivals) + 1))
    assert len(trained) == len(set(trained)) == fates.trained == record.trained
    numbers = record.watermark + len(record.above)
    assert fates.trained + fates.quarantined + fates.dropped + fates.skipped == numbers
    assert fates.trained + fates.quarantined + fates.dropped + fates.duplicate == len(settled)
    assert record.duplicate == fates.duplicate
