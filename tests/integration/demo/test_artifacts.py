"""What a demo leaves behind, and what it ends with."""

import json

import pytest

from tests.integration.demo.runs import DemoRun, alive, children, finish, start_demo

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """A run whose target anything reaches as soon as 100 episodes are over."""
    out = tmp_path_factory.mktemp("learned")
    options = ("--target", "-1000", "--max-steps", "20000", "--no-gif", "--seed", "3")
    return finish(start_demo(out, *options), out)


@pytest.fixture(scope="module")
def not_learned(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """A run that is out of steps before it can have learned."""
    out = tmp_path_factory.mktemp("not_learned")
    return finish(start_demo(out, "--max-steps", "5000"), out)


def test_a_run_that_reaches_its_target_exits_with_0(learned: DemoRun) -> None:
    """The exit code says that it learned, and the summary why it ended."""
    assert learned.code == 0, learned.output
    assert learned.summary["learned"]
    assert learned.summary["exit_reason"] == "target reached"
    assert learned.summary["episodes"] >= 100
    assert learned.summary["steps_to_target"] <= learned.summary["steps"]


def test_a_run_that_is_out_of_steps_exits_with_1(not_learned: DemoRun) -> None:
    """The exit code says that it did not learn."""
    assert not_learned.code == 1, not_learned.output
    assert not not_learned.summary["learned"]
    assert not_learned.summary["exit_reason"] == "step limit"
    assert not_learned.summary["steps_to_target"] is None


def test_the_last_line_names_the_run_folder(learned: DemoRun) -> None:
    """Whoever ran it finds what it left."""
    assert learned.output.splitlines()[-1] == f"run folder: {learned.folder}"


def test_the_run_folder_holds_the_artifacts(not_learned: DemoRun) -> None:
    """Pictures, film, logs and numbers are there and are what their names say."""
    folder = not_learned.folder
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    for name in ("worker.log", "dispatcher.log", "application.log", "episodes.json"):
        assert (folder / name).stat().st_size > 0, name
    film = (folder / "landing.gif").read_bytes()
    assert film.startswith(b"GIF89a")
    assert len(film) <= 1_500_000


def test_no_film_is_made_when_none_is_wanted(learned: DemoRun) -> None:
    """--no-gif saves the time."""
    assert not (learned.folder / "landing.gif").exists()
    assert learned.summary["evaluation_returns"] == []


def test_every_step_is_accounted_for(not_learned: DemoRun) -> None:
    """What the application took is what the agent accepted, and trained + pending is all of it."""
    summary = not_learned.summary
    assert summary["settled"]
    assert summary["steps_accepted"] == 5000
    assert summary["steps_other"] == 0
    assert summary["steps_trained"] + summary["steps_pending"] == 5000
    # Two whole rollouts of 2048 steps, and up to one trajectory more each.
    assert 2 * 2048 <= summary["steps_trained"] <= 2 * (2048 + 256)
    assert summary["trained_share"] == pytest.approx(summary["steps_trained"] / 5000, abs=1e-6)
    assert summary["last_version"] == 3
    trajectories = summary["trajectories"]
    assert trajectories["accepted"] == trajectories["trained"] + trajectories["pending"]


def test_the_simulator_stays_close_to_the_learner(learned: DemoRun) -> None:
    """No step is acted by a policy that is more than one version old."""
    assert learned.summary["policy_lag_max"] <= 1.0


def test_the_episodes_agree_with_the_summary(learned: DemoRun) -> None:
    """The columns have one value an episode, and end where the summary does."""
    episodes = json.loads((learned.folder / "episodes.json").read_text())
    assert {len(column) for column in episodes.values()} == {learned.summary["episodes"]}
    assert episodes["mean"][-1] == learned.summary["mean_return"]
    assert episodes["steps"][-1] == sum(episodes["length"]) == learned.summary["steps"]


def test_nothing_goes_on_after_the_end(learned: DemoRun) -> None:
    """Worker, application and broker are gone when the command returns."""
    pids = children(learned.folder)
    assert len(pids) == 3
    assert not alive(pids)


def test_no_log_holds_the_password(not_learned: DemoRun) -> None:
    """The broker's password is in its own file only."""
    record = json.loads((not_learned.folder / "broker" / "server.json").read_text())
    others = [p for p in not_learned.folder.glob("*.*") if p.is_file()]
    assert others
    assert not [p for p in others if record["password"].encode() in p.read_bytes()]
    assert record["password"] not in not_learned.output
