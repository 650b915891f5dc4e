"""How many threads suit the reference: one, or torch's own choice. Measured once a case."""

from pathlib import Path
from typing import Final

import msgspec

from benchmarks.learning.cases import Case, Reference
from benchmarks.learning.record import fingerprint
from benchmarks.learning.reference import run_reference

__all__ = ["ThreadChoice", "choose_threads"]

PROBE_STEPS: Final = 8192
"""Four rollouts of the largest kind, and some thousand gradient steps off-policy."""


class ThreadChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What the measurement said.

    Attributes:
        settings: Fingerprint of what was measured.
        one: Environment steps a second with one thread.
        default: The same with torch's default.
        default_threads: Which is so many.
    """

    settings: str
    one: float
    default: float
    default_threads: int

    @property
    def threads(self) -> int:
        """The faster number of threads."""
        return 1 if self.one >= self.default else self.default_threads


def choose_threads(case: Case, side: Reference, *, budget: int, folder: Path) -> ThreadChoice:
    """The kept choice for this case, or a measurement."""
    path = folder / case.name / "threads.json"
    settings = fingerprint(case, side, budget)
    if path.exists():
        kept = msgspec.json.decode(path.read_bytes(), type=ThreadChoice)
        if kept.settings == settings:
            return kept
    speeds, threads = [], []
    for choice in (1, None):
        outcome = run_reference(
            case, side, seed=0, budget=budget, threads=choice, stop_after=min(PROBE_STEPS, budget)
        )
        speeds.append(outcome.steps / outcome.seconds)
        threads.append(outcome.threads)
    found = ThreadChoice(
        settings=settings, one=speeds[0], default=speeds[1], default_threads=threads[1]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(found))
    return found
