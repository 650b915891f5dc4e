"""The example pg_steer, from its command to a policy that is better than the default planner."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.integration, pytest.mark.learning]


@pytest.mark.timeout(300)
def test_an_agent_learns_to_steer_a_real_postgresql(tmp_path: Path) -> None:
    """Live, on two months of flights; what queries cost is counted in blocks, not in seconds.

    A hint that is chosen by chance costs several times what the planner's own choice does.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "rl4sys_stream", "demo", "pg_steer", "--plain", "--wheel"),
            *("--cost", "blocks", "--months", "2", "--timeout-s", "30", "--count", "1500"),
            *("--held-out", "100", "--static", "60", "--out", str(tmp_path)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    (folder,) = tmp_path.iterdir()
    (results,) = json.loads((folder / "results.json").read_text())
    scores = {score["name"]: score for score in results["scores"]}
    assert results["training"]["queries"] == 1500
    assert results["training"]["failed"] == results["training"]["refused"] == 0
    assert results["training"]["curve"][-1]["version"] >= 4
    assert scores["oracle"]["of_default"] < scores["agent"]["of_default"] < 0.6
    assert (folder / "learning_curve.png").stat().st_size > 0
    assert (folder / "comparison.png").stat().st_size > 0
    assert "| agent |" in (folder / "results.md").read_text()
