"""Evaluation: episodes apart from training, of which nothing is recorded or sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rl4sys_stream.agent import StreamAgent
from rl4sys_stream.errors import UsageError
from rl4sys_stream.gymnasium.environments import Environments
from rl4sys_stream.gymnasium.fleet import Moment, make_fleet

__all__ = ["MAX_STEPS", "Evaluation", "evaluate"]

MAX_STEPS: Final = 10_000
"""A policy that has learned nothing may walk in circles for ever, where no time limit ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a policy earned.

    Attributes:
        returns: Of each episode, undiscounted.
        lengths: Environment steps of each.
        version: Model version that acted last.
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    version: int

    @property
    def mean(self) -> float:
        """Mean return."""
        return sum(self.returns) / len(self.returns)


def evaluate(
    environments: Environments,
    agent: StreamAgent,
    *,
    episodes: int = 10,
    deterministic: bool = True,
    seed: int | None = None,
    max_steps: int = MAX_STEPS,
) -> Evaluation:
    """Let the newest policy play, by `agent.evaluate`.

    Args:
        environments: As for `play`; others than those of training, which it would reset.
        agent: Acts.
        episodes: How many; several environments play equal numbers of them, so that short
            episodes do not count more.
        deterministic: The most probable action each time; False samples.
        seed: Of the first reset.
        max_steps: A longer episode counts with what it has earned so far; the steps after it are
            counted as another one.

    Raises:
        UsageError: If `episodes` or `max_steps` is below 1.
        ConfigError: If an id names no environment.
    """
    if episodes < 1 or max_steps < 1:
        raise UsageError(
            f"episodes and max_steps must be >= 1, not {episodes} and {max_steps}: nothing would "
            "be played"
        )
    fleet = make_fleet(environments)
    try:
        moments = fleet.reset(seed)
        seats = [_Seat(len(range(place, episodes, len(moments)))) for place in range(len(moments))]
        ended: list[tuple[float, int]] = []
        version = 0
        while any(seat.wanted for seat in seats):
            actions, version = _act(agent, moments, version, deterministic=deterministic)
            before, moments = moments, fleet.step(actions)
            for seat, earlier, moment in zip(seats, before, moments, strict=True):
                if not earlier.resets_next:
                    ended += seat.count(moment, max_steps)
    finally:
        fleet.close()
    return Evaluation(
        returns=tuple(total for total, _ in ended),
        lengths=tuple(length for _, length in ended),
        version=version,
    )


class _Seat:
    """One environment's share of the episodes."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self._total, self._length = 0.0, 0

    def count(self, moment: Moment, max_steps: int) -> list[tuple[float, int]]:
        """Add a step; (return, length) of the episode if it is over and still wanted."""
        self._total += moment.reward
        self._length += 1
        if not moment.ended and self._length < max_steps:
            return []
        over = [(self._total, self._length)] if self.wanted else []
        self.wanted -= len(over)
        self._total, self._length = 0.0, 0
        return over


def _act(
    agent: StreamAgent, moments: Sequence[Moment], version: int, *, deterministic: bool
) -> tuple[list[Any], int]:
    actions: list[Any] = []
    for moment in moments:
        if moment.resets_next:
            actions.append(None)
            continue
        choice = agent.evaluate(moment.observation, moment.mask, deterministic=deterministic)
        actions.append(choice.action)
        version = choice.version
    return actions, version
