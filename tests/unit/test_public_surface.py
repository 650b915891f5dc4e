"""What `import rl4sys_stream` gives, and what it must not cost."""

import inspect
import subprocess
import sys

import rl4sys_stream
from rl4sys_stream import RL4SysAgent, StreamAgent

NAMES = {
    "ActionHandle",
    "AgentStatus",
    "Box",
    "BrokerError",
    "ClientConfig",
    "ConfigError",
    "Discrete",
    "MaskError",
    "MultiBinary",
    "MultiDiscrete",
    "ObservationError",
    "PriorError",
    "RL4SysAgent",
    "SpecMismatchError",
    "StreamAgent",
    "StreamError",
    "TrajectoryHandle",
    "TrajectoryStateError",
    "UsageError",
    "WireError",
    "__version__",
    "load_config",
}

METHODS = {
    "add_to_trajectory": ["traj", "action"],
    "close": ["timeout_s"],
    "cut_trajectory": ["traj", "next_obs", "next_mask"],
    "evaluate": ["obs", "mask", "prior", "deterministic"],
    "flush": ["timeout_s"],
    "mark_end_of_trajectory": ["traj", "action", "truncated", "final_obs", "final_mask"],
    "request_for_action": ["traj", "obs", "mask", "prior"],
    "settlement": [],
    "start_over_after_fork": [],
    "status": [],
    "update_action_reward": ["action", "reward"],
    "wait_for_learner": ["timeout_s"],
    "wait_for_model": ["timeout_s"],
    "wait_for_settlement": ["known", "timeout_s"],
}


def test_the_public_names_are_exactly_these():
    """A name that comes or goes is a decision, and stands in the changelog."""
    assert set(rl4sys_stream.__all__) == NAMES
    for name in NAMES:
        assert hasattr(rl4sys_stream, name)


def test_upstreams_name_is_the_same_class():
    """Applications written for RL4Sys keep their import's last word."""
    assert RL4SysAgent is StreamAgent


def test_the_agents_methods_and_their_parameters_are_exactly_these():
    """Applications call them by position and by name."""
    found = {
        name: list(inspect.signature(method).parameters)[1:]
        for name, method in inspect.getmembers(StreamAgent, inspect.isfunction)
        if not name.startswith("_")
    }
    assert found == METHODS


def test_the_constructors_first_parameters_are_in_the_documented_order():
    """conf_path, client_id, redis_url, observation_space, action_space; the rest by name."""
    parameters = inspect.signature(StreamAgent).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [
        "conf_path",
        "client_id",
        "redis_url",
        "observation_space",
        "action_space",
    ]
    assert all(p.default is not p.empty for p in parameters)


def test_importing_loads_no_training_stack_and_starts_nothing():
    """An application that embeds the agent needs neither torch nor gymnasium."""
    code = (
        "import sys, threading, rl4sys_stream\n"
        "heavy = {'torch', 'gymnasium', 'matplotlib', 'rich', 'tensorboardX', 'rl4sys_stream.cli',"
        " 'rl4sys_stream.algorithms', 'rl4sys_stream.worker', 'rl4sys_stream.testing'}\n"
        "print(sorted(heavy & set(sys.modules)), threading.active_count())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[] 1"


def test_the_package_is_typed():
    """Applications see the annotations."""
    from importlib.resources import files  # noqa: PLC0415 -- one use

    assert (files("rl4sys_stream") / "py.typed").is_file()
