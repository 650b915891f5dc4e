"""What a run leaves behind, and when it counts as learned: the same for every side."""

import hashlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.learning.cases import Case, Side

__all__ = ["Curve", "EpisodeLog", "Run", "fingerprint", "moving_mean", "read_run", "write_run"]


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """Training episodes in the order in which they ended.

    Attributes:
        steps: Environment steps, over all environments, when each ended.
        seconds: Since the first step of all.
        returns: Undiscounted sum of the rewards of each.
    """

    steps: list[int]
    seconds: list[float]
    returns: list[float]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One side's attempt at one case with one seed.

    Attributes:
        case: Its name.
        side: Its name.
        seed: Of environments, networks and draws.
        settings: Fingerprint of the case and the side; another one is another experiment.
        target: Of the case.
        window: Of the case.
        steps_to_target: Environment steps when the mean reached the target; None: it did not.
        seconds_to_target: Likewise, seconds since the first step.
        best_mean: Highest mean of `window` episodes; None with fewer episodes.
        threads: Of torch in the learner.
        load_before: Load average of one minute when the run began: was it alone?
        facts: Further figures of the side: versions, seconds waited, share of steps trained on.
        curve: All episodes.
    """

    case: str
    side: str
    seed: int
    settings: str
    target: float
    window: int
    steps_to_target: int | None
    seconds_to_target: float | None
    best_mean: float | None
    threads: int
    load_before: float
    facts: dict[str, float]
    curve: Curve


class EpisodeLog:
    """Collects episodes and says when the target is reached.

    Attributes:
        reached: Whether the mean of the last `window` episodes has been at the target.
    """

    def __init__(self, *, target: float, window: int) -> None:
        self._target = target
        self._recent: deque[float] = deque(maxlen=window)
        self.reached = False
        self.steps: list[int] = []
        self.seconds: list[float] = []
        self.returns: list[float] = []

    def add(self, *, steps: int, seconds: float, total: float) -> bool:
        """Note an episode's end; whether the target is reached by now."""
        self.steps.append(steps)
        self.seconds.append(seconds)
        self.returns.append(total)
        self._recent.append(total)
        full = len(self._recent) == self._recent.maxlen
        self.reached |= full and sum(self._recent) / len(self._recent) >= self._target
        return self.reached

    def curve(self) -> Curve:
        """What was noted."""
        return Curve(steps=self.steps, seconds=self.seconds, returns=self.returns)


def make_run(
    case: Case,
    side: Side,
    *,
    seed: int,
    budget: int,
    threads: int,
    load_before: float,
    facts: dict[str, float],
    curve: Curve,
) -> Run:
    """The run that left `curve`."""
    means = moving_mean(curve.returns, case.window)
    learned = [i for i, mean in enumerate(means, case.window - 1) if mean >= case.target]
    at = learned[0] if learned else None
    return Run(
        case=case.name,
        side=side.name,
        seed=seed,
        settings=fingerprint(case, side, budget),
        target=case.target,
        window=case.window,
        steps_to_target=None if at is None else curve.steps[at],
        seconds_to_target=None if at is None else curve.seconds[at],
        best_mean=max(means, default=None),
        threads=threads,
        load_before=load_before,
        facts=facts,
        curve=curve,
    )


def moving_mean(returns: Sequence[float], window: int) -> list[float]:
    """Means of each `window` consecutive returns, [] where there are fewer."""
    if len(returns) < window:
        return []
    sums = np.cumsum(np.concatenate([[0.0], np.asarray(returns, np.float64)]))
    means: list[float] = ((sums[window:] - sums[:-window]) / window).tolist()
    return means


def fingerprint(case: Case, side: Side, budget: int) -> str:
    """Of everything that decides what a run does, but its seed."""
    settled = (case.environment, case.target, case.window, budget, type(side).__name__, side)
    encoded = msgspec.json.encode(settled, order="sorted")
    return hashlib.sha256(encoded).hexdigest()[:16]


def write_run(path: Path, run: Run) -> None:
    """Keep a run; half a file is never left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(run) + b"\n")
    part.replace(path)


def read_run(path: Path) -> Run | None:
    """What `write_run` kept; None if there is nothing."""
    if not path.exists():
        return None
    return msgspec.json.decode(path.read_bytes(), type=Run)
