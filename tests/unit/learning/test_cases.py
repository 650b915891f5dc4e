"""Settings of the cases: what they say is what both sides can be given."""

import inspect
from pathlib import Path

import pytest
import stable_baselines3 as sb3

from benchmarks.learning.cases import CASES, Case, Reference, Streams
from benchmarks.learning.system import write_definition
from rl4sys_stream.config import ALGORITHMS, load_config

# Box2D's bindings warn while they are loaded, and crash if that becomes an error.
pytestmark = pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")

SIDES = [(case, side) for case in CASES for side in case.sides]
OURS = [
    pytest.param(case, side, id=f"{case.name}-{side.name}")
    for case, side in SIDES
    if isinstance(side, Streams) and side.definition["algorithm"] in ALGORITHMS
]
REFERENCES = [
    pytest.param(case, side, id=case.name) for case, side in SIDES if isinstance(side, Reference)
]
OURS_ALONE = {"update_steps", "total_timesteps", "clip_range_schedule", "learning_rate_schedule"}
"""The reference takes the first one as 1, and the others from its `learn` and its callables."""


@pytest.mark.parametrize(("case", "side"), OURS)
def test_our_definition_loads_and_nothing_in_it_goes_unread(
    case: Case, side: Streams, tmp_path: Path
) -> None:
    """A campaign of hours must not end at its last case, nor have a setting that does nothing."""
    path = write_definition(tmp_path / "workers", case, side, seed=7)
    config = load_config(path, environ={})
    assert config.parameters.seed == 7
    assert not config.parameters.unread()
    assert side.versions_behind < config.worker.max_policy_lag
    assert side.versions_behind < config.worker.retain_versions


@pytest.mark.parametrize(("case", "side"), REFERENCES)
def test_the_references_settings_are_ours(case: Case, side: Reference) -> None:
    """The same names and values; a rollout is its steps times its environments."""
    known = inspect.signature(getattr(sb3, side.algorithm)).parameters
    assert set(side.parameters) <= set(known)
    (ours,) = [s for s in case.sides if isinstance(s, Streams) and s.name == "ours"]
    parameters = ours.definition["algorithm_parameters"]
    assert isinstance(parameters, dict)
    expected = {**side.parameters}
    if side.algorithm == "PPO":
        n_steps = expected["n_steps"]
        assert isinstance(n_steps, int)
        expected["n_steps"] = n_steps * side.envs
    assert {k: v for k, v in parameters.items() if k not in OURS_ALONE} == expected
    assert {f"{name}_schedule" for name in side.linear} == set(parameters) & {
        "learning_rate_schedule",
        "clip_range_schedule",
    }
    assert parameters.get("total_timesteps", case.budget) == case.budget
    assert ours.envs == side.envs
