"""Training in one process, version by version: an algorithm, an environment, and no broker."""

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.algorithms.base import Algorithm, PolicyExport, Sample
from rl4sys_stream.algorithms.registry import make_algorithm
from rl4sys_stream.config import ClientSpec, Hyperparameters
from rl4sys_stream.policy.policy import Policy, UniformPolicy, build_policy
from rl4sys_stream.wire.snapshot import Weights
from rl4sys_stream.wire.trajectory import BehaviorRun, End, Trajectory

__all__ = ["Task", "Version", "train"]

MAX_STEPS: Final = 256
"""Longest trajectory; longer episodes are cut, as agents do it."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is trained.

    Attributes:
        name: Of the run.
        environment: Gymnasium's id.
        spec: Spaces and network.
        parameters: Of the algorithm.
        versions: How many updates.
    """

    name: str
    environment: str
    spec: ClientSpec
    parameters: Hyperparameters
    versions: int


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """What one update left.

    Attributes:
        number: From 1, the initial weights.
        export: What the learner would publish unrounded.
        trajectories: What it was trained on; empty for the first.
        returns: Of the episodes that ended in them.
        steps: Environment steps since the beginning.
    """

    number: int
    export: PolicyExport
    trajectories: tuple[Trajectory, ...]
    returns: tuple[float, ...]
    steps: int


Publish = Callable[[Version], Weights]
"""What agents get of a version."""


class _Player:
    """One environment, played by whatever was published last."""

    def __init__(self, task: Task, seed: int) -> None:
        self._env = gymnasium.make(task.environment)
        self._obs, _ = self._env.reset(seed=seed)
        self._uniform = random.Random(seed).random
        self._episode = self._offset = 0
        self._total = 0.0
        self.policy: Policy = UniformPolicy(task.spec.actions)
        self.returns: list[float] = []

    def close(self) -> None:
        self._env.close()

    def play(self) -> Trajectory:
        """One trajectory: to the end of the episode, or to the longest one."""
        rows: list[tuple[NDArray[np.float32], Any, float, float]] = []
        end, offset = End.CUT, self._offset
        while len(rows) < MAX_STEPS and end is End.CUT:
            obs = np.asarray(self._obs, np.float32)
            raw, log_prob = self.policy.act(obs, None, self._uniform)
            self._obs, reward, terminated, truncated, _ = self._env.step(raw)
            rows.append((obs, raw, float(reward), log_prob))
            self._total += float(reward)
            end = End.TERMINATED if terminated else End.TRUNCATED if truncated else End.CUT
        self._offset += len(rows)
        final = np.asarray(self._obs, np.float32)
        episode = self._episode
        if end is not End.CUT:
            self._obs, _ = self._env.reset()
            self.returns.append(self._total)
            self._episode, self._offset, self._total = episode + 1, 0, 0.0
        observations, actions, rewards, log_probs = zip(*rows, strict=True)
        policy = self.policy
        return Trajectory(
            observations=np.stack(observations),
            actions=np.array(actions),
            rewards=np.array(rewards, np.float32),
            log_probs=np.array(log_probs, np.float32),
            masks=None,
            final_observation=None if end is End.TERMINATED else final,
            end=end,
            behavior=(BehaviorRun(policy.version, policy.token, len(rows)),),
            episode=episode,
            offset=offset,
            created_ms=0,
        )


def train(task: Task, publish: Publish, *, seed: int) -> Iterator[Version]:
    """Play and update in turns; each version is played by as it was published.

    Args:
        task: What is trained.
        publish: Called with each version, the first one included.
        seed: Of weights, environment and actions.
    """
    algorithm: Algorithm = make_algorithm(task.spec, task.parameters, seed=seed)
    with closing(_Player(task, seed)) as player:
        trajectories: list[Trajectory] = []
        steps = 0
        for number in range(1, task.versions + 1):
            export = algorithm.export()
            returns, player.returns = tuple(player.returns), []
            version = Version(number, export, tuple(trajectories), returns, steps)
            weights = publish(version)
            player.policy = build_policy(task.spec, weights, export.extras, number, "t")
            yield version
            trajectories = []
            while not algorithm.ready():
                trajectory = player.play()
                trajectories.append(trajectory)
                steps += len(trajectory.actions)
                algorithm.observe(Sample(trajectory))
            algorithm.update()
