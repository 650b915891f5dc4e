"""The demo's parts by themselves."""

import importlib.util
import json
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from rl4sys_stream.cli.demo.display import sparkline
from rl4sys_stream.cli.demo.folder import make_run_folder
from rl4sys_stream.cli.demo.messages import Episode, decode_message, message_sender
from rl4sys_stream.cli.demo.progress import Progress
from rl4sys_stream.cli.demo.settings import DemoSettings
from rl4sys_stream.cli.demo.system import require_extras
from rl4sys_stream.cli.demo.task import Task, find_task, packaged_definition
from rl4sys_stream.config import DQNParameters, load_config
from rl4sys_stream.errors import MissingExtraError, UsageError
from tests.integration.demo.runs import ROOT

SETTINGS = DemoSettings(seed=7, max_steps=1000, target=None, out=Path("runs"))


@pytest.fixture
def task() -> Task:
    """CartPole, by the definition in workers/."""
    return find_task("cartpole", SETTINGS, {"RL4SYS_STREAM_WORKERS_DIR": str(ROOT / "workers")})


def test_the_installed_definition_is_the_one_in_workers() -> None:
    """An installed user, who has no workers/ folder, trains the same."""
    deployed = json.loads((ROOT / "workers" / "lunar_lander.json").read_text())
    assert json.loads(packaged_definition().read_text()) == deployed


def test_the_definition_of_a_run_loads_and_has_the_seed(tmp_path: Path, task: Task) -> None:
    """Worker and agent read one file, whose high water lets every rollout through."""
    folder = make_run_folder(tmp_path, task.client, task.definition, seed=7, wall_ms=0)
    config = load_config(folder.definition, environ={})
    assert config.parameters.seed == 7
    assert config.agent.drop_policy == "block"
    assert config.agent.high_water_entries * 32 >= config.parameters.steps_per_update
    assert config.client_id == folder.client == "cartpole"


def test_a_run_ends_with_the_schedules_unless_it_is_told_otherwise() -> None:
    """Where the learning rate has come down to 0, more steps are a waste of time."""
    environ = {"RL4SYS_STREAM_WORKERS_DIR": str(ROOT / "workers")}
    untold = replace(SETTINGS, max_steps=None)
    assert find_task("frozen_lake", untold, environ).max_steps == 60_000
    assert find_task("cartpole", untold, environ).max_steps == 300_000
    assert find_task("frozen_lake", SETTINGS, environ).max_steps == 1000


def test_without_a_definition_a_replay_buffer_is_as_large_as_observations_let_it_be(
    tmp_path: Path,
) -> None:
    """Hundreds of states, one-hot: a million steps of them would be too much for the stream."""
    environ = {"RL4SYS_STREAM_WORKERS_DIR": str(tmp_path)}
    sizes = []
    for environment in ("Taxi-v4", "CartPole-v1"):
        found = find_task(environment, replace(SETTINGS, algorithm="DQN"), environ)
        folder = make_run_folder(tmp_path, found.client, found.definition, seed=7, wall_ms=0)
        sizes.append(load_config(folder.definition, environ={}).parameters.replayed_steps)
    assert 100_000 < sizes[0] < 140_000
    assert sizes[1] == 1_000_000


def test_an_algorithm_without_a_definition_explores_for_a_share_of_the_run(tmp_path: Path) -> None:
    """The command line has no other word for how long the run is."""
    settings = replace(SETTINGS, algorithm="DQN")
    found = find_task("CartPole-v1", settings, {"RL4SYS_STREAM_WORKERS_DIR": str(tmp_path)})
    folder = make_run_folder(tmp_path, found.client, found.definition, seed=7, wall_ms=0)
    parameters = load_config(folder.definition, environ={}).parameters
    assert isinstance(parameters, DQNParameters)
    assert parameters.total_timesteps == SETTINGS.max_steps


def test_two_runs_in_one_second_have_folders_of_their_own(tmp_path: Path, task: Task) -> None:
    """The second one gets a number."""
    first, second = (
        make_run_folder(tmp_path, task.client, task.definition, seed=1, wall_ms=0) for _ in range(2)
    )
    assert first.path != second.path
    assert first.path.name == "cartpole-19700101-000000-seed1"


def test_the_target_needs_a_full_window_of_episodes() -> None:
    """99 good episodes are luck, 100 are learned."""
    progress = Progress()
    for number in range(1, 101):
        assert progress.target_steps is None
        episode = Episode(total=250.0, length=10, steps=10 * number, version=1)
        progress.add_episode(0, episode, target=200.0, now=float(number))
    assert progress.target_steps == 1000


def test_the_steps_of_all_applications_add_up() -> None:
    """Each reports its own total."""
    progress = Progress()
    for application, steps in ((0, 10), (1, 30), (0, 20)):
        episode = Episode(total=0.0, length=10, steps=steps, version=1)
        progress.add_episode(application, episode, target=200.0, now=0.0)
    assert [point.steps for point in progress.episodes] == [10, 40, 50]


def test_messages_come_back_as_they_were_sent() -> None:
    """One line each."""
    lines: list[bytes] = []
    episode = Episode(total=-1.5, length=3, steps=9, version=2)
    message_sender(lines.append)(episode)
    assert lines[0].endswith(b"\n")
    assert decode_message(lines[0]) == episode


@pytest.mark.parametrize(
    ("values", "shown"),
    [((), ""), ((1.0,), "▁"), ((0.0, 1.0), "▁█"), ((2.0, 2.0), "▁▁"), ((0.0, 9.0, 1.0), "▁█▂")],
)
def test_a_sparkline_runs_from_the_lowest_to_the_highest(
    values: tuple[float, ...], shown: str
) -> None:
    """And a flat one does not divide by zero."""
    assert sparkline(values) == shown
    assert len(sparkline([float(v) for v in range(1000)], width=40)) == 40


@pytest.mark.parametrize(
    ("module", "own", "extra"), [("matplotlib", False, "examples"), ("torch", True, "all")]
)
def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, own: bool, extra: str
) -> None:
    """Before anything is started."""
    find = importlib.util.find_spec

    def without(name: str) -> ModuleSpec | None:
        return None if name == module else find(name)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(MissingExtraError, match=rf"rl4sys-stream\[{extra}\]"):
        require_extras(own=own)


def test_an_attached_demo_needs_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The image for applications has none."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    require_extras(own=False)


@pytest.mark.parametrize("place", ["/proc/rl4sys/runs", "file/runs"])
def test_a_folder_in_which_nothing_can_be_made_is_named(tmp_path: Path, place: str) -> None:
    """Before anything is started, and without a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot make a run folder in .*runs: .*--out"):
        make_run_folder(tmp_path / place, "client", {}, seed=1, wall_ms=0)
