"""DQNs, and what they are trained on, for the tests of it."""

from rl4sys_stream.algorithms.base import Sample
from rl4sys_stream.algorithms.dqn import DQN
from rl4sys_stream.config import ClientSpec, DQNParameters, NetworkSpec
from rl4sys_stream.spaces import Box, Discrete
from tests.unit.algorithms.samples import N_ACTIONS, OBS_DIM, random_trajectory, uneven_samples

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


def make_dqn(seed: int = 0, /, **changes: object) -> DQN:
    """A small DQN; `changes` are fields of its parameters."""
    return DQN(SPEC, DQNParameters.from_json({**SMALL.to_json(), **changes}), seed=seed)


def batch_of(seed: int, *, masked: bool = False, steps: int = 35) -> list[Sample]:
    """See `uneven_samples`."""
    return uneven_samples(
        seed,
        lambda rng, length, end: random_trajectory(rng, length, end=end, masked=masked),
        steps,
    )
