"""Trajectories, parameters and specs for the tests of the algorithms."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl4sys_stream.algorithms.base import Algorithm, Sample
from rl4sys_stream.algorithms.ppo import PPO
from rl4sys_stream.config import ClientSpec, NetworkSpec, PPOParameters
from rl4sys_stream.spaces import Box, Discrete
from rl4sys_stream.wire.trajectory import BehaviorRun, End, Trajectory

A = TypeVar("A", bound=Algorithm)

OBS_DIM = 3
N_ACTIONS = 4
SPEC = ClientSpec(
    observation_space=Box((OBS_DIM,)),
    action_space=Discrete(N_ACTIONS),
    network=NetworkSpec(hidden_sizes=(16, 8), critic_hidden_sizes=(12,)),
)
ENDS = (End.TERMINATED, End.TRUNCATED, End.CUT)
SMALL = PPOParameters(n_steps=64, batch_size=16, n_epochs=3)


def f32(values: ArrayLike) -> NDArray[np.float32]:
    """`values` as float32."""
    return np.array(values, np.float32)


def random_trajectory(
    rng: np.random.Generator,
    steps: int,
    *,
    end: End = End.TERMINATED,
    masked: bool = False,
    obs_dim: int = OBS_DIM,
    n_actions: int = N_ACTIONS,
) -> Trajectory:
    """Steps as a uniform policy would have recorded them in a world without sense.

    Masked ones that go on say what is allowed next if their number of steps is odd.
    """
    masks: NDArray[np.bool_] | None = None
    actions = rng.integers(0, n_actions, steps)
    allowed = np.full(steps, n_actions)
    if masked:
        masks = rng.random((steps, n_actions)) < 0.6
        masks[np.arange(steps), actions] = True
        allowed = masks.sum(axis=1)
    final = rng.standard_normal(obs_dim).astype(np.float32)
    goes_on = end is not End.TERMINATED
    return Trajectory(
        observations=rng.standard_normal((steps, obs_dim)).astype(np.float32),
        actions=actions,
        rewards=rng.standard_normal(steps).astype(np.float32),
        log_probs=-np.log(allowed).astype(np.float32),
        masks=masks,
        final_observation=final if goes_on else None,
        final_mask=any_mask(rng, n_actions) if masked and goes_on and steps % 2 else None,
        end=end,
        behavior=(BehaviorRun(1, "token", steps),),
        episode=0,
        offset=0,
        created_ms=0,
    )


def any_mask(rng: np.random.Generator, choices: int) -> NDArray[np.bool_]:
    """Some of the actions are allowed, at least one."""
    mask = rng.random(choices) < 0.5
    mask[rng.integers(choices)] = True
    return mask


def uneven_samples(
    seed: int,
    make: Callable[[np.random.Generator, int, End], Trajectory],
    steps: int,
) -> list[Sample]:
    """`steps` steps in trajectories of all ends and unequal lengths, some of them lagging."""
    rng = np.random.default_rng(seed)
    samples: list[Sample] = []
    while steps > 0:
        length = min(int(rng.integers(1, 16)), steps)
        part = make(rng, length, ENDS[int(rng.integers(3))])
        samples.append(Sample(part, int(rng.integers(20))))
        steps -= length
    return samples


def mixed_samples(seed: int, *, masked: bool = False) -> list[Sample]:
    """69 steps in trajectories of all three ends and unequal lengths, some of them lagging."""
    rng = np.random.default_rng(seed)
    plan = ((20, End.TERMINATED, 0), (1, End.CUT, 1), (31, End.TRUNCATED, 2), (17, End.CUT, 0))
    return [
        Sample(random_trajectory(rng, steps, end=end, masked=masked), lag)
        for steps, end, lag in plan
    ]


def changed(parameters: PPOParameters, **changes: object) -> PPOParameters:
    """`parameters` with some fields replaced, and checked again."""
    return PPOParameters.from_json({**parameters.to_json(), **changes})


def make_ppo(seed: int = 0, **changes: object) -> PPO:
    """A small PPO; `changes` are fields of its parameters."""
    return PPO(SPEC, changed(SMALL, **changes), seed=seed)


def observe_all(algorithm: A, samples: list[Sample]) -> A:
    """`algorithm`, once it has observed `samples`."""
    for sample in samples:
        algorithm.observe(sample)
    return algorithm


def with_rewards(sample: Sample, reward: float | NDArray[np.float32]) -> Sample:
    """`sample` with every reward replaced."""
    rewards = np.full_like(sample.trajectory.rewards, reward)
    return replace(sample, trajectory=replace(sample.trajectory, rewards=rewards))
