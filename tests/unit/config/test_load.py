"""The order of the sources, the environment, files that cannot be read, and definitions."""

import sys

import pytest

from rl4sys_stream.config import (
    ClientConfig,
    ClientSpec,
    NetworkSpec,
    PPOParameters,
    find_definition,
    load_config,
)
from rl4sys_stream.config.environment import VARIABLES
from rl4sys_stream.errors import ConfigError, MissingExtraError
from rl4sys_stream.spaces import Box, Discrete


def gymnasium_like_discrete(n: int) -> object:
    """A stand-in for `gymnasium.spaces.Discrete`, which is told by its name and attributes."""
    return type("Discrete", (), {"n": n, "start": 0})()


def test_a_setting_that_asks_for_a_missing_library_is_refused_with_the_next_move(monkeypatch):
    """Agents, workers and commands read settings first of all."""
    stated = {"agent.codec": "protobuf"}
    assert load_config(None, environ={}, overrides=stated).agent.codec == "protobuf"
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with pytest.raises(MissingExtraError, match=r"agent\.codec.*rl4sys-stream\[protobuf\]"):
        load_config(None, environ={}, overrides=stated)


def test_nothing_said_is_all_defaults():
    """No file, no environment, no arguments."""
    assert load_config(None, environ={}) == ClientConfig()


def test_later_sources_win_and_the_rest_stays(load):
    """Defaults < file < environment < arguments, setting by setting."""
    file = {
        "client_id": "file",
        "training": {"n_steps": 128, "epochs": 2},
        "agent": {"queue_entries": 10, "heartbeat_s": 2},
    }
    environ = {
        "RL4SYS_STREAM_CLIENT_ID": "environment",
        "RL4SYS_STREAM__AGENT__QUEUE_ENTRIES": "20",
        "RL4SYS_STREAM__ALGORITHM_PARAMETERS__N_STEPS": "256",
    }
    overrides = {"training.n_steps": 512}
    config = load(file, environ=environ, client_id="argument", overrides=overrides)
    assert load(file).client_id == "file"
    assert load(file, environ=environ).client_id == "environment"
    assert config.client_id == "argument"
    assert config.parameters.n_steps == 512
    assert load(file, environ=environ).parameters.n_steps == 256
    assert config.parameters.n_epochs == 2
    assert (config.agent.queue_entries, config.agent.heartbeat_s) == (20, 2)


def test_environment_values_are_json_or_else_strings():
    """Lists and null can be said; words need no quotes."""
    config = load_config(
        None,
        environ={
            "PATH": "/bin",
            "RL4SYS_STREAM__NETWORK_ARCHITECTURE__HIDDEN_SIZES": "[128, 32]",
            "RL4SYS_STREAM__AGENT__DROP_POLICY": "drop_newest",
            "RL4SYS_STREAM__AGENT__SEED": "null",
            "RL4SYS_STREAM__OBSERVATION_SPACE": '{"type": "box", "shape": [2]}',
            "RL4SYS_STREAM__TRAINING__EPOCHS": "",
        },
    )
    assert config.network.hidden_sizes == (128, 32)
    assert config.agent.drop_policy == "drop_newest"
    assert config.agent.seed is None
    assert config.observation_space == Box((2,))
    assert isinstance(config.parameters, PPOParameters)
    assert config.parameters.n_epochs == 10


