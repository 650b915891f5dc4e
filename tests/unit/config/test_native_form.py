"""The native JSON form and the RL4Sys README's, which is part of it."""

import json
from pathlib import Path

import pytest

from rl4sys_stream.config import (
    ClientSpec,
    DQNParameters,
    NetworkSpec,
    PPOParameters,
    load_config,
)
from rl4sys_stream.config.forms import PARAMETER_ALIASES
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.spaces import Box, Discrete, space_from_json

DATA = Path(__file__).parent / "data"


def test_the_readme_example_loads_unchanged():
    """Literally the README's text; what it lacks stays open."""
    config = load_config(DATA / "readme_example.json", environ={})
    parameters = config.parameters
    assert isinstance(parameters, PPOParameters)
    assert (config.client_id, config.observation_space, config.action_space) == (None,) * 3
    assert config.algorithm == "PPO"
    assert parameters.learning_rate == 0.0003
    assert (parameters.gamma, parameters.gae_lambda) == (0.99, 0.95)
    assert (parameters.clip_range, parameters.ent_coef, parameters.target_kl) == (0.2, 0.01, 0.01)
    assert (parameters.batch_size, parameters.n_epochs) == (64, 10)
    assert config.network == NetworkSpec(hidden_sizes=(64, 64), activation="tanh")
    assert config.redis_url == "redis://localhost:50051"
    assert config.timeout_s == 10


def test_every_key_of_the_readme_example_is_accounted_for():
    """Stated settings are as many as the example has keys: none was silently ignored."""
    document = json.loads((DATA / "readme_example.json").read_text())
    leaves = sum(len(part) if isinstance(part, dict) else 1 for part in document.values())
    config = load_config(DATA / "readme_example.json", environ={})
    assert len(config.stated) == leaves
    assert config.notices == (
        "algorithm_parameters.clip_ratio is read as algorithm_parameters.clip_range",
        "algorithm_parameters.entropy_coef is read as algorithm_parameters.ent_coef",
        "training.epochs is read as algorithm_parameters.n_epochs",
        "communication.server_address is read as communication.redis_url",
    )


def test_all_sections_together(load):
    """One file serves both sides."""
    config = load(
        {
            "client_id": "pendulum",
            "algorithm": "PPO",
            "algorithm_parameters": {"gamma": 0.9, "critic_learning_rate": 1e-3},
            "network_architecture": {"hidden_sizes": [32], "critic_hidden_sizes": [128, 128]},
            "training": {"n_steps": 512, "n_epochs": 4},
            "communication": {"redis_url": "redis://broker:6380/2", "timeout_s": 2},
            "observation_space": {"type": "box", "shape": [3], "low": -1, "high": 1},
            "action_space": {"type": "discrete", "n": 5},
            "agent": {"max_trajectory_steps": 128},
            "worker": {"max_policy_lag": 4},
        }
    )
    assert config.client_id == "pendulum"
    assert (config.parameters.gamma, config.parameters.critic_learning_rate) == (0.9, 1e-3)
    assert (config.parameters.n_steps, config.parameters.n_epochs) == (512, 4)
    assert config.network == NetworkSpec(hidden_sizes=(32,), critic_hidden_sizes=(128, 128))
    assert (config.redis_url, config.timeout_s) == ("redis://broker:6380/2", 2)
    assert config.observation_space == Box((3,), -1.0, 1.0)
    assert config.action_space == Discrete(5)
    assert config.agent.max_trajectory_steps == 128
    assert config.worker.max_policy_lag == 4
    assert config.notices == ("communication.timeout_s is read as communication.timeout",)


