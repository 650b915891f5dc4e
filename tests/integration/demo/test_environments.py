"""Demos of other environments than Lunar Lander, in short."""

from pathlib import Path

import pytest

from tests.integration.demo.runs import DemoRun, finish, start_demo

pytestmark = pytest.mark.integration

BUDGET = ("--max-steps", "4000", "--seed", "1")


def demo(out: Path, task: str, *arguments: str) -> DemoRun:
    """A whole run with a small budget."""
    return finish(start_demo(out, *arguments, *BUDGET, task=task), out, 90)


def test_cartpole_is_played_in_several_environments_and_filmed(tmp_path: Path) -> None:
    """By the definition in workers/, with a film where it is wanted."""
    film = tmp_path / "film.webp"
    out = tmp_path / "runs"
    run = demo(out, "CartPole-v1", "--envs", "3", "--video", str(film), "--eval-episodes", "2")
    assert run.code == 1, run.output
    summary = run.summary
    assert (summary["environment"], summary["client"]) == ("CartPole-v1", "cartpole")
    assert summary["definition"] == "workers/cartpole.json"
    assert summary["settings"]["target"] == 475
    assert 4000 <= summary["steps_accepted"] <= 4002
    assert summary["steps_trained"] + summary["steps_pending"] == summary["steps_accepted"]
    assert summary["last_version"] > 1
    assert len(summary["evaluation_returns"]) == 2
    assert film.read_bytes()[8:12] == b"WEBP"
    assert (run.folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_observations_that_are_numbers_are_learned_by_the_defaults(tmp_path: Path) -> None:
    """The larger FrozenLake has no definition here; two applications share the steps."""
    run = demo(tmp_path, "FrozenLake8x8-v1", "--agents", "2", "--no-gif", "--eval-episodes", "3")
    assert run.code == 1, run.output
    summary = run.summary
    assert (summary["client"], summary["definition"]) == ("frozen_lake8x8", "the defaults")
    assert summary["steps_accepted"] == 4000
    assert summary["steps_other"] == 0
    assert len(summary["evaluation_returns"]) == 3
    assert summary["filmed_return"] is None


def test_without_a_target_a_run_ends_well_when_it_is_out_of_steps(tmp_path: Path) -> None:
    """Nobody says what is good in CliffWalking; its episodes have no end of their own either."""
    run = demo(tmp_path, "CliffWalking-v1", "--no-gif", "--max-episode-steps", "200")
    assert run.code == 0, run.output
    assert run.summary["learned"] is None
    assert run.summary["exit_reason"] == "step limit"
    assert run.summary["definition"] == "workers/cliff_walking.json"
    assert run.summary["episodes"] >= 4


def test_what_draws_no_pictures_is_learned_and_not_filmed(tmp_path: Path) -> None:
    """An application's own simulator draws none; it is evaluated all the same."""
    run = demo(tmp_path, "tests.integration.demo.undrawn:Undrawn-v0", "--eval-episodes", "2")
    assert run.code == 0, run.output
    assert len(run.summary["evaluation_returns"]) == 2
    assert run.summary["filmed_return"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("CartPoll-v1",), "did you mean CartPole-v1?"),
        (("CartPole-v1", "--algorithm", "PPPO"), "did you mean 'PPO'?"),
        (("CartPole-v1", "--config", "workers/lunar_lander.json"), "Box(shape=(8,)"),
        (("CartPole-v1", "--config", "nowhere.json"), "no such file"),
        (("CartPole-v1", "--video", "film.mp4"), "ends in .gif or .webp"),
        (("tests.integration.demo.undrawn:Undrawn-v0", "--video", "film.gif"), "no pictures"),
    ],
)
def test_what_cannot_be_played_is_refused_before_anything_starts(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Exit code 78, a sentence with the next move, no traceback and no run folder."""
    task, *rest = arguments
    out = tmp_path / "runs"
    process = start_demo(out, *rest, task=task)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 78, output
    assert words in output
    assert "Traceback" not in output
    assert not out.exists()