def test_variables_that_others_read_are_known():
    """The broker reads the password, the commands the folder; here they are only no surprise."""
    assert load_config(None, environ=dict.fromkeys(VARIABLES, "")) == ClientConfig()
    environ = {"RL4SYS_STREAM_REDIS_PASSWORD": "hunter2", "RL4SYS_STREAM_WORKERS_DIR": "x"}
    assert load_config(None, environ=environ) == ClientConfig()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RL4SYS_STREAM_REDIS_URI", "x", "did you mean RL4SYS_STREAM_REDIS_URL"),
        ("RL4SYS_STREAM_QQQ", "", "unknown environment variable RL4SYS_STREAM_QQQ"),
        ("RL4SYS_STREAM__AGNET__SEED", "1", "agnet: unknown key; did you mean 'agent'"),
        ("RL4SYS_STREAM__AGENT__SEEDS", "1", "agent.seeds: unknown key; did you mean 'seed'"),
        ("RL4SYS_STREAM__AGENT__SEED", "x", "agent.seed: expected an integer"),
        ("RL4SYS_STREAM__AGENT", "x", "agent: expected an object"),
        ("RL4SYS_STREAM__AGENT__", "1", "no path of a setting"),
        ("RL4SYS_STREAM__", "1", "no path of a setting"),
        ("RL4SYS_STREAM__SEND_FREQUENCY", "1", "send_frequency"),
        ("RL4SYS_STREAM__ALGORITHM_PARAMETERS__GAMMA", "NaN", "expected a number"),
        ("RL4SYS_STREAM__TRAINING__BATCH_SIZE", "4096", "batch_size must be <= n_steps"),
        ("RL4SYS_STREAM_CLIENT_ID", "a/b", "1 to 64 letters"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(name, value, words):
    """Whether it is unknown, or what it holds is wrong."""
    with pytest.raises(ConfigError) as caught:
        load_config(None, environ={name: value})
    assert words in str(caught.value)
    assert name in str(caught.value)


def test_two_variables_for_one_setting_are_refused():
    """Neither is later than the other."""
    environ = {
        "RL4SYS_STREAM__TRAINING__EPOCHS": "3",
        "RL4SYS_STREAM__ALGORITHM_PARAMETERS__N_EPOCHS": "4",
    }
    with pytest.raises(ConfigError, match="says the same as environment variable RL4SYS_STREAM__A"):
        load_config(None, environ=environ)


def test_a_password_may_come_from_the_environment_and_shows_nowhere():
    """Neither the repr nor a message repeats it."""
    url = "redis://:hunter2@broker:6379"
    config = load_config(None, environ={"RL4SYS_STREAM_REDIS_URL": url})
    assert config.redis_url == url
    assert "hunter2" not in repr(config)


@pytest.mark.parametrize(
    "url",
    [
        "http://:hunter2@broker:6379",
        "redis://:hunter2@broker:x",
        "redis://:hunter2/3@broker:6379",
        "redis://:hunter2@3@broker:port",
        ":hunter2@broker:6379",
        "redis://user:hunter2@",
    ],
)
def test_a_malformed_url_with_a_password_is_refused_without_repeating_it(url):
    """People forget to percent-encode."""
    with pytest.raises(ConfigError) as caught:
        load_config(None, environ={"RL4SYS_STREAM_REDIS_URL": url})
    assert "hunter2" not in str(caught.value)


def test_arguments_may_be_spaces_of_gymnasium_which_is_not_imported():
    """The agent passes on what its environment says."""
    config = load_config(
        None, environ={}, observation_space=Box((8,)), action_space=gymnasium_like_discrete(4)
    )
    assert config.observation_space == Box((8,))
    assert config.action_space == Discrete(4)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"overrides": {"agent.sed": 1}}, "agent.sed"),
        ({"overrides": {"agent.seed": -1}}, "agent.seed"),
        ({"overrides": {"agent": {"seed": 1}, "agent.seed": 1}}, "agent.seed"),
        ({"observation_space": 8}, "observation_space"),
        ({"redis_url": "broker"}, "communication.redis_url"),
        ({"client_id": ""}, "client_id"),
    ],
)
def test_a_bad_argument_is_refused_by_its_path(arguments, path):
    """Arguments are checked as strictly as files."""
    with pytest.raises(ConfigError, match="an argument") as caught:
        load_config(None, environ={}, **arguments)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not JSON: .*line 1, column 2"),
        (b"", "is not JSON"),
        (b"[]", "expected an object .* not a list"),
        (b"3", "expected an object .* not int"),
        (b'{"algorithm": "PPO", "algorithm": "PPO"}', "'algorithm' stands twice"),
        (b'{"agent": {"seed": 1, "seed": 1}}', "'seed' stands twice"),
        (b'{"algorithm_parameters": {"gamma": NaN}}', "algorithm_parameters.gamma: nan is no JSON"),
        (b'{"algorithm_parameters": {"gamma": 1e999}}', "algorithm_parameters.gamma: inf is no"),
        (b'{"observation_space": {"low": [0, -Infinity]}}', r"observation_space.low\[1\]: -inf is"),
        (b"\xff\xfe{}", "is not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b" " * (1 << 20) + b"{}", "larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_its_name(tmp_path, content, words):
    """Which file, and what is wrong with it."""
    path = tmp_path / "conf.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(path, environ={})
    assert "conf.json" in str(caught.value)


def test_a_file_that_is_not_there_or_not_a_file_is_refused(tmp_path):
    """A misspelt path is not an empty configuration."""
    with pytest.raises(ConfigError, match=r"no such file.*absent.json"):
        load_config(tmp_path / "absent.json", environ={})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path, environ={})


def test_a_byte_order_mark_is_forgiven(tmp_path):
    """Some editors write one."""
    path = tmp_path / "conf.json"
    path.write_bytes(b'\xef\xbb\xbf{"client_id": "x"}')
    assert load_config(path, environ={}).client_id == "x"


REGISTERED = ClientSpec(
    observation_space=Box((8,)),
    action_space=Discrete(4),
    network=NetworkSpec(hidden_sizes=(32,), activation="relu"),
)


def test_the_registered_spec_fills_in_what_nobody_said():
    """An agent that knows only its client's name acts by the registry."""
    assert load_config(None, environ={}).spec(REGISTERED) == REGISTERED


