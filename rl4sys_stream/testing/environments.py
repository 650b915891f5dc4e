"""Tasks whose optimum is known, small enough to be learned in seconds through a real broker."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl4sys_stream.spaces import Box, Discrete, MultiDiscrete

__all__ = ["IdentityBox", "IdentityMultiDiscrete", "IdentityTask", "MaskedBandit", "QueuePick"]


@dataclass(frozen=True, slots=True)
class IdentityTask:
    """Observe one of `n` states, one-hot; the right action is the state. Optimum: 1 a step.

    Attributes:
        n: States and actions.
        episode_steps: Steps of an episode.
    """

    n: int = 4
    episode_steps: int = 16

    @property
    def observation_space(self) -> Box:
        """One-hot states."""
        return Box((self.n,))

    @property
    def action_space(self) -> Discrete:
        """One action a state."""
        return Discrete(self.n)

    def observations(self, rng: random.Random) -> Iterator[NDArray[np.float32]]:
        """The states of one episode, `float32 [n]` each."""
        for _ in range(self.episode_steps):
            observation = np.zeros(self.n, np.float32)
            observation[rng.randrange(self.n)] = 1.0
            yield observation

    def reward(self, observation: NDArray[np.float32], action: int) -> float:
        """1 for the right action, 0 for the others."""
        return float(observation[action])


@dataclass(frozen=True, slots=True)
class IdentityMultiDiscrete:
    """Observe some choices at once; the right action is the same ones. Optimum: 1 a step.

    Attributes:
        nvec: How many values each choice has.
        episode_steps: Steps of an episode.
    """

    nvec: tuple[int, ...] = (3, 2)
    episode_steps: int = 16

    @property
    def observation_space(self) -> MultiDiscrete:
        """The choices; the agent makes them one-hot."""
        return MultiDiscrete(self.nvec)

    @property
    def action_space(self) -> MultiDiscrete:
        """The same."""
        return MultiDiscrete(self.nvec)

    def observations(self, rng: random.Random) -> Iterator[NDArray[np.int64]]:
        """The choices of one episode, `int64 [len(nvec)]` each."""
        for _ in range(self.episode_steps):
            yield np.array([rng.randrange(n) for n in self.nvec])

    def reward(self, observation: ArrayLike, action: ArrayLike) -> float:
        """The share of choices that are right."""
        return float(np.equal(observation, action).mean())


@dataclass(frozen=True, slots=True)
class IdentityBox:
    """Observe a point in [-1, 1]^dim; the right action is the point. Optimum: 0 a step.

    Attributes:
        dim: Elements of a point.
        episode_steps: Steps of an episode.
    """

    dim: int = 2
    episode_steps: int = 16

    @property
    def observation_space(self) -> Box:
        """The points."""
        return Box((self.dim,), -1.0, 1.0)

    @property
    def action_space(self) -> Box:
        """The same."""
        return Box((self.dim,), -1.0, 1.0)

    def observations(self, rng: random.Random) -> Iterator[NDArray[np.float32]]:
        """The points of one episode, `float32 [dim]` each."""
        for _ in range(self.episode_steps):
            yield np.array([rng.uniform(-1.0, 1.0) for _ in range(self.dim)], np.float32)

    def reward(self, observation: ArrayLike, action: ArrayLike) -> float:
        """The mean squared distance, negated."""
        return -float(np.square(np.subtract(observation, action)).mean())


@dataclass(frozen=True, slots=True)
class MaskedBandit:
    """Arms that pay their index, of which a random half is allowed each time.

    Optimum: the highest allowed arm, every time. A policy that ignores masks, or a learner that
    treats forbidden actions as possible, does not reach it.

    Attributes:
        arms: Number of arms.
    """

    arms: int = 4

    @property
    def observation_space(self) -> Box:
        """Which arms are allowed."""
        return Box((self.arms,))

    @property
    def action_space(self) -> Discrete:
        """The arms."""
        return Discrete(self.arms)

    def mask(self, rng: random.Random) -> NDArray[np.bool_]:
        """`bool [arms]`, half of them true."""
        mask = np.zeros(self.arms, np.bool_)
        mask[rng.sample(range(self.arms), self.arms // 2)] = True
        return mask

    def reward(self, action: int) -> float:
        """The arm's index, scaled to 0 … 1."""
        return action / (self.arms - 1)

    def best(self, mask: NDArray[np.bool_]) -> int:
        """The highest allowed arm."""
        return int(np.flatnonzero(mask)[-1])


@dataclass(frozen=True, slots=True)
class QueuePick:
    """Pick one of the waiting jobs; the best one has waited longest for its size. Optimum: 1.

    Jobs stand in random places of the queue, the others are padding, and their number changes from
    step to step: what is best shows in a job's features alone.

    Attributes:
        places: Length of the queue.
        episode_steps: Picks of an episode.
    """

    places: int = 12
    episode_steps: int = 16

    @property
    def observation_space(self) -> Box:
        """For each place: how long its job has waited, how large it is, and noise."""
        return Box((self.places, 3))

    @property
    def action_space(self) -> Discrete:
        """The places."""
        return Discrete(self.places)

    def queues(self, rng: random.Random) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        """The queues of one episode: `float32 [places, 3]`, and where jobs are, `bool [places]`."""
        for _ in range(self.episode_steps):
            taken = rng.sample(range(self.places), rng.randint(2, self.places))
            queue = np.zeros((self.places, 3), np.float32)
            for place in taken:
                queue[place] = [rng.random(), rng.random(), rng.gauss(0.0, 1.0)]
            mask = np.zeros(self.places, np.bool_)
            mask[taken] = True
            yield queue, mask

    def merit(self, queue: NDArray[np.float32]) -> NDArray[np.float32]:
        """What decides: waiting time less size, `float32 [places]`."""
        return queue[:, 0] - queue[:, 1]

    def reward(self, queue: NDArray[np.float32], mask: NDArray[np.bool_], action: int) -> float:
        """1 for the best job, 0 for the worst, in between by merit."""
        merits = self.merit(queue)
        low, high = float(merits[mask].min()), float(merits[mask].max())
        return (float(merits[action]) - low) / (high - low)
