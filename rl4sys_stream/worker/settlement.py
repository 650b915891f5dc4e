"""Who gets trained: the fate of every candidate, and the books that go with it.

Each candidate ends as exactly one of: a sample for the learner, or settled without training
(quarantined, dropped, duplicate). Numbers that a third party destroyed count as skipped. Nothing
here is final before the commit that carries it; a refused commit throws this object away.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from rl4sys_stream.broker.commit import Refusal
from rl4sys_stream.broker.head import Counts, Head
from rl4sys_stream.broker.lease import token_epoch
from rl4sys_stream.broker.ledger import AgentLedger, LedgerRecord, Outcome
from rl4sys_stream.model_store.publisher import Provenance
from rl4sys_stream.telemetry import log_event
from rl4sys_stream.wire.format import FALLBACK_TOKEN, End
from rl4sys_stream.wire.trajectory import BehaviorRun, EntryAddress, Trajectory
from rl4sys_stream.worker.intake import Candidate

__all__ = ["Accepted", "Books", "Settlement", "policy_lag"]

logger = logging.getLogger("rl4sys_stream.worker")


@dataclass(frozen=True, slots=True, eq=False)
class Accepted:
    """A candidate that the learner holds."""

    entry_id: str
    address: EntryAddress
    trajectory: Trajectory
    lag: int
    size_bytes: int = 0


def policy_lag(head: Head, lineage_epoch: int, behavior: Iterable[BehaviorRun]) -> tuple[int, bool]:
    """How many versions the oldest model behind a trajectory differs from the learner's.

    A model *ahead* of the head (the broker lost its last commits) counts by its distance, too:
    its logged probabilities are as true as any.

    Returns:
        The lag, and whether it holds for all steps: none can be told where the application's
        fallback acted, or a model of an older lineage.
    """
    lag, known = 0, True
    for run in behavior:
        foreign = run.version and token_epoch(run.token) <= lineage_epoch
        if run.token == FALLBACK_TOKEN or foreign:
            known = False
        else:
            lag = max(lag, abs(head.version - run.version))
    return lag, known


@dataclass(frozen=True, slots=True)
class Settlement:
    """What one commit settles.

    Attributes:
        entry_ids: Entries to acknowledge.
        trained: Those of them that the learner took in; the others need not stay in the stream.
        refusals: Those of them that go to the quarantine.
        watermarks: agent_id -> ledger as JSON, for the agents concerned.
        counts: Of the lineage, after this commit.
        provenance: Of the version that is published, if one is.
    """

    entry_ids: tuple[str, ...] = ()
    trained: tuple[Accepted, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    watermarks: Mapping[str, bytes] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(slots=True)
class _Totals:
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    steps: int = 0
    episodes: int = 0

    @classmethod
    def of(cls, counts: Counts) -> "_Totals":
        outcomes = Counter({outcome: int(getattr(counts, outcome)) for outcome in Outcome})
        return cls(outcomes, counts.steps, counts.episodes)

    def counts(self) -> Counts:
        found = {outcome.value: self.outcomes[outcome] for outcome in Outcome}
        return Counts(**found, steps=self.steps, episodes=self.episodes)


class Books:
    """The accounts of one session of a worker. Not thread-safe."""

    def __init__(
        self,
        ledgers: Mapping[str, LedgerRecord],
        counts: Counts,
        *,
        lineage_epoch: int,
        max_policy_lag: int | None,
        rescan: Callable[[str], list[Candidate]],
        witness: Callable[[str, Trajectory], None] | None = None,
    ) -> None:
        """Continue the committed state.

        Args:
            ledgers: agent_id -> what is committed of its numbers.
            counts: Of the lineage.
            lineage_epoch: Models of tokens up to this epoch belong to an older lineage.
            max_policy_lag: Older trajectories are dropped, and those whose age cannot be told;
                None uses whatever comes, as learning from a replay buffer can.
            rescan: Reads the pending list again; gives out all that is older than an entry.
            witness: Told of each trajectory once, also of one that is dropped for its age.
        """
        self._ledgers = {agent_id: AgentLedger(record) for agent_id, record in ledgers.items()}
        self._totals = _Totals.of(counts)
        self._lineage_epoch = lineage_epoch
        self._max_policy_lag = max_policy_lag
        self._rescan = rescan
        self._witness = witness
        self._scanned: dict[str, int] = {}
        self._held: dict[str, set[int]] = {}
        self._floors: dict[str, int] = {}
        self._gaps: set[str] = set()
        self._accepted: list[Accepted] = []
        self._copies: list[tuple[Candidate, EntryAddress]] = []
        self._settled: list[str] = []
        self._refusals: list[Refusal] = []
        self._dirty: set[str] = set()

    def is_settled(self, address: EntryAddress) -> bool:
        """Whether the fate of this number is committed."""
        return self._ledger(address.agent_id).is_settled(address.seq)

    @property
    def unsettled(self) -> int:
        """Entries whose fate is known, is not training, and waits for a commit of its own.

        None while a gap waits for what the learner holds before it: the floor that has passed the
        gap stands in one of these entries, and the next worker must find it there.
        """
        return 0 if self._gaps else len(self._settled)

    @property
    def accepted(self) -> int:
        """Entries that the learner holds."""
        return len(self._accepted)

    @property
    def size(self) -> int:
        """Entries that a commit of everything would settle."""
        return len(self._accepted) + len(self._copies) + len(self._settled)

    def held(self) -> tuple[Accepted, ...]:
        """What the learner holds, oldest first."""
        return tuple(self._accepted)

    def accept(self, candidate: Candidate, head: Head) -> list[Accepted]:
        """Decide about `candidate`, and about whatever a rescan on its account brings up.

        Returns:
            What the learner is to observe, oldest first; often one, sometimes none.
        """
        found: list[Accepted] = []
        address = candidate.address
        if address is not None:
            for forgotten in self._recover_gap(candidate.entry_id, address):
                found += self._decide(forgotten, head)
        found += self._decide(candidate, head)
        if address is not None:
            self._pass_gap(address)
        return found

    def _recover_gap(self, entry_id: str, address: EntryAddress) -> list[Candidate]:
        """Read the pending list again before numbers below the floor are given up.

        Whatever lies below the floor was appended before this entry, so it has been delivered to
        somebody: a paused worker may have taken it under our name.
        """
        ledger = self._ledger(address.agent_id)
        held = self._held.get(address.agent_id, set())
        lowest = address.floor
        if self._scanned.get(address.agent_id, 0) >= lowest:
            return []
        if not ledger.has_gap_below(lowest, held):
            return []
        self._scanned[address.agent_id] = lowest
        return self._rescan(entry_id)

    def _pass_gap(self, address: EntryAddress) -> None:
        agent_id = address.agent_id
        self._floors[agent_id] = max(self._floors.get(agent_id, 0), address.floor)
        self._skip(agent_id)
        if self._scanned.get(agent_id, 0) < self._floors[agent_id]:
            return  # no gap, or it would have been looked for
        held = self._held.get(agent_id, ())
        if self._ledger(agent_id).has_gap_below(self._floors[agent_id], held):
            self._gaps.add(agent_id)

    def _skip(self, agent_id: str) -> None:
        floor = self._floors.get(agent_id, 0)
        skipped = self._ledger(agent_id).skip_below(floor, self._held.get(agent_id, ()))
        if skipped:
            self._totals.outcomes[Outcome.SKIPPED] += skipped
            self._dirty.add(agent_id)
            log_event(
                logger,
                logging.WARNING,
                "worker.skipped",
                agent_id=agent_id,
                count=skipped,
                below=floor,
            )

    def _decide(self, candidate: Candidate, head: Head) -> list[Accepted]:
        address, trajectory = candidate.address, candidate.trajectory
        if address is None:
            self._settled.append(candidate.entry_id)
            if candidate.reason != "deleted":
                self._refuse(candidate, None)
            return []
        held = self._held.setdefault(address.agent_id, set())
        if self._ledger(address.agent_id).is_settled(address.seq):
            self._settle(candidate, address, Outcome.DUPLICATE)
            return []
        if address.seq in held:
            # Not before the one that the learner holds: if the broker has lost that one, this is
            # the only one there is.
            self._copies.append((candidate, address))
            return []
        if trajectory is None:
            self._refuse(candidate, address)
            self._settle(candidate, address, Outcome.QUARANTINED)
            return []
        if self._witness is not None:
            self._witness(address.agent_id, trajectory)
        lag, known = policy_lag(head, self._lineage_epoch, trajectory.behavior)
        limit = self._max_policy_lag
        if limit is not None and (not known or lag > limit):
            self._settle(candidate, address, Outcome.DROPPED)
            return []
        held.add(address.seq)
        accepted = Accepted(candidate.entry_id, address, trajectory, lag, candidate.size_bytes)
        self._accepted.append(accepted)
        return [accepted]

    def _settle(self, candidate: Candidate, address: EntryAddress, outcome: Outcome) -> None:
        self._settled.append(candidate.entry_id)
        self._ledger(address.agent_id).settle(address.seq, outcome)
        self._totals.outcomes[outcome] += 1
        self._dirty.add(address.agent_id)
        if outcome is Outcome.DROPPED:
            log_event(
                logger,
                logging.INFO,
                "worker.dropped",
                agent_id=address.agent_id,
                seq=address.seq,
                why="policy_lag",
            )

    def _refuse(self, candidate: Candidate, address: EntryAddress | None) -> None:
        self._refusals.append(Refusal(candidate.entry_id, candidate.reason))
        if address is None:
            self._totals.outcomes[Outcome.QUARANTINED] += 1
        log_event(
            logger,
            logging.WARNING,
            "worker.quarantined",
            entry_id=candidate.entry_id,
            agent_id=address.agent_id if address else "unknown",
            reason=candidate.reason,
        )

    def refuse_accepted(self, reason: str, items: Sequence[Accepted] | None = None) -> int:
        """Send `items` of what the learner holds to the quarantine; how many entries that were.

        Args:
            reason: Why.
            items: None for all.
        """
        refused = set(map(id, self._accepted if items is None else items))
        accepted = [item for item in self._accepted if id(item) in refused]
        self._accepted = [item for item in self._accepted if id(item) not in refused]
        for item in accepted:
            self._held[item.address.agent_id].discard(item.address.seq)
            candidate = Candidate(item.entry_id, 0, item.address, item.trajectory, reason)
            self._refuse(candidate, item.address)
            self._settle(candidate, item.address, Outcome.QUARANTINED)
        self._settle_copies()
        if not self._accepted:
            self._gaps.clear()  # nothing stands before them any more
        return len(accepted)

    def _settle_copies(self) -> None:
        """Settle those of numbers that the learner no longer holds."""
        copies, self._copies = self._copies, []
        for candidate, address in copies:
            if address.seq in self._held[address.agent_id]:
                self._copies.append((candidate, address))
            else:
                self._settle(candidate, address, Outcome.DUPLICATE)

    def settle_refused(self) -> Settlement:
        """Close the accounts of what is settled without training; the learner keeps its own."""
        return self._close(())

    def settle_trained(self) -> Settlement:
        """Close the accounts of all that the learner took in, and of what was refused so far."""
        accepted, self._accepted = tuple(self._accepted), []
        for item in accepted:
            address, steps = item.address, len(item.trajectory.rewards)
            self._held[address.agent_id].discard(address.seq)
            self._ledger(address.agent_id).settle(address.seq, Outcome.TRAINED, steps=steps)
            self._totals.outcomes[Outcome.TRAINED] += 1
            self._totals.steps += steps
            self._totals.episodes += item.trajectory.end is not End.CUT
            self._dirty.add(address.agent_id)
        self._settle_copies()
        self._gaps.clear()
        return self._close(accepted)

    def _close(self, accepted: tuple[Accepted, ...]) -> Settlement:
        # What was in hand may have stood before a gap whose floor is known already.
        for agent_id in sorted(self._dirty):
            self._skip(agent_id)
        entry_ids = (*(item.entry_id for item in accepted), *self._settled)
        watermarks = {
            agent_id: msgspec.json.encode(self._ledgers[agent_id].record())
            for agent_id in self._dirty
        }
        settlement = Settlement(
            entry_ids,
            accepted,
            tuple(self._refusals),
            watermarks,
            self._totals.counts(),
            _provenance(accepted),
        )
        self._settled, self._refusals, self._dirty = [], [], set()
        return settlement

    def _ledger(self, agent_id: str) -> AgentLedger:
        if agent_id not in self._ledgers:
            self._ledgers[agent_id] = AgentLedger()
        return self._ledgers[agent_id]


def _provenance(accepted: tuple[Accepted, ...]) -> Provenance:
    if not accepted:
        return Provenance()
    agents: dict[str, list[int]] = {}
    behavior: Counter[tuple[int, str]] = Counter()
    steps = 0
    for item in accepted:
        agents.setdefault(item.address.agent_id, []).append(item.address.seq)
        steps += len(item.trajectory.rewards)
        for run in item.trajectory.behavior:
            behavior[run.version, run.token] += run.steps
    return Provenance(
        first_id=accepted[0].entry_id,
        last_id=accepted[-1].entry_id,
        trajectories=len(accepted),
        steps=steps,
        agents={agent_id: sorted(numbers) for agent_id, numbers in agents.items()},
        behavior=[(version, token, count) for (version, token), count in sorted(behavior.items())],
    )
