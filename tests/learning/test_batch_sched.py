"""The example batch_sched, from its command to a schedule that is better than a rule's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.batch_sched.traces import PROCESSORS, busy_trace, write_swf

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = 6000

pytestmark = [pytest.mark.integration, pytest.mark.learning]


@pytest.mark.timeout(300)
def test_an_agent_learns_to_schedule_a_cluster(tmp_path: Path) -> None:
    """On a small trace, from nothing: by chance it is worse than SJF, at the end near SAF."""
    trace = write_swf(tmp_path / "busy.swf", busy_trace())
    done = subprocess.run(
        [
            *(sys.executable, "-m", "rl4sys_stream", "demo", "batch_sched", "--plain"),
            *("--trace", str(trace), "--processors", str(PROCESSORS)),
            *("--decisions", str(DECISIONS), "--out", str(tmp_path / "runs")),
            *("--config", str(quick_definition(tmp_path))),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    (results,) = json.loads((folder / "results.json").read_text())
    assert results["decisions"] >= DECISIONS
    curve = results["curve"]
    assert curve[-1]["version"] >= 10
    best = min(point["geometric_mean"] for point in curve)
    assert best < 0.6 * curve[0]["geometric_mean"]
    held_out = {name: means["geometric_mean"] for name, means in results["held_out"].items()}
    assert held_out["agent"] < 0.6 * held_out["FCFS"]
    assert (folder / "learning_curve.png").stat().st_size > 0
    assert (folder / "comparison.png").stat().st_size > 0
    assert "| agent |" in (folder / "results.md").read_text()


def quick_definition(folder: Path) -> Path:
    """The example's own, with smaller and more updates."""
    definition = json.loads((ROOT / "workers" / "batch_sched.json").read_text())
    definition["algorithm_parameters"] |= {"n_steps": 512, "batch_size": 128, "learning_rate": 3e-3}
    path = folder / "batch_sched.json"
    path.write_text(json.dumps(definition))
    return path
