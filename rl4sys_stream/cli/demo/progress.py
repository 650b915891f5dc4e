"""How the run is going: what applications and broker said, put together for display and files."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from rl4sys_stream.cli.demo.messages import Episode, Evaluated, Finished

__all__ = ["WINDOW", "EpisodePoint", "Progress", "VersionPoint"]

WINDOW: Final = 100
"""Episodes whose mean return decides, as usual."""
SPEED_WINDOW_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class EpisodePoint:
    """One training episode.

    Attributes:
        steps: Environment steps, over all applications, at its end.
        total: Its return.
        length: Its environment steps.
        mean: Mean return of the last 100 episodes, or of all if there are fewer.
    """

    steps: int
    total: float
    length: int
    mean: float


@dataclass(frozen=True, slots=True)
class VersionPoint:
    """One model version.

    Attributes:
        version: Its number.
        trained_steps: Environment steps that the learner had taken in.
        lag: Mean policy lag of what it was trained on, in versions.
        metrics: All that the worker said about it.
    """

    version: int
    trained_steps: int
    lag: float
    metrics: dict[str, float]


@dataclass(slots=True)
class Progress:
    """Grows while the run lasts; used by one thread.

    Attributes:
        phase: What is being done, in words.
        episodes: Training episodes in the order of their arrival.
        versions: Model versions in order.
        version: Newest committed version.
        backlog: Unsettled entries in the stream.
        trained_steps: Environment steps of this run's agents that were trained on.
        evaluated: Greedy episodes after training.
        finished: Last words of the applications.
        worker: State of the worker, "" before it said any.
        trouble: What somebody should look at, "" if nothing.
        target_steps: Environment steps at which the target was reached first; None before.
    """

    phase: str = "starting"
    episodes: list[EpisodePoint] = field(default_factory=list)
    versions: list[VersionPoint] = field(default_factory=list)
    version: int = 0
    backlog: int = 0
    trained_steps: int = 0
    evaluated: Evaluated | None = None
    finished: list[Finished] = field(default_factory=list)
    worker: str = ""
    trouble: str = ""
    target_steps: int | None = None
    _window: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _steps_of: dict[int, int] = field(default_factory=dict)
    _times: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def steps(self) -> int:
        """Environment steps in ended episodes, over all applications."""
        return sum(self._steps_of.values())

    @property
    def mean_return(self) -> float | None:
        """Mean return of the last episodes, at most 100; None before the first."""
        return self.episodes[-1].mean if self.episodes else None

    @property
    def trained_share(self) -> float:
        """Of the steps so far, those trained on: 0 … 1."""
        return min(self.trained_steps / self.steps, 1.0) if self.steps else 0.0

    @property
    def lag(self) -> float:
        """Policy lag of the newest version's rollout."""
        return self.versions[-1].lag if self.versions else 0.0

    def add_episode(
        self, application: int, episode: Episode, *, target: float | None, now: float
    ) -> None:
        """Count an episode of one application; `now` in monotonic seconds."""
        self._window.append(episode.total)
        self._steps_of[application] = episode.steps
        mean = sum(self._window) / len(self._window)
        point = EpisodePoint(self.steps, episode.total, episode.length, mean)
        self.episodes.append(point)
        self._times.append((now, point.steps))
        reached = target is not None and len(self._window) == WINDOW and mean >= target
        if reached and self.target_steps is None:
            self.target_steps = point.steps

    def steps_per_s(self, now: float) -> float:
        """Environment steps a second over the last seconds."""
        while len(self._times) > 1 and now - self._times[0][0] > SPEED_WINDOW_S:
            self._times.popleft()
        if len(self._times) < 2:  # noqa: PLR2004 - a rate needs two points
            return 0.0
        (begun, first), last = self._times[0], self._times[-1][1]
        return (last - first) / max(now - begun, 1e-3)