def test_what_was_said_stays_so_that_a_contradiction_shows(load):
    """Even where it equals the default."""
    config = load({"network_architecture": {"activation": "tanh"}}, action_space=Discrete(3))
    spec = config.spec(REGISTERED)
    assert spec.network == NetworkSpec(hidden_sizes=(32,), activation="tanh")
    assert spec.differences(REGISTERED) == ("action_space.n", "network_architecture.activation")


def test_what_was_said_stays_also_where_no_network_is_both_that_and_what_is_registered(load):
    """More shared layers than the registered actor has: the refusal then names both fields."""
    config = load({"network_architecture": {"shared_layers": 2}})
    assert config.spec(REGISTERED).differences(REGISTERED) == (
        "network_architecture.activation",
        "network_architecture.hidden_sizes",
        "network_architecture.shared_layers",
    )


def test_a_space_that_nobody_knows_is_refused_with_both_ways_to_say_it():
    """The README's form has none."""
    with pytest.raises(ConfigError, match=r"pass observation_space=\.\.\. to the agent") as caught:
        load_config(None, environ={}).spec()
    assert caught.value.path == "observation_space"


def test_registered_spaces_are_checked_against_the_entry_size_too():
    """What the file alone could not show."""
    wide = ClientSpec(observation_space=Box((100_000,)), action_space=Discrete(4))
    with pytest.raises(ConfigError, match="carries at most 19 steps"):
        load_config(None, environ={}).spec(wide)


def test_the_first_place_that_is_named_decides_where_a_definition_is(tmp_path, monkeypatch):
    """--config, then --workers-dir, then the variable, then ./workers."""
    monkeypatch.chdir(tmp_path)
    for folder in ("workers", "named", "variable"):
        (tmp_path / folder).mkdir()
    for file in ("workers/a.json", "named/a.json", "variable/a.json", "other.json"):
        (tmp_path / file).write_text("{}")
    variable = {"RL4SYS_STREAM_WORKERS_DIR": "variable"}

    def found(
        client: str = "a",
        environ: dict[str, str] = variable,
        config: str | None = None,
        workers_dir: str | None = None,
    ) -> str | None:
        path = find_definition(client, config=config, workers_dir=workers_dir, environ=environ)
        return path.as_posix() if path else None

    assert found(config="other.json", workers_dir="named") == "other.json"
    assert found(workers_dir="named") == "named/a.json"
    assert found() == "variable/a.json"
    assert found(environ={}) == "workers/a.json"
    (tmp_path / "named" / "a.json").unlink()
    assert found(workers_dir="named") is None
    assert found("b", environ={}) is None


def test_a_place_that_is_named_must_be_there(tmp_path):
    """A missing ./workers is not: nobody named it."""
    with pytest.raises(ConfigError, match="is no file"):
        find_definition("a", config=tmp_path / "x.json", environ={})
    with pytest.raises(ConfigError, match=r"--workers-dir names .*, which is no folder"):
        find_definition("a", workers_dir=tmp_path / "x", environ={})
    with pytest.raises(ConfigError, match="RL4SYS_STREAM_WORKERS_DIR names"):
        find_definition("a", environ={"RL4SYS_STREAM_WORKERS_DIR": str(tmp_path / "x")})


def test_a_client_name_cannot_leave_the_folder(tmp_path):
    """Names become file names."""
    with pytest.raises(ConfigError, match="1 to 64 letters"):
        find_definition("../secret", workers_dir=tmp_path, environ={})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RL4SYS_STREAM_PORT", "16379"),
        ("RL4SYS_STREAM_REDIS_MAXMEMORY", "1gb"),
        ("RL4SYS_STREAM_WORKER_IMAGE", "image:1"),
        ("RL4SYS_STREAM_REDIS_SERVICE_HOST", "10.0.0.1"),
        ("RL4SYS_STREAM_REDIS_SERVICE_PORT", "6379"),
        ("RL4SYS_STREAM_REDIS_SERVICE_PORT_REDIS", "6379"),
        ("RL4SYS_STREAM_REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("RL4SYS_STREAM_REDIS_PORT_6379_TCP", "tcp://10.0.0.1:6379"),
        ("RL4SYS_STREAM_REDIS_PORT_6379_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_what_compose_and_kubernetes_set_is_no_misspelt_variable(name, value):
    """They set it in every container and shell that our own documents describe."""
    assert load_config(None, environ={name: value}) == load_config(None, environ={})


def test_a_port_without_an_address_is_no_service_link():
    """Somebody means the broker's port, and would never learn that it was not read."""
    with pytest.raises(ConfigError, match="unknown environment variable"):
        load_config(None, environ={"RL4SYS_STREAM_REDIS_PORT": "6379"})
