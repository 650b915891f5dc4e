"""Upstream RL4Sys's own files: each field mapped, declared without meaning, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from rl4sys_stream.config import DQNParameters, PPOParameters, load_config
from rl4sys_stream.config.upstream_dqn import NOT_APPLICABLE as DQN_NOT_APPLICABLE
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.spaces import Box, Discrete

DATA = Path(__file__).parent / "data"
SHIPPED = sorted((DATA / "upstream").glob("*.json"))
# Notices aside, these keys have the same name here.
SAME_NAME = {"client_id", "seed", "gamma", "target_kl", "ent_coef"}


def upstream(**changes: object) -> dict[str, Any]:
    """Upstream's lunar file as data, with changes; a parameter's name finds its own place."""
    document: dict[str, Any] = json.loads((DATA / "upstream" / "lunar.json").read_text())
    top = {*document, "connection_timeout_seconds", "surprise"}
    for key, value in changes.items():
        (document if key in top else document["algorithm_parameters"])[key] = value
    return document


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_each_shipped_file_loads_and_each_of_its_fields_is_accounted_for(path):
    """A field shows as a setting of the same name or in a notice, never not at all."""
    document = json.loads(path.read_text())
    config = load_config(path, environ={})
    fields = set(document) | set(document["algorithm_parameters"])
    noticed = {notice.split()[0].rstrip(":").rpartition(".")[2] for notice in config.notices}
    assert fields - noticed - {"algorithm_parameters"} == fields & SAME_NAME
    assert config.observation_space == Box((document["algorithm_parameters"]["input_size"],))
    assert config.action_space == Discrete(document["algorithm_parameters"]["act_dim"])
    assert config.spec().algorithm == "PPO"


def test_all_six_shipped_files_are_here():
    """The parametrised test above would pass over an empty folder."""
    assert len(SHIPPED) == 6


def test_the_lunar_file_means_what_upstream_does_with_it():
    """Full-batch passes over `traj_per_epoch` steps, and two learning rates."""
    config = load_config(DATA / "upstream" / "lunar.json", environ={})
    parameters = config.parameters
    assert isinstance(parameters, PPOParameters)
    assert config.client_id == "luna-landing"
    assert (parameters.n_steps, parameters.batch_size, parameters.n_epochs) == (512, 512, 80)
    assert (parameters.learning_rate, parameters.critic_learning_rate) == (3e-4, 1e-3)
    assert (parameters.gamma, parameters.gae_lambda, parameters.clip_range) == (0.99, 0.95, 0.2)
    assert parameters.target_kl is None
    assert parameters.seed == 0
    assert config.agent.max_trajectory_steps == 512
    assert config.redis_url == "redis://localhost:50051"


def test_the_job_scheduling_file_keeps_within_what_an_entry_carries():
    """25 600 steps of 1024 numbers are 100 MB; they are cut, not refused, and it says so."""
    config = load_config(DATA / "upstream" / "job_scheduling_old.json", environ={})
    assert isinstance(config.parameters, PPOParameters)
    assert config.parameters.n_steps == 25_600
    assert config.parameters.max_grad_norm == 1e9
    assert 1000 < config.agent.max_trajectory_steps < 2000
    assert any("what one stream entry can carry" in notice for notice in config.notices)


def test_the_timeouts_of_the_cpp_client_bound_the_connection():
    """One of the two has a meaning here, the other is declared."""
    config = load_config(DATA / "upstream" / "cpp_client_test.json", environ={})
    assert config.timeout_s == 10
    assert any(n.startswith("request_timeout_seconds: not applicable") for n in config.notices)


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"clip_vloss": True, "clip_ratio": 0.3}, "clip_range_vf", 0.3),
        ({"clip_vloss": False}, "clip_range_vf", None),
        ({"norm_adv": False}, "normalize_advantage", False),
        ({"ent_coef": 0.01}, "ent_coef", 0.01),
        ({"vf_coef": 0.25}, "vf_coef", 0.25),
        ({"max_grad_norm": 0.5}, "max_grad_norm", 0.5),
        ({"max_grad_norm": 0}, "max_grad_norm", 1e9),
        ({"target_kl": 0.02}, "target_kl", 0.02),
        ({"seed": 3}, "seed", 3),
    ],
)
def test_parameters_are_honoured_under_our_names(load, changes, field, value):
    """Also those that upstream itself read and then ignored."""
    assert getattr(load(upstream(**changes)).parameters, field) == value


def test_a_buffer_size_is_declared_without_meaning(load):
    """Known, harmless, and said so."""
    notices = load(upstream(buf_size=1_000_000)).notices
    assert any(n.startswith("algorithm_parameters.buf_size: not applicable: ") for n in notices)


def test_what_the_file_leaves_out_takes_our_defaults(load):
    """A short file is a valid one; the rollout is still passed over whole."""
    config = load({"algorithm_name": "PPO", "algorithm_parameters": {"batch_size": 32}})
    assert config.client_id is None
    assert config.parameters.n_steps == config.parameters.batch_size == 2048
    assert config.parameters.critic_learning_rate is None


def test_value_iterations_alone_count_the_passes(load):
    """Either of the two names will do."""
    document = upstream(train_v_iters=7)
    del document["algorithm_parameters"]["train_pi_iters"]
    assert load(document).parameters.n_epochs == 7


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"surprise": 1}, "surprise", "unknown key"),
        ({"traj_per_epochs": 1}, "algorithm_parameters.traj_per_epochs", "mean 'traj_per_epoch'"),
        ({"train_v_iters": 40}, "algorithm_parameters.train_v_iters", "must equal train_pi_iters"),
        ({"traj_per_epoch": 0}, "algorithm_parameters.traj_per_epoch", "an integer >= 1, not 0"),
        ({"act_dim": None}, "algorithm_parameters.act_dim", "an integer >= 1, not null"),
        ({"clip_vloss": "yes"}, "algorithm_parameters.clip_vloss", "true or false"),
        ({"lam": 2}, "algorithm_parameters.lam", "a number >= 0 and <= 1, not 2"),
        ({"train_pi_iters": 80.5, "train_v_iters": 80}, "algorithm_parameters.train_v_iters", ""),
        ({"type": "offpolicy"}, "type", 'expected "onpolicy"'),
        ({"algorithm_name": "A3C"}, "algorithm_name", "available: DQN"),
        ({"train_server_address": "x:y"}, "train_server_address", "host:port"),
        ({"max_traj_length": 0}, "max_traj_length", "an integer >= 1"),
        ({"connection_timeout_seconds": -1}, "connection_timeout_seconds", "a number > 0"),
    ],
)
def test_what_cannot_be_honoured_is_refused_at_the_field_that_says_it(load, changes, path, words):
    """Upstream's path, not ours."""
    with pytest.raises(ConfigError) as caught:
        load(upstream(**changes))
    assert caught.value.path == path
    assert words in str(caught.value)


