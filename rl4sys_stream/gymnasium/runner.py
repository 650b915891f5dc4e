"""Playing: every environment is one open trajectory of one agent."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from rl4sys_stream.agent import ActionHandle, StreamAgent, TrajectoryHandle
from rl4sys_stream.clock import Clock, SystemClock
from rl4sys_stream.errors import UsageError
from rl4sys_stream.gymnasium.environments import Environments
from rl4sys_stream.gymnasium.fleet import Fleet, Moment, make_fleet
from rl4sys_stream.gymnasium.pace import Pace, Pacer

__all__ = ["EpisodeRecord", "Played", "Runner", "play"]

DEFAULT_PACE: Final = Pace()


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRecord:
    """A training episode that has ended.

    Attributes:
        total: Its return, the undiscounted sum of rewards.
        length: Its environment steps.
        terminated: It came to an end of its own; False: it was truncated.
        environment: Which one it was played in, from 0.
        steps: Environment steps of the runner at its end, over all environments.
        elapsed_s: Seconds since the runner's first step.
        version: Model version that chose the last action.
    """

    total: float
    length: int
    terminated: bool
    environment: int
    steps: int
    elapsed_s: float
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What one call played.

    Attributes:
        steps: Environment steps, over all environments.
        episodes: Those that ended, in order.
        waited_s: How long the environments waited for the learner.
        wall_s: How long it took, waits included.
    """

    steps: int
    episodes: tuple[EpisodeRecord, ...]
    waited_s: float
    wall_s: float


class _Seat:
    """One environment's episode in progress."""

    __slots__ = ("action", "length", "moment", "number", "total", "trajectory")

    def __init__(self, number: int, moment: Moment) -> None:
        self.number = number
        self.moment = moment
        self.trajectory: TrajectoryHandle | None = None
        self.action: ActionHandle | None = None
        self.total = 0.0
        self.length = 0


