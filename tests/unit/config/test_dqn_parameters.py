"""Hyperparameters of DQN: schedules, cadence, and what is refused together."""

import inspect
from typing import Any

import pytest
import stable_baselines3

from rl4sys_stream.config import DQNParameters, find_algorithm
from rl4sys_stream.errors import ConfigError


def parameters(**changes: Any) -> DQNParameters:
    """Defaults, with the end of the schedules that DQN cannot do without."""
    return DQNParameters(**{"total_timesteps": 1000, **changes})


def test_the_defaults_are_those_of_stable_baselines3():
    """Where both have the setting, and but for the name of the returns' steps."""
    theirs = inspect.signature(stable_baselines3.DQN).parameters
    ours = parameters()
    shared = [name for name in ours.__struct_fields__ if name in theirs and name != "seed"]
    assert len(shared) == 13
    for name in shared:
        assert getattr(ours, name) == theirs[name].default, name
    assert ours.n_step == theirs["n_steps"].default


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"buffer_size": 99, "batch_size": 100}, "batch_size", "<= buffer_size, which is 99"),
        ({"buffer_size": 63}, "update_steps", "update_steps must be <= buffer_size, which is 63"),
        (
            {"buffer_size": 99},
            "learning_starts",
            "learning_starts must be <= buffer_size, which is 99",
        ),
        ({"gradient_steps": 0}, "gradient_steps", "gradient_steps must be >= 1, or -1"),
        (
            {"exploration_initial_eps": 0.1, "exploration_final_eps": 0.2},
            "exploration_final_eps",
            "must be <= exploration_initial_eps, which is 0.1",
        ),
        ({"total_timesteps": None}, "total_timesteps", "set total_timesteps"),
        (
            {"learning_rate_schedule": "linear", "total_timesteps": None},
            "learning_rate_schedule",
            "set total_timesteps",
        ),
        (
            {
                "total_timesteps": None,
                "prioritized_replay": True,
                "exploration_initial_eps": 0.1,
                "exploration_final_eps": 0.1,
            },
            "total_timesteps",
            "prioritized_replay become whole at total_timesteps",
        ),
        (
            {"learning_starts": 2000},
            "total_timesteps",
            "is due at environment step 2004, and total_timesteps must be > 2004; not 1000",
        ),
        (
            {"train_freq": 1000, "exploration_initial_eps": 0.05, "prioritized_replay": True},
            "total_timesteps",
            "with learning_starts 100 and train_freq 1000",
        ),
    ],
)
def test_settings_that_cannot_work_together_are_refused(changes, path, words):
    """With the inequality in words, at one of its sides."""
    with pytest.raises(ConfigError) as caught:
        parameters(**changes)
    assert caught.value.path == path
    assert words in str(caught.value)


@pytest.mark.parametrize("fields", [{"n_step": 0}, {"tau": 0}, {"gradient_steps": -2}])
def test_values_out_of_range_are_refused(fields):
    """Each by itself."""
    (name,) = fields
    with pytest.raises(ConfigError, match="expected") as caught:
        DQNParameters.from_json({"total_timesteps": 1, **fields})
    assert caught.value.path == f"algorithm_parameters.{name}"


def test_a_constant_exploration_needs_no_end():
    """An application that runs for ever has none."""
    constant = parameters(total_timesteps=None, exploration_initial_eps=0.05)
    assert [constant.epsilon_at(step) for step in (0, 10**9)] == [0.05, 0.05]
    assert constant.unread() == {}
    stated = parameters(exploration_initial_eps=0.05)
    assert list(stated.unread()) == ["total_timesteps"]
    assert parameters(learning_starts=2000, exploration_initial_eps=0.05).total_timesteps == 1000


def test_the_first_gradient_step_is_the_first_that_is_due():
    """What schedules are held against."""
    for starts, freq in ((0, 1), (0, 4), (3, 4), (4, 4), (100, 7)):
        cadence = parameters(learning_starts=starts, train_freq=freq)
        due = [step for step in range(1, 200) if cadence.gradient_steps_at(step)]
        assert cadence.first_gradient_step == due[0]


def test_what_nothing_reads_is_named():
    """Each with the switch that it waits for; as defaults they are nobody's words."""
    priorities = {"prioritized_replay_alpha": 0.5, "prioritized_replay_beta0": 0.5}
    assert parameters().unread() == {}
    assert parameters(**priorities, prioritized_replay=True).unread() == {}
    assert parameters(**priorities, clip_observations=5.0).unread() == {
        "prioritized_replay_alpha": "nothing reads it while prioritized_replay is false",
        "prioritized_replay_beta0": "nothing reads it while prioritized_replay is false",
        "clip_observations": "nothing reads it while normalize_observations is false",
    }
    assert parameters(clip_observations=5.0, normalize_observations=True).unread() == {}


def test_exploration_falls_linearly_and_stays():
    """As in Stable-Baselines3: over a share of all steps."""
    schedule = parameters(exploration_fraction=0.5, exploration_final_eps=0.1)
    epsilons = [schedule.epsilon_at(step) for step in (0, 250, 500, 501, 10**6)]
    assert epsilons == pytest.approx([1.0, 0.55, 0.1, 0.1, 0.1])
    assert parameters(exploration_fraction=0.0).epsilon_at(0) == 0.05


def test_importance_weights_become_whole():
    """β rises from β0 to 1 over all steps."""
    betas = [parameters().beta_at(step) for step in (0, 500, 1000, 2000)]
    assert betas == pytest.approx([0.4, 0.7, 1.0, 1.0])


def test_gradient_steps_are_due_by_the_count_of_steps():
    """Nothing until learning has started; -1 is as many as have arrived since."""
    cadence = parameters(train_freq=4, gradient_steps=-1, learning_starts=8)
    assert [cadence.gradient_steps_at(step) for step in range(1, 17)] == [0] * 11 + [4, 0, 0, 0, 4]


def test_the_learning_rate_falls_to_nothing():
    """And not below."""
    falling = parameters(learning_rate=1.0, learning_rate_schedule="linear")
    rates = [falling.learning_rate_at(step) for step in (0, 250, 1000, 2000)]
    assert rates == [1.0, 0.75, 0.0, 0.0]
    assert parameters().learning_rate_at(999) == 1e-4


def test_an_update_takes_update_steps_and_the_buffer_its_size():
    """What the worker plans with."""
    assert parameters(update_steps=77).steps_per_update == 77
    assert parameters(buffer_size=7777).replayed_steps == 7777
    assert not find_algorithm("DQN").on_policy