def test_the_readme_form_names_dqn_as_well(load):
    """The same keys, as far as DQN has what they say."""
    document = json.loads((DATA / "readme_example.json").read_text())
    config = load(
        {
            "algorithm": "DQN",
            "algorithm_parameters": {"lr": 1e-3, "gamma": 0.98, "double_q": True},
            "network_architecture": document["network_architecture"],
            "training": {"batch_size": 64, "buffer_size": 10_000, "total_timesteps": 50_000},
            "communication": document["communication"],
        }
    )
    parameters = config.parameters
    assert isinstance(parameters, DQNParameters)
    assert (parameters.learning_rate, parameters.gamma, parameters.double_q) == (1e-3, 0.98, True)
    assert (parameters.batch_size, parameters.buffer_size) == (64, 10_000)
    assert parameters.total_timesteps == 50_000
    assert config.notices[0] == (
        "algorithm_parameters.lr is read as algorithm_parameters.learning_rate"
    )


@pytest.mark.parametrize(("alias", "name"), PARAMETER_ALIASES.items())
def test_aliases_are_read_as_the_name_they_stand_for_and_say_so(load, alias, name):
    """Both spellings give the same parameters; the alias leaves a notice."""
    value = name == "normalize_advantage" or (3 if name == "n_epochs" else 0.125)
    by_alias = load({"algorithm_parameters": {alias: value}})
    assert by_alias.parameters == load({"algorithm_parameters": {name: value}}).parameters
    assert by_alias.notices == (
        f"algorithm_parameters.{alias} is read as algorithm_parameters.{name}",
    )


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        ({"algorithms": "PPO"}, "algorithms", "did you mean 'algorithm'"),
        ({"train_ing": {}}, "train_ing", "did you mean 'training'"),
        ({"client": "x", "algorithm": "PPO"}, "client", "did you mean 'client_id'"),
        (
            {"algorithm_parameters": {"clip_rnge": 0.1}},
            "algorithm_parameters.clip_rnge",
            "did you mean 'clip_range'",
        ),
        ({"training": {"batchsize": 2}}, "training.batchsize", "did you mean 'batch_size'"),
        ({"training": {"gamma": 0.9}}, "training.gamma", "it belongs to 'algorithm_parameters'"),
        ({"agent": {"lease_s": 9}}, "agent.lease_s", "it belongs to 'worker'"),
        ({"agent": {"timeout": 9}}, "agent.timeout", "it belongs to 'communication'"),
        ({"agent": {"queue": 9}}, "agent.queue", "unknown key"),
        ({"communication": {"addr_ess": "x"}}, "communication.addr_ess", "unknown key"),
        ({"agent": 3}, "agent", "expected an object"),
        ({"training": {"epochs": 0}}, "training.epochs", "an integer >= 1, not 0"),
        ({"training": {"epochs": "3"}}, "training.epochs", "an integer >= 1, not '3'"),
        (
            {"algorithm_parameters": {"clip_ratio": None}},
            "algorithm_parameters.clip_ratio",
            "a number > 0, not null",
        ),
        ({"communication": {"timeout": 0}}, "communication.timeout", "a number > 0, not 0"),
        ({"agent": {"drop_policy": "wait"}}, "agent.drop_policy", "not 'wait'"),
        ({"agent": {"seed": True}}, "agent.seed", "not true"),
        ({"worker": {"lease_s": 0}}, "worker.lease_s", "a number > 0, not 0"),
        (
            {"network_architecture": {"hidden_sizes": 64}},
            "network_architecture.hidden_sizes",
            "a list, each element an integer >= 1 and <= 65536, not 64",
        ),
        ({"client_id": "a b"}, "client_id", "1 to 64 letters"),
        ({"client_id": "../x"}, "client_id", "1 to 64 letters"),
        ({"client_id": 7}, "client_id", "1 to 64 letters"),
        ({"algorithm": "A2C"}, "algorithm", "available: DQN"),
        (
            {"algorithm": "DQN", "training": {"epochs": 3, "total_timesteps": 9}},
            "training.epochs",
            "DQN has no such hyperparameter; it is PPO's",
        ),
        (
            {"algorithm": "DQN", "training": {"batch_size": 9, "buffer_size": 8}},
            "training.batch_size",
            "batch_size must be <= buffer_size, which is 8",
        ),
        ({"observation_space": {"type": "ball"}}, "observation_space", "expected"),
        (
            {
                "algorithm": "DQN",
                "algorithm_parameters": {"total_timesteps": 1000},
                "action_space": {"type": "box", "shape": [1]},
            },
            "action_space",
            "needs Discrete actions",
        ),
    ],
)
def test_what_is_wrong_is_named_by_the_path_that_the_user_wrote(load, document, path, words):
    """Path, next move, and the file to look into."""
    with pytest.raises(ConfigError) as caught:
        load(document)
    assert caught.value.path == path
    assert words in str(caught.value)
    assert str(caught.value).count("conf.json") == 1


