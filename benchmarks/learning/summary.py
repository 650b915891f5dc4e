"""From the runs of a case to the figures that documents quote."""

import math
import statistics
from collections.abc import Sequence

import msgspec

from benchmarks.learning.cases import Case
from benchmarks.learning.record import Curve, Run, moving_mean

__all__ = ["CaseSummary", "SeedSummary", "SideSummary", "summarise"]

POINTS = 100
"""Of a kept curve; a picture shows no more."""


class SeedSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One run. See `Run` for the fields; the curve is that of the means, thinned."""

    seed: int
    steps_to_target: int | None
    seconds_to_target: float | None
    best_mean: float | None
    threads: int
    load_before: float
    facts: dict[str, float]
    curve: Curve


class SideSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One side, over all seeds.

    Attributes:
        side: Its name.
        reached: Runs that reached the target.
        steps: Median steps to the target; None if half of the runs or more did not reach it.
        seconds: Likewise.
        seeds: Each run.
    """

    side: str
    reached: int
    steps: float | None
    seconds: float | None
    seeds: list[SeedSummary]


class CaseSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One case.

    Attributes:
        case: Its name.
        title: For people.
        environment: Gymnasium's id.
        target: Mean return to reach.
        window: Episodes that the mean is of.
        sides: In the case's order.
    """

    case: str
    title: str
    environment: str
    target: float
    window: int
    sides: list[SideSummary]


def summarise(case: Case, runs: Sequence[Run]) -> CaseSummary:
    """The runs of one case, by side."""
    sides = []
    for side in case.sides:
        own = sorted((r for r in runs if r.side == side.name), key=lambda r: r.seed)
        if own:
            sides.append(
                SideSummary(
                    side=side.name,
                    reached=sum(r.steps_to_target is not None for r in own),
                    steps=_median([r.steps_to_target for r in own]),
                    seconds=_median([r.seconds_to_target for r in own]),
                    seeds=[_seed(r) for r in own],
                )
            )
    return CaseSummary(
        case=case.name,
        title=case.title,
        environment=case.environment,
        target=case.target,
        window=case.window,
        sides=sides,
    )


def _median(values: Sequence[float | None]) -> float | None:
    """A run that did not reach the target would have taken longer than any that did."""
    found = statistics.median(math.inf if v is None else v for v in values)
    return None if math.isinf(found) else float(found)


def _seed(run: Run) -> SeedSummary:
    return SeedSummary(
        seed=run.seed,
        steps_to_target=run.steps_to_target,
        seconds_to_target=None
        if run.seconds_to_target is None
        else round(run.seconds_to_target, 2),
        best_mean=None if run.best_mean is None else round(run.best_mean, 1),
        threads=run.threads,
        load_before=round(run.load_before, 2),
        facts={name: round(value, 3) for name, value in run.facts.items()},
        curve=_thinned(run.curve, run.window),
    )


def _thinned(curve: Curve, window: int) -> Curve:
    """About `POINTS` of the means of `window` episodes (fewer at the beginning), and the last."""
    returns = curve.returns
    means = [statistics.fmean(returns[: i + 1]) for i in range(min(window - 1, len(returns)))]
    means += moving_mean(returns, window)
    stride = max(1, len(means) // POINTS)
    kept = sorted({*range(0, len(means), stride), len(means) - 1}) if means else []
    return Curve(
        steps=[curve.steps[i] for i in kept],
        seconds=[round(curve.seconds[i], 2) for i in kept],
        returns=[round(means[i], 1) for i in kept],
    )
