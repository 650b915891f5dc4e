"""The verdict: each trajectory whose end was marked, against what the broker's history shows."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from benchmarks.chaos.blackbox import ClientHistory, CommitRecord, Number, id_order
from benchmarks.chaos.identity import Identity
from benchmarks.chaos.ledger import Ledger

__all__ = ["ClientVerdict", "final_line", "judge"]

SHOWN = 20
"""Examples of one kind of violation in the report."""


@dataclass(slots=True)
class ClientVerdict:
    """What became of a client's trajectories.

    Attributes:
        client: Its name.
        ended: Whose end was marked, by the applications' own ledgers.
        fates: How many of them ended how; each is in one.
        twice: How many numbers were taken in more than once.
        unwritten: Fates of those whose application was killed before it wrote them down.
        duplicates: Second copies that the worker refused.
        versions: Of the final line.
        unclear: Destroyed entries of which nobody can tell whether a worker had read them before.
        trained_at: Wall clock in milliseconds and number of trajectories, for each version.
        violations: Everything that must not be, in words.
    """

    client: str
    ended: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    twice: int = 0
    unwritten: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    versions: int = 0
    unclear: int = 0
    trained_at: list[tuple[int, int]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def accuse(self, what: str, which: list[str]) -> None:
        """Add a violation, if there is one."""
        if which:
            examples = ", ".join(which[:SHOWN])
            self.violations.append(f"{self.client}: {len(which)} {what}: {examples}")


def final_line(history: ClientHistory, verdict: ClientVerdict) -> list[tuple[int, str]]:
    """The versions that count, oldest first: those that the final head descends from.

    They are found twice, in the order of the commits and from the last one back by the bases that
    the models name; the two must agree.
    """
    line: list[tuple[int, str]] = []
    for commit in history.commits:
        if "version" in commit.head:
            name = int(commit.head["version"]), commit.head["token"].decode()
            if not line or line[-1] != name:
                line.append(name)
    walked = line[-1:]
    while walked and (record := history.versions.get(walked[-1])) and record.base:
        walked.append(record.base)
    if walked[::-1] != line:
        verdict.violations.append(
            f"{verdict.client}: the final head descends from {len(walked)} versions, "
            f"and {len(line)} were committed"
        )
    if [version for version, _ in line] != list(range(1, len(line) + 1)):
        verdict.violations.append(f"{verdict.client}: the line of versions has gaps")
    return line


@dataclass(slots=True)
class _Settled:
    """Fates by number, replayed from the commits.

    Attributes:
        fates: Number -> trained, quarantined or dropped.
        duplicates: Agent -> copies that were acknowledged beside the one that counts.
        unclear: Agent -> acknowledged entries that somebody had destroyed: the worker may have
            read them before that (then it dropped them, or took them for second copies), or not.
        twice: Numbers that were taken in more than once.
        unfounded: Numbers that a version names and its commit did not acknowledge.
    """

    fates: dict[Number, str] = field(default_factory=dict)
    duplicates: Counter[str] = field(default_factory=Counter)
    unclear: Counter[str] = field(default_factory=Counter)
    twice: list[str] = field(default_factory=list)
    unfounded: list[str] = field(default_factory=list)

    def take_in(self, number: Number, fate: str) -> None:
        """Note what became of a number; it must be the first time."""
        if number in self.fates:
            self.twice.append(f"{number} {self.fates[number]}, then {fate}")
        self.fates[number] = fate


def _replay(history: ClientHistory, verdict: ClientVerdict) -> _Settled:
    """What each commit settled.

    A second copy may be settled before the first one is trained, so what was acknowledged for
    neither training nor quarantine is told apart at the end: a duplicate if its number has a fate,
    else dropped.
    """
    settled = _Settled()
    verdict.versions = len(final_line(history, verdict))
    seen: set[tuple[int, str]] = set()
    others: list[str] = []
    for commit in history.commits:
        trained: list[Number] = []
        if "version" in commit.head:
            name = int(commit.head["version"]), commit.head["token"].decode()
            if name not in seen:
                seen.add(name)
                record = history.versions.get(name)
                trained = record.numbers if record else []
                verdict.trained_at.append((int(commit.head["updated_ms"]), len(trained)))
        others += _settle(history, commit, trained, settled)
    for entry_id in others:
        number = history.entries[entry_id].number
        if number is None:
            continue
        if entry_id in history.destroyed:
            settled.unclear[number[0]] += 1
        elif number in settled.fates:
            settled.duplicates[number[0]] += 1
        else:
            settled.fates[number] = "dropped"
    return settled


def _settle(
    history: ClientHistory, commit: CommitRecord, trained: list[Number], settled: _Settled
) -> list[str]:
    """Note one commit's trained and quarantined numbers; the other acknowledged entries."""
    for number in trained:
        settled.take_in(number, "trained")
    left, refused, others = set(trained), set(commit.quarantined), []
    for entry_id in commit.acknowledged:
        entry = history.entries.get(entry_id)
        if entry is None or entry.number is None:
            continue
        if entry.number in left:
            left.discard(entry.number)
        elif entry_id in refused:
            settled.take_in(entry.number, "quarantined")
        else:
            others.append(entry_id)
    settled.unfounded += [str(number) for number in left]
    return others


