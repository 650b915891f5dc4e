"""An algorithm of another distribution is found by its entry point, and by nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from rl4sys_stream.algorithms.registry import make_algorithm
from rl4sys_stream.config import PPOParameters, find_algorithm
from rl4sys_stream.config.algorithms import known_parameters
from rl4sys_stream.errors import ConfigError

THIRD_PARTY = Path(__file__).parents[2] / "third_party"
DOCUMENT = {
    "client_id": "bandit",
    "algorithm": "Tally",
    "observation_space": {"type": "box", "shape": [1]},
    "action_space": {"type": "discrete", "n": 3},
    "algorithm_parameters": {"sharpness": 3},
}


@pytest.fixture
def installed(monkeypatch):
    """The distribution is installed."""
    monkeypatch.syspath_prepend(THIRD_PARTY)


def distribution(folder: Path, name: str, entry_point: str) -> None:
    """Metadata of a distribution in `folder`."""
    metadata = folder / f"{name.lower()}_kit-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-kit\nVersion: 1.0\n")
    text = f"[rl4sys_stream.algorithms]\n{name} = {entry_point}\n"
    (metadata / "entry_points.txt").write_text(text)


@pytest.mark.usefixtures("installed")
def test_an_installed_algorithm_is_configured_like_any_other(load):
    """Its name, its hyperparameters with their defaults and ranges, its kinds of actions."""
    config = load(DOCUMENT)
    assert config.spec().algorithm == "Tally"
    assert config.parameters.to_json() == {
        "learning_rate": 3e-4,
        "gamma": 0.99,
        "seed": None,
        "update_steps": 32,
        "sharpness": 3.0,
    }
    assert config.parameters.steps_per_update == 32
    assert "sharpness" in known_parameters()
    with pytest.raises(ConfigError, match=r"sharpness: expected a number > 0, not 0"):
        load({**DOCUMENT, "algorithm_parameters": {"sharpness": 0}})
    with pytest.raises(ConfigError, match="Tally needs Discrete actions"):
        load({**DOCUMENT, "action_space": {"type": "multi_binary", "n": 2}}).spec()
    with pytest.raises(ConfigError, match="PPO has no such hyperparameter; it is Tally's"):
        load({**DOCUMENT, "algorithm": "PPO"})


@pytest.mark.usefixtures("installed")
def test_the_registry_makes_an_installed_algorithm(load):
    """From the definition's factory, with its own hyperparameters and nobody else's."""
    config = load(DOCUMENT)
    learner = make_algorithm(config.spec(), config.parameters, seed=1)
    assert learner.state().algorithm == "Tally"
    with pytest.raises(ConfigError, match="takes TallyParameters, not PPOParameters"):
        make_algorithm(config.spec(), PPOParameters(), seed=1)


def test_without_the_distribution_its_algorithm_is_unknown(load):
    """And the message says where it would have to be installed."""
    with pytest.raises(ConfigError, match="installed beside the agents as well"):
        load(DOCUMENT)


def test_an_agent_reads_the_definition_without_torch():
    """In a fresh interpreter, as an application does it; the learner is not imported."""
    program = (
        "import sys; from rl4sys_stream.config import find_algorithm; "
        "print(find_algorithm('Tally').factory, 'torch' in sys.modules, 'tally.learner' in "
        "sys.modules)"
    )
    root = Path(__file__).parents[3]
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path[:0] = {[str(THIRD_PARTY), str(root)]}; {program}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["tally.learner:Tally", "False", "False"]


@pytest.mark.parametrize(
    ("entry_point", "words"),
    [
        ("nowhere_at_all:X", "cannot be loaded from nowhere_at_all:X"),
        ("tally.definition:NOTHING", "cannot be loaded from tally.definition:NOTHING"),
        ("tally.definition:TALLY", "no AlgorithmDefinition of that name"),
        ("tally.definition:TallyParameters", "no AlgorithmDefinition of that name"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_an_entry_point_that_leads_to_no_definition_is_named(
    tmp_path, monkeypatch, entry_point, words
):
    """What somebody else has installed wrongly is no traceback of ours."""
    distribution(tmp_path, "Broken", entry_point)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="Broken") as caught:
        find_algorithm("Broken")
    assert words in str(caught.value)
    assert caught.value.path == "algorithm"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("class P(Hyperparameters, frozen=True): pass", "P in kit:KIT must define the property"),
        ("class P: steps_per_update = 1", "must be a subclass of .*Hyperparameters, not"),
        ("P = {}", "must be a subclass of .*Hyperparameters, not"),
    ],
)
def test_hyperparameters_that_no_worker_can_plan_with_are_refused(
    tmp_path, monkeypatch, load, parameters, words
):
    """When the definition is loaded, not when a worker has started and a simulator waits for it."""
    distribution(tmp_path, "Kit", "kit:KIT")
    (tmp_path / "kit.py").write_text(
        "from rl4sys_stream.config import AlgorithmDefinition, Hyperparameters\n"
        f"{parameters}\n"
        "KIT = AlgorithmDefinition(name='Kit', parameters=P, factory='kit:Kit',\n"
        "                          actions=('Discrete',), on_policy=True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kit", raising=False)
    with pytest.raises(ConfigError, match=words) as caught:
        load({**DOCUMENT, "algorithm": "Kit", "algorithm_parameters": {}})
    assert caught.value.path == "algorithm"


def test_another_package_does_not_take_the_name_of_one_of_ours(tmp_path, monkeypatch):
    """Else it would decide what trains the clients that are registered already."""
    distribution(tmp_path, "PPO", "nowhere_at_all:X")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_algorithm("PPO").factory == "rl4sys_stream.algorithms.ppo:PPO"


@pytest.mark.parametrize("entry_point", ["nowhere_at_all:X", "tally.definition:TallyParameters"])
@pytest.mark.usefixtures("installed")
def test_a_broken_distribution_stops_no_other_client(tmp_path, monkeypatch, load, entry_point):
    """It is named when a client asks for it; until then nobody needs it."""
    distribution(tmp_path, "Broken", entry_point)
    monkeypatch.syspath_prepend(tmp_path)
    assert load(DOCUMENT).spec().algorithm == "Tally"
    plain = {"client_id": "c", "algorithm": "PPO", "algorithm_parameters": {"n_steps": 128}}
    assert load(plain).parameters == PPOParameters(n_steps=128)
