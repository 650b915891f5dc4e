"""Random faults over time, several at once, none on top of another of the same thing."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.chaos.faults import Kind
from benchmarks.chaos.site import Site
from benchmarks.chaos.strike import Strike, lock_names

__all__ = ["FaultRecord", "carry_out_faults"]

GIVE_UP_S = 60.0
OVERTIME_S = 30.0
FASTER = 0.85
"""Of the mean pause: some faults find nothing to strike."""
PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """One fault that was carried out.

    Attributes:
        kind: Its name.
        client: On whom.
        began_s: Since the beginning of the run.
        ended_s: When it was over, restart included.
        began_ms: Wall clock.
        detail: What it did; "" if there was nothing to strike.
        error: Why it could not be carried out, "".
    """

    kind: str
    client: str
    began_s: float
    ended_s: float
    began_ms: int
    detail: str
    error: str = ""

    @property
    def counts(self) -> bool:
        """Whether it struck."""
        return bool(self.detail) and not self.error


def shuffled(kinds: Sequence[Kind], rng: random.Random) -> Iterator[Kind]:
    """All kinds in a random order, again and again: each is as frequent as any other."""
    while True:
        yield from rng.sample(kinds, len(kinds))


class _Locks:
    def __init__(self) -> None:
        self._held: set[str] = set()
        self._changed = threading.Condition()

    def take(self, wanted: frozenset[str], timeout_s: float) -> bool:
        with self._changed:
            if not self._changed.wait_for(lambda: not (wanted & self._held), timeout_s):
                return False
            self._held |= wanted
            return True

    def give(self, wanted: frozenset[str]) -> None:
        with self._changed:
            self._held -= wanted
            self._changed.notify_all()


class _Held:
    """The locks of one fault. Used by one thread at a time."""

    def __init__(self, locks: _Locks, wanted: frozenset[str]) -> None:
        self._locks = locks
        self._wanted = wanted

    def take(self) -> bool:
        return self._locks.take(self._wanted, GIVE_UP_S)

    def give_back(self, names: frozenset[str]) -> None:
        self._locks.give(self._wanted & names)
        self._wanted -= names

    def give_back_all(self) -> None:
        self.give_back(self._wanted)


def carry_out_faults(site: Site, kinds: Sequence[Kind], *, begun: float) -> list[FaultRecord]:
    """Strike for the whole time, and a little longer if too few have struck by then.

    Returns when the last one is over.

    Args:
        site: What to strike.
        kinds: What with.
        begun: Monotonic time of the run's beginning.
    """
    settings = site.settings
    rng = random.Random(settings.seed)
    locks, records, threads = _Locks(), list[FaultRecord](), list[threading.Thread]()
    gap_s = settings.minutes * 60 / settings.faults * FASTER
    due = time.monotonic()
    end = due + settings.minutes * 60
    sequence = shuffled(kinds, rng)
    while (now := time.monotonic()) < end + OVERTIME_S:
        running = [thread for thread in threads if thread.is_alive()]
        struck = sum(record.counts for record in records)
        if now >= end and struck + len(running) >= settings.faults:
            if struck >= settings.faults or not running:
                break
            site.stopping.wait(PAUSE_S)
            continue
        due = max(due + rng.expovariate(1 / gap_s), time.monotonic() - gap_s)
        site.stopping.wait(max(due - time.monotonic(), 0.0))
        kind, client = next(sequence), rng.choice(site.clients())
        # Waiting for a lock here keeps the kinds equally frequent.
        held = _Held(locks, lock_names(kind.needs, client))
        if held.take():
            strike = Strike(site, random.Random(rng.random()), client, held.give_back)
            thread = threading.Thread(target=_strike, args=(kind, strike, held, records, begun))
            thread.start()
            threads.append(thread)
    for thread in threads:
        thread.join()
    return sorted(records, key=lambda record: record.began_s)


def _strike(
    kind: Kind,
    strike: Strike,
    held: _Held,
    records: list[FaultRecord],
    begun: float,
) -> None:
    start, wall_ms = time.monotonic(), time.time_ns() // 1_000_000
    detail = error = ""
    try:
        detail = kind.carry_out(strike)
    except Exception as failure:  # noqa: BLE001 -- whatever it is, the run goes on
        # A fault that another one makes impossible is not counted, and is told.
        error = repr(failure)
    finally:
        held.give_back_all()
    end = time.monotonic()
    records.append(
        FaultRecord(kind.name, strike.client, start - begun, end - begun, wall_ms, detail, error)
    )