def judge(
    history: ClientHistory, ledger: Ledger, client: str, *, flushed_ms: int, n_steps: int
) -> ClientVerdict:
    """Where each trajectory of `client` ended, and what must not be.

    No counter of an agent is heard: an agent of this run has room for everything that it is given,
    so it has no reason ever to drop anything.

    Args:
        history: What survived at the broker.
        ledger: What the applications wrote down.
        client: Whose.
        flushed_ms: When the harness began to send enough to fill another rollout; whatever was in
            the stream before that must be settled.
        n_steps: Of a rollout.
    """
    verdict = ClientVerdict(client)
    settled = _replay(history, verdict)
    numbers, contradictions = _numbers(history)
    verdict.violations += [f"{client}: {text}" for text in contradictions]
    verdict.twice = len(settled.twice)
    verdict.accuse("numbers are settled twice", settled.twice)
    verdict.accuse("numbers were trained on without their entries", settled.unfounded)
    verdict.duplicates = settled.duplicates.total()
    waiting, stranded = _find_waiting(history)
    destroyed = {
        entry.number
        for entry_id in history.destroyed
        if (entry := history.entries.get(entry_id)) is not None and entry.number is not None
    }
    fates = dict.fromkeys(waiting, "pending") | dict.fromkeys(stranded - waiting, "stranded")
    fates |= {number: "skipped" for number in destroyed - fates.keys() if _passed(history, number)}
    fates |= settled.fates
    lost: list[str] = []
    for identity in ledger.ended.get(client, []):
        verdict.ended += 1
        number = numbers.get(identity)
        if number in fates:
            verdict.fates[fates[number]] += 1
        elif number is None and identity in ledger.unrewarded:
            verdict.fates["quarantined (application killed before its reward came)"] += 1
        else:
            lost.append(f"{identity} of {ledger.agent_of(identity).agent_id}")
    verdict.fates["lost"] = len(lost)
    verdict.accuse("trajectories are lost", lost)
    pending = [entry_id for entry_id in history.present if history.is_readable(entry_id)]
    retained = _retained(history, settled)
    _check_retained(verdict, history, retained)
    known = retained.union(pending)
    _check_pending(verdict, history, pending, known, flushed_ms=flushed_ms, n_steps=n_steps)
    _check_quarantine(verdict, ledger, numbers, fates)
    _check_unwritten(verdict, ledger, numbers, fates)
    _check_books(verdict, history, fates, settled)
    return verdict


def _passed(history: ClientHistory, number: Number) -> bool:
    record = history.ledgers.get(number[0])
    return record is not None and number[1] <= record.watermark


def _numbers(history: ClientHistory) -> tuple[dict[Identity, Number], list[str]]:
    """Identity -> its number, and where the two do not stay together."""
    numbers: dict[Identity, Number] = {}
    identities: dict[Number, Identity] = {}
    wrong = []
    for entry in history.entries.values():
        if entry.number is None or entry.identity is None:
            wrong.append("an entry does not decode")
            continue
        if numbers.setdefault(entry.identity, entry.number) != entry.number:
            wrong.append(f"{entry.identity} has two numbers")
        if identities.setdefault(entry.number, entry.identity) != entry.identity:
            wrong.append(f"{entry.number} was given twice")
    return numbers, wrong


def _retained(history: ClientHistory, settled: _Settled) -> set[str]:
    """Entries that a replay buffer keeps in the stream, trained and acknowledged."""
    return {
        entry_id
        for entry_id in history.present
        if not history.is_readable(entry_id)
        and settled.fates.get(_number_of(history, entry_id)) == "trained"
    }


def _number_of(history: ClientHistory, entry_id: str) -> Number:
    return history.entries[entry_id].number or ("", 0)


