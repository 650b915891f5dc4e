"""The promotion gate: which version has shown that agents may act by it.

Evidence are the returns of whole episodes that one version alone has acted: on canary agents, which
follow the head, and of the incumbent on all others. It begins anew with each session of a worker.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, Self

from rl4sys_stream.broker.control import Control
from rl4sys_stream.broker.head import Head
from rl4sys_stream.config import WorkerSettings
from rl4sys_stream.wire.format import End
from rl4sys_stream.wire.trajectory import Trajectory

__all__ = ["Evidence", "PromotionGate", "Verdict", "judge"]

WINDOW: Final = 1000
"""Newest episodes of each version that count."""
MAX_OPEN: Final = 10_000
"""Episodes followed at once; the oldest is forgotten beyond it."""

Name = tuple[int, str]
"""(version, token) of a model."""


@dataclass(frozen=True, slots=True)
class PromotionGate:
    """When a version is promoted by the worker itself.

    Attributes:
        margin: A version is promoted if its mean return is at least the incumbent's less this.
        min_episodes: Whole episodes that each of the two must have acted.
    """

    margin: float
    min_episodes: int

    @classmethod
    def of(cls, settings: WorkerSettings) -> Self | None:
        """That of a client, None if only people promote there."""
        if settings.promotion_margin is None:
            return None
        return cls(settings.promotion_margin, settings.promotion_min_episodes)


@dataclass(slots=True)
class _Open:
    """An episode so far."""

    steps: int = 0
    total: float = 0.0
    actors: set[Name] = field(default_factory=set)


class Evidence:
    """Returns of episodes by the version that acted them. Not thread-safe."""

    def __init__(self) -> None:
        """Begin without any."""
        self._returns: dict[Name, deque[float]] = {}
        self._open: dict[str, _Open] = {}

    def witness(self, agent_id: str, trajectory: Trajectory) -> None:
        """Take a trajectory in, whether it is trained on or too old for that.

        An episode counts if all of it came in, in order, and one model acted all of it.
        """
        key = f"{agent_id}/{trajectory.episode}"
        episode = self._open.pop(key, _Open())
        if trajectory.offset != episode.steps:
            return  # its beginning was missed
        episode.steps += len(trajectory.rewards)
        episode.total += float(trajectory.rewards.sum(dtype="float64"))
        episode.actors |= {(run.version, run.token) for run in trajectory.behavior}
        if trajectory.end is End.CUT:
            self._open[key] = episode
            while len(self._open) > MAX_OPEN:
                del self._open[next(iter(self._open))]
        elif len(episode.actors) == 1:
            (name,) = episode.actors
            self._returns.setdefault(name, deque(maxlen=WINDOW)).append(episode.total)

    def forget_all_but(self, names: Collection[Name]) -> None:
        """Keep what concerns these versions; agents never act by the others again."""
        self._returns = {name: found for name, found in self._returns.items() if name in names}

    def episodes(self, name: Name) -> int:
        """How many episodes of a version count."""
        return len(self._returns.get(name, ()))

    def mean(self, name: Name) -> float:
        """Their mean return; there must be one."""
        returns = self._returns[name]
        return sum(returns) / len(returns)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A version to be promoted.

    Attributes:
        version: Of the model.
        reason: The figures that speak for it.
    """

    version: int
    reason: str


def judge(gate: PromotionGate, control: Control, head: Head, evidence: Evidence) -> Verdict | None:
    """The newest version with enough evidence that it is not worse than the incumbent.

    Args:
        gate: Margin and number of episodes.
        control: Names the incumbent; without one, enough evidence is enough.
        head: Lists the versions.
        evidence: So far.

    Returns:
        None if there is no such version.
    """
    incumbent = control.promoted
    names = [(entry.version, entry.token) for entry in head.manifest]
    evidence.forget_all_but(names)
    floor, beside = float("-inf"), ""
    if incumbent is not None:
        name = (incumbent.version, incumbent.token)
        if evidence.episodes(name) < gate.min_episodes:
            return None
        floor = evidence.mean(name) - gate.margin
        beside = (
            f"; version {incumbent.version}: {evidence.mean(name):.6g} over "
            f"{evidence.episodes(name)}"
        )
    for version, token in reversed(names):
        if incumbent is not None and version <= incumbent.version:
            return None
        count = evidence.episodes((version, token))
        if count >= gate.min_episodes and evidence.mean((version, token)) >= floor:
            mean = evidence.mean((version, token))
            return Verdict(version, f"mean return {mean:.6g} over {count} episodes{beside}")
    return None
