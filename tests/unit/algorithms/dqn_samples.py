"""DQNs, and what they are trained on, for the tests of it."""

import numpy as np

from rl4sys_stream.algorithms.base import Sample
from rl4sys_stream.algorithms.dqn import DQN
from rl4sys_stream.config import ClientSpec, DQNParameters, NetworkSpec
from rl4sys_stream.spaces import Box, Discrete
from rl4sys_stream.wire.trajectory import End
from tests.unit.algorithms.samples import N_ACTIONS, OBS_DIM, random_trajectory

SPEC = ClientSpec(
    algorithm="DQN",
    observation_space=Box((OBS_DIM,)),
    action_space=Discrete(N_ACTIONS),
    network=NetworkSpec(hidden_sizes=(16, 8), activation="relu"),
)
SMALL = DQNParameters(
    total_timesteps=1000,
    learning_rate=1e-2,
    buffer_size=150,
    batch_size=16,
    learning_starts=20,
    train_freq=4,
    gradient_steps=2,
    update_steps=30,
    target_update_interval=10,
)
ENDS = (End.TERMINATED, End.TRUNCATED, End.CUT)


def make_dqn(seed: int = 0, /, **changes: object) -> DQN:
    """A small DQN; `changes` are fields of its parameters."""
    return DQN(SPEC, DQNParameters.from_json({**SMALL.to_json(), **changes}), seed=seed)


def batch_of(seed: int, *, masked: bool = False, steps: int = 35) -> list[Sample]:
    """About `steps` steps in trajectories of all ends and unequal lengths, some of them lagging."""
    rng = np.random.default_rng(seed)
    samples: list[Sample] = []
    while steps > 0:
        length = min(int(rng.integers(1, 16)), steps)
        end = ENDS[int(rng.integers(3))]
        part = random_trajectory(rng, length, end=end, masked=masked)
        samples.append(Sample(part, int(rng.integers(20))))
        steps -= length
    return samples


def observe_all(dqn: DQN, samples: list[Sample]) -> DQN:
    """`dqn`, once it has observed `samples`."""
    for sample in samples:
        dqn.observe(sample)
    return dqn