def _find_waiting(history: ClientHistory) -> tuple[set[Number], set[Number]]:
    """Numbers in the stream: those that a worker will be given, and those that nobody will."""
    waiting, stranded = set[Number](), set[Number]()
    for entry_id in history.present:
        number = history.entries[entry_id].number
        if number is not None:
            (waiting if history.is_readable(entry_id) else stranded).add(number)
    return waiting, stranded


def _check_retained(verdict: ClientVerdict, history: ClientHistory, retained: set[str]) -> None:
    """The head says how many entries stay; somebody may have destroyed some of them."""
    if not history.commits:
        return
    said = int(history.commits[-1].head.get("retained", b"0"))
    gone = sum(1 for entry_id in history.destroyed if entry_id not in history.present)
    if not said - gone <= len(retained) <= said:
        verdict.violations.append(
            f"{verdict.client}: {len(retained)} trained entries are in the stream, the head says "
            f"{said}, and {gone} were destroyed"
        )


def _check_pending(
    verdict: ClientVerdict,
    history: ClientHistory,
    pending: Iterable[str],
    known: set[str],
    *,
    flushed_ms: int,
    n_steps: int,
) -> None:
    """Idle workers leave less than a rollout, and nothing that is older than the last one."""
    pending = sorted(pending, key=id_order)
    verdict.accuse(
        "entries are in the stream, acknowledged or passed over, and no worker will read them",
        sorted(history.present - known, key=id_order),
    )
    verdict.accuse(
        "entries still wait although enough for another rollout came after them",
        [entry_id for entry_id in pending if id_order(entry_id)[0] < flushed_ms],
    )
    # Of what was sent twice, a worker holds one copy.
    sizes = {
        history.entries[entry_id].number: history.entries[entry_id].steps for entry_id in pending
    }
    steps = sum(sizes.values())
    if steps >= n_steps:
        verdict.violations.append(
            f"{verdict.client}: {steps} steps wait at the end, and {n_steps} fill a rollout"
        )


def _check_quarantine(
    verdict: ClientVerdict,
    ledger: Ledger,
    numbers: Mapping[Identity, Number],
    fates: Mapping[Number, str],
) -> None:
    """The worker refuses the poison, all of it, and nothing else."""
    innocent, swallowed = [], []
    for identity, number in numbers.items():
        fate, poison = fates.get(number), identity in ledger.poison
        if fate == "quarantined" and not poison:
            innocent.append(str(identity))
        elif fate == "trained" and poison:
            swallowed.append(str(identity))
    verdict.accuse("harmless trajectories were quarantined", innocent)
    verdict.accuse("trajectories that spoil an update were trained on", swallowed)


def _check_unwritten(
    verdict: ClientVerdict,
    ledger: Ledger,
    numbers: Mapping[Identity, Number],
    fates: Mapping[Number, str],
) -> None:
    """What is in the stream and in no ledger must be the very next one of a killed agent."""
    written = set(ledger.ended.get(verdict.client, []))
    strangers = []
    for identity, number in numbers.items():
        if identity in written:
            continue
        verdict.unwritten[fates.get(number, "nowhere")] += 1
        if not ledger.is_next(identity):
            strangers.append(str(identity))
    verdict.accuse("entries are in nobody's ledger", strangers)


def _check_books(
    verdict: ClientVerdict,
    history: ClientHistory,
    fates: Mapping[Number, str],
    settled: _Settled,
) -> None:
    """The worker's committed counts, agent by agent, against what was replayed."""
    found: dict[str, Counter[str]] = {}
    for (agent_id, _), fate in fates.items():
        found.setdefault(agent_id, Counter())[fate] += 1
    for agent_id, record in history.ledgers.items():
        counts, unclear = found.get(agent_id, Counter()), settled.unclear[agent_id]
        counts["duplicate"] = settled.duplicates[agent_id]
        counts["dropped or skipped"] = counts["dropped"] + counts["skipped"]
        books = {
            "trained": (record.trained, 0),
            "quarantined": (record.quarantined, 0),
            "dropped": (record.dropped, unclear),
            "dropped or skipped": (record.dropped + record.skipped, 0),
            "duplicate": (record.duplicate, unclear),
        }
        wrong = [
            f"{agent_id}: {name} {said} by its books, {counts[name]} by the commits"
            for name, (said, slack) in books.items()
            if not counts[name] <= said <= counts[name] + slack
        ]
        verdict.accuse("counts contradict the commits", wrong)
    verdict.unclear = settled.unclear.total()
