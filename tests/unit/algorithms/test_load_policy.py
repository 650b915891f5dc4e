"""Beginning with the actor of another training: the same policy, and all else as it was drawn."""

import numpy as np
import pytest

from rl4sys_stream.algorithms.base import Algorithm
from rl4sys_stream.algorithms.registry import make_algorithm
from rl4sys_stream.config import (
    ClientSpec,
    DQNParameters,
    Hyperparameters,
    NetworkSpec,
    PPOParameters,
    SACParameters,
)
from rl4sys_stream.errors import ConfigError, WireFormatError
from rl4sys_stream.spaces import Box, Discrete

BOX = Box((2,), low=-1.0, high=1.0)


def learner(
    algorithm: str, *, seed: int, hidden: tuple[int, ...] = (8, 8), **parameters: object
) -> Algorithm:
    """One with three observations."""
    kinds: dict[str, type[Hyperparameters]] = {
        "PPO": PPOParameters,
        "DQN": DQNParameters,
        "SAC": SACParameters,
    }
    if algorithm == "DQN":
        parameters = {"total_timesteps": 10_000, "buffer_size": 10_000, **parameters}
    if algorithm == "SAC":
        parameters = {"buffer_size": 10_000, **parameters}
    spec = ClientSpec(
        algorithm=algorithm,
        observation_space=Box((3,)),
        action_space=BOX if algorithm == "SAC" else Discrete(2),
        network=NetworkSpec(hidden_sizes=hidden),
    )
    return make_algorithm(spec, kinds[algorithm](**parameters), seed=seed)


@pytest.mark.parametrize(
    ("algorithm", "parameters"),
    [
        ("PPO", {}),
        ("PPO", {"normalize_observations": True}),
        ("DQN", {"dueling": True}),
        ("SAC", {}),
    ],
)
def test_the_policy_is_that_of_the_other_training(algorithm, parameters):
    """Its weights bit for bit; the critic, the optimizer and the random numbers stay."""
    teacher = learner(algorithm, seed=1, **parameters)
    pupil = learner(algorithm, seed=2, **parameters)
    before = pupil.state()
    taught = teacher.export()
    pupil.load_policy(taught)
    assert pupil.export().weights.flat.tobytes() == taught.weights.flat.tobytes()
    after = pupil.state()
    changed = {
        name
        for name, array in after.arrays.items()
        if not np.array_equal(array, before.arrays[name])
    }
    assert "pi" in changed
    assert changed <= {"pi", "target", "observations.variance"}


def test_a_normalisation_goes_on_from_what_was_published():
    """So that it acts alike, and is not swept away by the first rollout."""
    teacher = learner("PPO", seed=1, normalize_observations=True)
    statistics = teacher._statistics["observations"]
    statistics.update(np.random.default_rng(0).normal(3.0, 2.0, (500, 3)))
    pupil = learner("PPO", seed=2, normalize_observations=True)
    pupil.load_policy(teacher.export())
    ours, theirs = pupil.export().extras.normalization, teacher.export().extras.normalization
    assert ours is not None
    assert theirs is not None
    assert np.array_equal(ours.mean, theirs.mean)
    np.testing.assert_allclose(ours.scale, theirs.scale, rtol=1e-6)


def test_a_policy_of_another_network_is_refused_and_changes_nothing():
    """By the names of the tensors."""
    pupil = learner("PPO", seed=2)
    before = pupil.export().weights.flat.tobytes()
    with pytest.raises(WireFormatError, match=r"another network's: pi.0.bias, pi.0.weight"):
        pupil.load_policy(learner("PPO", seed=1, hidden=(4, 8)).export())
    assert pupil.export().weights.flat.tobytes() == before


@pytest.mark.parametrize("with_it", [True, False])
def test_a_policy_that_sees_other_observations_is_refused(with_it):
    """It would act blindly; the message names the setting."""
    teacher = learner("PPO", seed=1, normalize_observations=with_it)
    pupil = learner("PPO", seed=2, normalize_observations=not with_it)
    with pytest.raises(
        ConfigError, match=f"normalize_observations.*set it to {str(with_it).lower()}"
    ):
        pupil.load_policy(teacher.export())