def test_dqn_alone_lacks_the_end_of_its_exploration(load):
    """Nothing wrong is written, so there is no place in the file to name."""
    with pytest.raises(ConfigError, match="set total_timesteps") as caught:
        load({"algorithm": "DQN"})
    assert caught.value.path == "algorithm_parameters.total_timesteps"


def test_an_impossible_combination_is_reported_where_the_user_wrote_it(load):
    """Not at the name that the setting has inside."""
    with pytest.raises(ConfigError, match="batch_size must be <= n_steps, which is 32") as caught:
        load({"training": {"batch_size": 64, "n_steps": 32}})
    assert caught.value.path == "training.batch_size"


@pytest.mark.parametrize(
    ("document", "first"),
    [
        (
            {"training": {"epochs": 3}, "algorithm_parameters": {"n_epochs": 3}},
            "training.epochs",
        ),
        ({"training": {"epochs": 3, "n_epochs": 3}}, "training.epochs"),
        ({"algorithm_parameters": {"lr": 1e-3, "pi_lr": 1e-3}}, "algorithm_parameters.lr"),
        (
            {"communication": {"server_address": "a:1", "redis_url": "redis://a:1"}},
            "communication.server_address",
        ),
        ({"communication": {"timeout": 1, "timeout_s": 1}}, "communication.timeout"),
    ],
)
def test_a_setting_said_twice_is_refused_even_if_both_agree(load, document, first):
    """Two places for one setting drift apart; both are named."""
    with pytest.raises(ConfigError, match=f"says the same as {first}; keep one"):
        load(document)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@broker:6379",
        "rediss://user:hunter2@broker:6379/0",
        "redis://broker:6379?password=hunter2",
        "unix:///run/redis.sock?password=hunter2",
    ],
)
def test_a_password_in_a_file_is_refused_with_the_next_move_and_not_repeated(load, url):
    """The message goes into logs; the password must not."""
    with pytest.raises(ConfigError, match="RL4SYS_STREAM_REDIS_PASSWORD") as caught:
        load({"communication": {"redis_url": url}})
    assert caught.value.path == "communication.redis_url"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("localhost:50051", "redis://localhost:50051"),
        ("broker", "redis://broker:6379"),
        ("[::1]:7000", "redis://[::1]:7000"),
    ],
)
def test_a_server_address_names_the_broker(load, address, url):
    """The seed's key, with the broker's host and port in it."""
    assert load({"communication": {"server_address": address}}).redis_url == url