class Runner:
    """Plays environments through an agent, as long as it is told to, in several goes if wanted.

    Rewards are set at once; an ended episode hands over its real last observation, never that of
    the next episode; an environment's `info["action_mask"]` is the mask. Episodes that never end
    are cut by the agent (`agent.max_trajectory_steps`).

    Attributes:
        steps: Environment steps so far, over all environments.
    """

    def __init__(
        self,
        environments: Environments,
        agent: StreamAgent,
        *,
        seed: int | None = None,
        pace: Pace | None = DEFAULT_PACE,
        on_episode: Callable[[EpisodeRecord], None] | None = None,
        stopping: threading.Event | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Prepare; the first `run` resets the environments.

        Args:
            environments: One, a vector environment, a list of them, or an id.
            agent: Acts and records; made with the spaces of one environment.
            seed: Of the first reset; the environments count up from it.
            pace: How far to run ahead of the learner; None never waits, not even for a first model.
            on_episode: Called at the end of each episode, in the thread that plays.
            stopping: Ends `run` when set, also while it waits.
            clock: For what takes time.

        Raises:
            ConfigError: If an id names no environment.
            UsageError: If it is nothing that can be played.
        """
        self._fleet: Fleet = make_fleet(environments)
        self._agent = agent
        self._seed = seed
        self._on_episode = on_episode
        self._stopping = stopping or threading.Event()
        self._clock: Clock = clock or SystemClock()
        self._pacer = (
            None if pace is None else Pacer(pace, agent, stopping=self._stopping, clock=self._clock)
        )
        self._seats: list[_Seat] = []
        self._episodes: list[EpisodeRecord] = []
        self._began = 0.0
        self._handed_over = 0
        self.steps = 0

    def run(self, *, steps: int | None = None, episodes: int | None = None) -> Played:
        """Play until one of the limits, counted from now, or until stopping.

        Episodes that are open at the end go on with the next call.

        Args:
            steps: Environment steps; with N environments it may be up to N − 1 more.
            episodes: Episodes that end; whichever end first, so with several environments short
                ones are more.

        Raises:
            UsageError: If neither limit is given, or the agent refuses what an environment shows.
            ConfigError: If the client is registered with another spec.
        """
        if steps is None and episodes is None:
            raise UsageError("say when to stop: run(steps=...) or run(episodes=...)")
        self.wait_for_model()
        begun, waited_s = self._clock.monotonic(), self.waited_s
        if not self._seats:
            moments = self._fleet.reset(self._seed)
            self._seats = [_Seat(number, moment) for number, moment in enumerate(moments)]
            self._began = begun
        first, self._episodes = self.steps, []
        while (steps is None or self.steps - first < steps) and (
            episodes is None or len(self._episodes) < episodes
        ):
            if self._pacer is not None:
                if self._pacer.has_its_share(self.steps - self._handed_over):
                    self._hand_over()
                self._pacer.wait()
            if self._stopping.is_set():
                break
            self._step()
        return Played(
            steps=self.steps - first,
            episodes=tuple(self._episodes),
            waited_s=self.waited_s - waited_s,
            wall_s=self._clock.monotonic() - begun,
        )

    def wait_for_model(self) -> None:
        """Wait for the agent's first model, or until stopping; `run` does it first.

        Without a pace there is no wait.

        Raises:
            ConfigError: If the client is registered with another spec.
        """
        if self._pacer is not None:
            self._pacer.begin()

    @property
    def waited_s(self) -> float:
        """How long the environments have waited for the learner so far."""
        return 0.0 if self._pacer is None else self._pacer.waited_s

    def close(self) -> None:
        """Truncate what is open, and close environments that were made here from an id.

        The steps of open episodes are handed over; what would have followed, the learner estimates.
        """
        seats, self._seats = self._seats, []
        try:
            for seat in seats:
                # Without a step, where the environment failed at its first: nothing to hand over.
                if seat.trajectory is not None and seat.length:
                    self._agent.mark_end_of_trajectory(
                        seat.trajectory,
                        truncated=True,
                        final_obs=seat.moment.observation,
                        final_mask=seat.moment.mask,
                    )
        finally:
            self._fleet.close()

    def _hand_over(self) -> None:
        """Cut what is open: the learner has its update's steps, none of them of an older policy."""
        self._handed_over = self.steps
        for seat in self._seats:
            if seat.trajectory is not None:
                moment = seat.moment
                self._agent.cut_trajectory(seat.trajectory, moment.observation, moment.mask)

    def _step(self) -> None:
        agent = self._agent
        actions: list[Any] = []
        for seat in self._seats:
            if seat.moment.resets_next:
                actions.append(None)
                continue
            seat.trajectory, seat.action = agent.request_for_action(
                seat.trajectory, seat.moment.observation, seat.moment.mask
            )
            actions.append(seat.action.action)
        for seat, moment in zip(self._seats, self._fleet.step(actions), strict=True):
            if not seat.moment.resets_next:
                self._record(seat, moment)
            seat.moment = moment

    def _record(self, seat: _Seat, moment: Moment) -> None:
        trajectory, action = seat.trajectory, seat.action
        if trajectory is None or action is None:  # both are there: the seat has just acted
            raise UsageError("an environment stepped without an action")
        self._agent.add_to_trajectory(trajectory, action)
        action.update_reward(moment.reward)
        self.steps += 1
        seat.total += moment.reward
        seat.length += 1
        if not moment.ended:
            return
        self._agent.mark_end_of_trajectory(
            trajectory,
            action,
            not moment.terminated,
            final_obs=moment.final_observation,
            final_mask=_said(moment.final_mask),
        )
        record = EpisodeRecord(
            total=seat.total,
            length=seat.length,
            terminated=moment.terminated,
            environment=seat.number,
            steps=self.steps,
            elapsed_s=self._clock.monotonic() - self._began,
            version=action.version,
        )
        seat.trajectory, seat.total, seat.length = None, 0.0, 0
        self._episodes.append(record)
        if self._on_episode is not None:
            self._on_episode(record)


def _said(final_mask: ArrayLike | None) -> ArrayLike | None:
    """The mask of an episode's end; None, too, where an environment forbids all once it is over."""
    return final_mask if np.any(final_mask) else None


def play(
    environments: Environments,
    agent: StreamAgent,
    *,
    steps: int | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    pace: Pace | None = DEFAULT_PACE,
    on_episode: Callable[[EpisodeRecord], None] | None = None,
    stopping: threading.Event | None = None,
) -> Played:
    """Play once, from a reset to a limit; see `Runner` for the arguments.

    What is open at the end is truncated and handed over.

    Raises:
        ConfigError: See `Runner`.
        UsageError: See `Runner.run`.
    """
    runner = Runner(
        environments, agent, seed=seed, pace=pace, on_episode=on_episode, stopping=stopping
    )
    try:
        return runner.run(steps=steps, episodes=episodes)
    finally:
        runner.close()