def dqn(**changes: object) -> dict[str, Any]:
    """Upstream's DQN settings as data, with changes to its parameters."""
    document: dict[str, Any] = json.loads((DATA / "upstream_dqn.json").read_text())
    document["algorithm_parameters"].update(changes)
    return document


def test_the_dqn_file_loads_and_each_of_its_fields_is_accounted_for(load):
    """A target that is mixed in small shares moves at each step; exploration has an end."""
    config = load(dqn())
    parameters = config.parameters
    assert isinstance(parameters, DQNParameters)
    assert config.spec().algorithm == "DQN"
    assert (config.observation_space, config.action_space) == (Box((8,)), Discrete(4))
    assert (parameters.batch_size, parameters.buffer_size) == (32, 1_000_000)
    assert (parameters.learning_rate, parameters.gamma, parameters.seed) == (1e-4, 0.99, 0)
    assert (parameters.tau, parameters.target_update_interval) == (0.005, 1)
    assert (parameters.learning_starts, parameters.total_timesteps) == (50_000, 1_000_000)
    same_name = {"client_id", "algorithm_parameters", "batch_size", "gamma", "seed", "tau"}
    same_name |= {"buffer_size", "learning_starts"}
    noticed = {notice.split()[0].rstrip(":").rpartition(".")[2] for notice in config.notices}
    document = dqn()
    assert set(document) | set(document["algorithm_parameters"]) <= same_name | noticed


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"start_e": 0.5}, "exploration_initial_eps", 0.5),
        ({"end_e": 0.01}, "exploration_final_eps", 0.01),
        ({"exploration_fraction": 0.2}, "exploration_fraction", 0.2),
        ({"total_timesteps": 500_000}, "total_timesteps", 500_000),
        ({"train_frequency": 8}, "train_freq", 8),
        ({"train_iters": 3}, "gradient_steps", 3),
        ({"target_network_frequency": 70}, "target_update_interval", 70),
    ],
)
def test_what_upstreams_dqn_reads_is_followed(load, changes, field, value):
    """Also what upstream itself reads and then ignores."""
    assert getattr(load(dqn(**changes)).parameters, field) == value


@pytest.mark.parametrize("field", DQN_NOT_APPLICABLE)
def test_what_upstreams_dqn_says_twice_or_in_vain_is_declared(load, field):
    """With the reason."""
    notices = load(dqn(**{field: 1})).notices
    assert any(n.startswith(f"algorithm_parameters.{field}: not applicable: ") for n in notices)


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"type": "onpolicy"}, "type", 'expected "offpolicy", which is what DQN is'),
        ({"clip_ratio": 0.2}, "algorithm_parameters.clip_ratio", "unknown key"),
        ({"lr": 0}, "algorithm_parameters.lr", "a number > 0, not 0"),
        ({"buffer_size": 16}, "algorithm_parameters.batch_size", "<= buffer_size, which is 16"),
    ],
)
def test_what_dqn_cannot_honour_is_refused_where_it_is_said(load, changes, path, words):
    """Upstream's path, not ours."""
    document = dqn(**{key: value for key, value in changes.items() if key != "type"})
    document["type"] = changes.get("type", "offpolicy")
    with pytest.raises(ConfigError) as caught:
        load(document)
    assert caught.value.path == path
    assert words in str(caught.value)


def test_an_unknown_algorithm_is_refused_by_name_before_its_parameters():
    """Not by the first of their parameters that PPO does not have."""
    with pytest.raises(ConfigError, match=r"PPO with a Box as its action_space") as caught:
        load_config(DATA / "upstream_continuous.json", environ={})
    assert caught.value.path == "algorithm_name"


def test_two_forms_in_one_file_are_refused(load):
    """The names overlap, and mean different things."""
    with pytest.raises(ConfigError, match=r"belongs to upstream RL4Sys's form.*'training'"):
        load({"training": {"epochs": 3}, "send_frequency": 10})
