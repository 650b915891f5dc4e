"""The example's configuration, the worker definitions and the reference say what the code does."""

import json
from pathlib import Path

import pytest

from rl4sys_stream.config import (
    AgentSettings,
    DQNParameters,
    NetworkSpec,
    PPOParameters,
    SACParameters,
    WorkerSettings,
    load_config,
)
from rl4sys_stream.config.environment import VARIABLES
from rl4sys_stream.config.forms import NATIVE, PARAMETER_ALIASES
from rl4sys_stream.config.schema import allowed_values
from rl4sys_stream.config.upstream import MARKS, PARAMETERS_NOT_APPLICABLE, RENAMED
from rl4sys_stream.config.upstream_dqn import NOT_APPLICABLE as DQN_NOT_APPLICABLE
from rl4sys_stream.config.upstream_dqn import RENAMED as DQN_RENAMED
from rl4sys_stream.spaces import Discrete

ROOT = Path(__file__).parents[3]
REFERENCE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "workers").glob("*.json")), ids=lambda p: p.stem)
def test_each_worker_definition_loads_under_its_own_name_with_a_whole_spec(path):
    """A worker can start from it alone, and nothing in it is an alias."""
    config = load_config(path, environ={})
    assert config.client_id == path.stem
    assert config.spec().network == config.network
    assert config.notices == ()


def test_the_lunar_example_and_the_lunar_worker_agree():
    """Which of the two files trains must make no difference."""
    example = load_config(ROOT / "examples" / "lunar" / "luna_conf.json", environ={})
    worker = load_config(ROOT / "workers" / "lunar_lander.json", environ={})
    assert example.client_id == worker.client_id
    assert example.parameters == worker.parameters
    assert example.spec(worker.spec()) == worker.spec()


@pytest.mark.parametrize(
    "kind", [PPOParameters, SACParameters, NetworkSpec, AgentSettings, WorkerSettings]
)
def test_the_reference_has_every_key_with_its_range_and_default(kind):
    """The tables are checked against the classes."""
    for field in kind.__struct_fields__:
        default = json.dumps(getattr(kind(), field))
        assert f"| `{field}` | {allowed_values(kind, field)} | `{default}` | " in REFERENCE


def test_the_reference_has_every_key_of_dqn():
    """Whose schedules need an end, so that it has no defaults alone."""
    parameters = DQNParameters(total_timesteps=1000)
    for field in sorted(set(parameters.__struct_fields__) - {"total_timesteps"}):
        default = json.dumps(getattr(parameters, field))
        words = allowed_values(DQNParameters, field)
        assert f"| `{field}` | {words} | `{default}` | " in REFERENCE


def test_the_reference_has_every_variable_alias_and_foreign_key():
    """What is read anywhere is described there."""
    for name in (
        *NATIVE,
        *VARIABLES,
        *PARAMETER_ALIASES,
        *MARKS,
        *RENAMED,
        *PARAMETERS_NOT_APPLICABLE,
        *DQN_RENAMED,
        *DQN_NOT_APPLICABLE,
    ):
        assert f"`{name}`" in REFERENCE


def test_the_example_in_the_reference_loads(load):
    """The first JSON block, as it stands."""
    block = REFERENCE.partition("```json\n")[2].partition("```")[0]
    config = load(block)
    assert config.client_id == "lunar_lander"
    assert config.spec().action_space == Discrete(4)
