"""Random faults over time, several at once, none on top of another of the same thing."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.chaos.faults import Kind, Strike, needs
from benchmarks.chaos.site import Site

__all__ = ["FaultRecord", "carry_out_faults"]

GIVE_UP_S = 60.0
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


def carry_out_faults(site: Site, kinds: Sequence[Kind], *, begun: float) -> list[FaultRecord]:
    """Strike until enough faults have struck; returns when the last one is over.

    Args:
        site: What to strike.
        kinds: What with.
        begun: Monotonic time of the run's beginning.
    """
    settings = site.settings
    rng = random.Random(settings.seed)
    locks, records, threads = _Locks(), list[FaultRecord](), list[threading.Thread]()
    gap_s = settings.minutes * 60 / settings.faults
    due = time.monotonic()
    deadline = due + settings.minutes * 60 * 2 + GIVE_UP_S
    sequence = shuffled(kinds, rng)
    while time.monotonic() < deadline:
        running = [thread for thread in threads if thread.is_alive()]
        if sum(record.counts for record in records) + len(running) >= settings.faults:
            if not running:
                break
            site.stopping.wait(PAUSE_S)
            continue
        due = max(due + rng.expovariate(1 / gap_s), time.monotonic() - gap_s)
        site.stopping.wait(max(due - time.monotonic(), 0.0))
        kind, client = next(sequence), rng.choice(site.clients())
        strike = Strike(site, random.Random(rng.random()), client)
        # Waiting for a lock here keeps the kinds equally frequent.
        wanted = needs(kind, client)
        if locks.take(wanted, GIVE_UP_S):
            thread = threading.Thread(
                target=_strike, args=(kind, strike, locks, wanted, records, begun)
            )
            thread.start()
            threads.append(thread)
    for thread in threads:
        thread.join()
    return sorted(records, key=lambda record: record.began_s)


def _strike(
    kind: Kind,
    strike: Strike,
    locks: _Locks,
    wanted: frozenset[str],
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
        locks.give(wanted)
    end = time.monotonic()
    records.append(
        FaultRecord(kind.name, strike.client, start - begun, end - begun, wall_ms, detail, error)
    )