@pytest.mark.parametrize(
    "address", ["", "a:b", "a:0", "a:65536", "redis://:hunter2@a:1", "a b:1", 6379, None]
)
def test_a_server_address_that_is_none_is_refused_without_repeating_secrets(load, address):
    """A URL in the wrong key may hold a password."""
    with pytest.raises(ConfigError) as caught:
        load({"communication": {"server_address": address}})
    assert caught.value.path == "communication.server_address"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://a", "redis://", "redis://a:x", "redis://a:0", "unix://", 3]
)
def test_a_url_that_names_no_broker_is_refused(load, url):
    """Before anything tries to connect to it."""
    with pytest.raises(ConfigError) as caught:
        load({"communication": {"redis_url": url}})
    assert caught.value.path == "communication.redis_url"


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        ({"agent": {"queue_bytes": 1024}}, "agent.queue_bytes", ">= worker.max_entry_bytes"),
        ({"agent": {"high_water_bytes": 1}}, "agent.high_water_bytes", "which is 8388608; not 1"),
        ({"worker": {"max_entry_bytes": 500 << 20}}, "agent.queue_bytes", "which is 524288000"),
        (
            {"agent": {"max_trajectory_steps": 70_000}},
            "agent.max_trajectory_steps",
            "<= worker.max_entry_steps, which is 65536",
        ),
        (
            {
                "observation_space": {"type": "box", "shape": [100_000]},
                "action_space": {"type": "discrete", "n": 4},
            },
            "agent.max_trajectory_steps",
            "carries at most 19 steps",
        ),
    ],
)
def test_sizes_that_cannot_work_together_are_refused(load, document, path, words):
    """The two sides of the inequality stand in different sections."""
    with pytest.raises(ConfigError) as caught:
        load(document)
    assert caught.value.path == path
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("algorithm", "parameters", "name", "words"),
    [
        ("DQN", {"n_step": 65}, "n_step", "no return of 65 steps"),
        (
            "DQN",
            {"buffer_size": 63, "batch_size": 8, "update_steps": 8, "learning_starts": 0},
            "buffer_size",
            "of 63",
        ),
        ("PPO", {"n_steps": 641}, "n_steps", "a rollout ends with 640 steps"),
    ],
)
def test_a_number_of_steps_that_never_comes_to_be_is_declared(
    load, algorithm, parameters, name, words
):
    """It works, but not as the file says; what just fits is not spoken of."""
    sizes = {"agent": {"max_trajectory_steps": 64}, "worker": {"max_commit_entries": 10}}
    budget = {"total_timesteps": 1000} if algorithm == "DQN" else {}

    document = {"algorithm": algorithm, **sizes}
    settings = {**budget, **parameters}
    (notice,) = load({**document, "algorithm_parameters": settings}).notices
    assert notice.startswith(f"algorithm_parameters.{name}: ")
    assert words in notice
    settings[name] += 1 if name == "buffer_size" else -1
    assert load({**document, "algorithm_parameters": settings}).notices == ()


def test_a_limit_of_lag_that_an_algorithm_does_not_have_is_declared(load):
    """A replay buffer's learner trains on steps of any age."""
    limited = {"worker": {"max_policy_lag": 4}}
    document = {"algorithm": "DQN", "training": {"total_timesteps": 1000}, **limited}
    assert load(document).notices == (
        "worker.max_policy_lag: not applicable: DQN trains on steps of any age",
    )
    assert load(limited).notices == ()


@pytest.mark.parametrize(
    "actions",
    [
        {"type": "discrete", "n": 2},
        {"type": "multi_discrete", "nvec": [2, 3]},
        {"type": "multi_binary", "n": 2},
    ],
)
def test_choices_are_not_squashed(load, actions):
    """Tanh is for real numbers; said when the file is read, and when its space comes later."""
    document = {"network_architecture": {"squash_output": True}}
    with pytest.raises(ConfigError, match="squash_output must be false where actions are") as found:
        load({**document, "action_space": actions})
    assert found.value.path == "network_architecture.squash_output"
    registered = ClientSpec(
        observation_space=Box((3,)), action_space=space_from_json(actions, path="action_space")
    )
    with pytest.raises(ConfigError, match="squash_output must be false where actions are"):
        load(document).spec(registered)


def test_a_registered_network_that_another_algorithm_cannot_have_hides_no_difference(load):
    """What the file says of the algorithm is named, not the critic that it does not mention."""
    registered = ClientSpec(
        observation_space=Box((3,)),
        action_space=Discrete(2),
        network=NetworkSpec(critic_hidden_sizes=(32,)),
    )
    config = load({"algorithm": "DQN", "training": {"total_timesteps": 1000}})
    assert "algorithm" in registered.differences(config.spec(registered))


def test_total_timesteps_without_a_schedule_is_declared_to_have_no_effect(load):
    """Nothing known is silently ignored."""
    config = load({"training": {"total_timesteps": 100_000}})
    assert config.notices == (
        'training.total_timesteps: not applicable: only a "linear" schedule reads it',
    )
