"""All runs of a campaign, one after the other, each alone on the machine."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.learning.cases import Case, Reference, Side
from benchmarks.learning.record import Run, fingerprint, make_run, read_run, write_run
from benchmarks.learning.reference import run_reference
from benchmarks.learning.streams import run_streams
from benchmarks.learning.threads import choose_threads

__all__ = ["Campaign", "order_of_runs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What is to be run.

    Attributes:
        cases: In this order.
        sides: Names of those that run; empty: all.
        seeds: Of the runs.
        folder: Where runs are kept.
        resume: Whether a run that is kept there, with the same settings, need not be repeated.
        max_steps: Upper limit of every budget, for a quick look.
    """

    cases: tuple[Case, ...]
    sides: tuple[str, ...]
    seeds: tuple[int, ...]
    folder: Path
    resume: bool
    max_steps: int | None = None

    def budget(self, case: Case) -> int:
        """Environment steps of one run."""
        return case.budget if self.max_steps is None else min(case.budget, self.max_steps)

    def chosen(self, case: Case) -> tuple[Side, ...]:
        """The sides of `case` that run."""
        return tuple(s for s in case.sides if not self.sides or s.name in self.sides)

    def path(self, case: Case, side: Side, seed: int) -> Path:
        """Where a run is kept."""
        return self.folder / case.name / f"{side.name}-{seed}.json"

    def kept(self, case: Case, side: Side, seed: int) -> Run | None:
        """The run, if it is there and was one of these settings."""
        run = read_run(self.path(case, side, seed))
        current = run is not None and run.settings == fingerprint(case, side, self.budget(case))
        return run if current else None

    def runs(self) -> Iterator[Run]:
        """Run what is missing; each run as it ends, also those that were kept."""
        for case, side, seed in order_of_runs(self.cases, self.chosen, self.seeds):
            run = self.kept(case, side, seed) if self.resume else None
            if run is None:
                run = self._one(case, side, seed)
                write_run(self.path(case, side, seed), run)
            yield run

    def _one(self, case: Case, side: Side, seed: int) -> Run:
        budget, path = self.budget(case), self.path(case, side, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(side, Reference):
            threads = choose_threads(case, side, budget=budget, folder=self.folder).threads
            load = os.getloadavg()[0]
            found = run_reference(case, side, seed=seed, budget=budget, threads=threads)
            facts = {"steps": float(found.steps), "seconds": found.seconds}
            curve = found.curve
        else:
            load, threads = os.getloadavg()[0], 1
            outcome = run_streams(
                case, side, seed=seed, budget=budget, log=path.with_suffix(".log")
            )
            facts, curve = outcome.facts, outcome.curve
        return make_run(
            case,
            side,
            seed=seed,
            budget=budget,
            threads=threads,
            load_before=load,
            facts=facts,
            curve=curve,
        )


def order_of_runs(
    cases: Sequence[Case], chosen: Callable[[Case], Sequence[Side]], seeds: Sequence[int]
) -> Iterator[tuple[Case, Side, int]]:
    """Case by case and seed by seed; who begins alternates, as machines grow warm or busy."""
    for case in cases:
        for number, seed in enumerate(seeds):
            sides = chosen(case)
            for side in sides if number % 2 == 0 else reversed(sides):
                yield case, side, seed
