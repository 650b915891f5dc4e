"""The shipped definitions are found by their environments, and are made for them."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.standard_environments.tasks import ROOT, TASKS, Task
from rl4sys_stream.cli.demo.settings import DemoSettings
from rl4sys_stream.cli.demo.systems import SYSTEMS
from rl4sys_stream.cli.demo.task import find_task
from rl4sys_stream.config import load_config
from rl4sys_stream.gymnasium import make_environment
from rl4sys_stream.spaces import as_space, flat_dim

# Box2D's bindings warn while they are loaded, and crash if that becomes an error.
pytestmark = pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")

DEFINITIONS = sorted((ROOT / "workers").glob("*.json"))
ENVIRONMENTS = [path for path in DEFINITIONS if not path.stem.startswith(tuple(SYSTEMS))]
SETTINGS = DemoSettings(seed=7, max_steps=1000, target=None, out=Path("runs"))


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_the_demo_finds_a_definition_by_its_environment_and_it_has_that_ones_spaces(
    path: Path,
) -> None:
    """Bounds of actions count, too: a policy that stays within half of them is half a policy."""
    environment, settings = path.stem, SETTINGS
    if environment.endswith("_dqn"):  # one environment by two algorithms
        environment, settings = environment.removesuffix("_dqn"), replace(SETTINGS, algorithm="DQN")
    task = find_task(environment, settings, {"RL4SYS_STREAM_WORKERS_DIR": str(path.parent)})
    assert (task.source, task.client) == (str(path), path.stem)
    config = load_config(path, environ={})
    assert config.observation_space is not None
    with closing(make_environment(task.environment)) as env:
        assert config.action_space == as_space(env.action_space)
        assert flat_dim(config.observation_space) == flat_dim(as_space(env.observation_space))


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.stem)
def test_nothing_that_a_definition_says_goes_unread(path: Path) -> None:
    """A setting that does nothing misleads whoever copies it."""
    assert not load_config(path, environ={}).parameters.unread()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_run_of_the_benchmark_differs_from_what_is_shipped_by_the_seed_alone(
    task: Task, tmp_path: Path
) -> None:
    """What is measured is what users get."""
    shipped = load_config(task.definition, environ={})
    trained = load_config(task.write_definition(tmp_path, 7), environ={})
    assert shipped.parameters.differences(trained.parameters) == ("seed",)
    assert trained.parameters.seed == 7
    assert (trained.spec(), trained.agent, trained.worker) == (
        shipped.spec(),
        shipped.agent,
        shipped.worker,
    )
    schedule_ends = getattr(shipped.parameters, "total_timesteps", None)
    assert schedule_ends in {None, task.steps}
