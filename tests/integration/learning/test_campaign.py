"""A small campaign from the command line to the report: whole processes, both sides."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from benchmarks.learning.__main__ import main
from benchmarks.learning.record import Run
from benchmarks.learning.report import Report

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),  # several processes load torch, one after the other
    # Box2D's bindings warn while they are loaded, and crash if that becomes an error.
    pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning"),
]

STEPS = 600


def compare(folder: Path, *options: str) -> Result:
    """The command, with a budget of a few seconds."""
    common = ["--seeds", "1", "--max-steps", str(STEPS), "--out", str(folder / "runs")]
    result = CliRunner().invoke(main, [*common, "--results", str(folder / "docs"), *options])
    assert result.exit_code == 0, result.output
    return result


def read(folder: Path, case: str, side: str) -> Run:
    """A kept run with seed 1."""
    path = folder / "runs" / case / f"{side}-1.json"
    return msgspec.json.decode(path.read_bytes(), type=Run)


def test_both_sides_run_and_are_reported(tmp_path: Path) -> None:
    """Figures of both, a table, a picture; and a second call repeats nothing."""
    asked = ("--cases", "ppo_cartpole", "--sides", "sb3,ours")
    first = compare(tmp_path, *asked)
    for side in ("sb3", "ours"):
        run = read(tmp_path, "ppo_cartpole", side)
        assert run.steps_to_target is None
        assert run.facts["steps"] >= STEPS
        assert 0 < run.curve.steps[-1] <= run.facts["steps"]
        assert run.curve.steps == sorted(run.curve.steps)
        # An episode of this environment earns one for each step, and eight are played at once.
        assert run.curve.steps[-1] >= sum(run.curve.returns) > run.curve.steps[-1] / 3
        assert f"{side:16} seed 1" in first.output
    ours = read(tmp_path, "ppo_cartpole", "ours")
    assert ours.facts["versions"] >= 2
    assert ours.facts["unused_trajectories"] == 0
    report = msgspec.json.decode((tmp_path / "docs" / "learning.json").read_bytes(), type=Report)
    assert [side.side for side in report.cases["ppo_cartpole"].sides] == ["sb3", "ours"]
    assert report.threads["ppo_cartpole"].threads >= 1
    assert (tmp_path / "docs" / "learning_ppo_cartpole.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "docs" / "learning.md").read_text()
    assert "| ours | 0 of 1 | – (– to –) |" in table
    compare(tmp_path, *asked, "--resume")
    assert read(tmp_path, "ppo_cartpole", "ours") == ours


def test_agents_that_are_behind_act_with_old_versions(tmp_path: Path) -> None:
    """Two versions behind: the learner measures it, and the other sides' results are kept."""
    sides = ["lag_0_vtrace", "lag_2_vtrace"]
    for side in sides:
        compare(tmp_path, "--cases", "ppo_lag", "--sides", side, "--max-steps", "9000")
    lags = [read(tmp_path, "ppo_lag", side).facts["lag_mean"] for side in sides]
    assert lags[0] < 0.5
    assert lags[1] > lags[0] + 0.5  # the first versions have none so old before them
    report = msgspec.json.decode((tmp_path / "docs" / "learning.json").read_bytes(), type=Report)
    assert [side.side for side in report.cases["ppo_lag"].sides] == sides


def test_an_unknown_side_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    """Before anything runs."""
    asked = ["--cases", "ppo_cartpole", "--sides", "sb4", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 2
    assert "no side 'sb4'; there are ours, ours_own, sb3" in result.output


def test_several_applications_feed_one_learner(tmp_path: Path) -> None:
    """They begin together, and their steps are counted together."""
    compare(tmp_path, "--cases", "ppo_agents", "--sides", "agents_4")
    run = read(tmp_path, "ppo_agents", "agents_4")
    assert run.facts["steps"] >= STEPS
    assert run.facts["trained_share"] <= 1.0
