"""Demos that are stopped: in order, or not."""

import signal
from pathlib import Path

import pytest

from rl4sys_stream.testing import eventually
from tests.integration.demo.runs import alive, children, finish, only_folder, start_demo

pytestmark = pytest.mark.integration


def _learning(out: Path) -> bool:
    """Whether the application's agent has begun, and a version was trained."""
    log = only_folder(out) / "worker.log"
    return "version=2" in log.read_text()


def test_an_interrupted_demo_leaves_its_artifacts_and_no_process(tmp_path: Path) -> None:
    """Ctrl-C ends everything in order: curve, summary, exit code 130."""
    process = start_demo(tmp_path, "--no-gif")
    eventually(lambda: _learning(tmp_path), 40, ignoring=(OSError, ValueError))
    process.send_signal(signal.SIGINT)
    run = finish(process, tmp_path, 40)
    assert run.code == 130, run.output
    assert run.summary["exit_reason"] == "interrupted"
    assert run.summary["steps_trained"] >= 2048
    assert (run.folder / "learning_curve.png").exists()
    assert not alive(children(run.folder))


@pytest.mark.fault
def test_a_killed_demo_leaves_no_process(tmp_path: Path) -> None:
    """SIGKILL of the command ends worker, application and broker too."""
    process = start_demo(tmp_path, "--no-gif")
    eventually(lambda: _learning(tmp_path), 40, ignoring=(OSError, ValueError))
    pids = children(only_folder(tmp_path))
    assert len(alive(pids)) == 3
    process.kill()
    process.communicate()
    eventually(lambda: not alive(pids), 20, "worker, application and broker end")
