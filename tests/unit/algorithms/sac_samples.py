"""SACs, and what they are trained on, for the tests of it."""

from dataclasses import replace

import numpy as np

from rl4sys_stream.algorithms.base import Sample
from rl4sys_stream.algorithms.sac import SAC
from rl4sys_stream.config import ClientSpec, NetworkSpec, SACParameters
from rl4sys_stream.spaces import Box
from rl4sys_stream.wire.trajectory import End, Trajectory
from tests.unit.algorithms.samples import OBS_DIM, random_trajectory, uneven_samples

ACTION_DIM = 2
SPEC = ClientSpec(
    algorithm="SAC",
    observation_space=Box((OBS_DIM,)),
    action_space=Box((ACTION_DIM,), -2.0, 3.0),
    network=NetworkSpec(hidden_sizes=(16, 8), critic_hidden_sizes=(12, 10), activation="relu"),
)
SMALL = SACParameters(
    learning_rate=1e-2,
    buffer_size=150,
    batch_size=16,
    learning_starts=20,
    train_freq=4,
    gradient_steps=2,
    update_steps=30,
    tau=0.05,
)


def make_sac(seed: int = 0, /, **changes: object) -> SAC:
    """A small SAC; `changes` are fields of its parameters."""
    return SAC(SPEC, SACParameters.from_json({**SMALL.to_json(), **changes}), seed=seed)


def real_valued_trajectory(
    rng: np.random.Generator, steps: int, end: End = End.TERMINATED
) -> Trajectory:
    """Steps of an actor that looks at nothing, in a world without sense."""
    return replace(
        random_trajectory(rng, steps, end=end, obs_dim=OBS_DIM),
        actions=rng.standard_normal((steps, ACTION_DIM)).astype(np.float32),
        log_probs=np.full(steps, -2.0, np.float32),
    )


def batch_of(seed: int, *, steps: int = 35) -> list[Sample]:
    """See `uneven_samples`."""
    return uneven_samples(seed, real_valued_trajectory, steps)
