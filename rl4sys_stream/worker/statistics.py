"""Returns and lengths of episodes, put together from the trajectories that were trained on."""

from collections import deque
from typing import Annotated

import msgspec

from rl4sys_stream.wire.format import MAX_EXACT_INTEGER, End
from rl4sys_stream.wire.json import decode_json
from rl4sys_stream.wire.trajectory import Trajectory

__all__ = ["RolloutStatistics"]

WINDOW = 100
MAX_OPEN = 10_000
"""Episodes followed at once; the oldest is forgotten beyond it (an agent that went away)."""


Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_EXACT_INTEGER)]


class _Stored(msgspec.Struct, frozen=True):
    episodes: Count
    returns: Annotated[list[float], msgspec.Meta(max_length=WINDOW)]
    lengths: Annotated[list[Count], msgspec.Meta(max_length=WINDOW)]
    open: Annotated[dict[str, tuple[float, Count]], msgspec.Meta(max_length=MAX_OPEN)]


class RolloutStatistics:
    """Mean return and length of the last 100 episodes; part of the checkpoint."""

    def __init__(self) -> None:
        """Begin with no episode."""
        self.episodes = 0
        self._returns: deque[float] = deque(maxlen=WINDOW)
        self._lengths: deque[int] = deque(maxlen=WINDOW)
        self._open: dict[str, tuple[float, int]] = {}

    def add(self, agent_id: str, trajectory: Trajectory) -> None:
        """Count one trained trajectory; an episode may arrive in several, in any order."""
        key = f"{agent_id}/{trajectory.episode}"
        total, length = self._open.pop(key, (0.0, 0))
        total += float(trajectory.rewards.sum(dtype="float64"))
        length += len(trajectory.rewards)
        if trajectory.end is End.CUT:
            self._open[key] = (total, length)
            while len(self._open) > MAX_OPEN:
                del self._open[next(iter(self._open))]
            return
        self.episodes += 1
        self._returns.append(total)
        self._lengths.append(length)

    def metrics(self) -> dict[str, float]:
        """Under Stable-Baselines3's names; the means are left out before the first episode."""
        found: dict[str, float] = {"rollout/episodes": self.episodes}
        if self._returns:
            found["rollout/ep_rew_mean"] = sum(self._returns) / len(self._returns)
            found["rollout/ep_len_mean"] = sum(self._lengths) / len(self._lengths)
        return found

    def to_bytes(self) -> bytes:
        """For the checkpoint."""
        return msgspec.json.encode(
            _Stored(self.episodes, list(self._returns), list(self._lengths), self._open)
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "RolloutStatistics":
        """Continue what `to_bytes` wrote.

        Raises:
            WireFormatError: If it is not that.
        """
        stored = decode_json(data, _Stored, "the statistics")
        statistics = cls()
        statistics.episodes = stored.episodes
        statistics._returns.extend(stored.returns)
        statistics._lengths.extend(stored.lengths)
        statistics._open.update(stored.open)
        return statistics
