"""The chaos run in short: the whole system under a dozen random faults, and the control.

The long form is `make chaos`; both have the same harness, which keeps its own books.
"""

import pytest

from benchmarks.chaos.control import run_control
from benchmarks.chaos.report import write_report
from benchmarks.chaos.run import run_product
from benchmarks.chaos.settings import ChaosSettings, ClientPlan

pytestmark = pytest.mark.fault

CLIENTS = (ClientPlan("chaos_1", "PPO"), ClientPlan("chaos_2", "DQN"))


@pytest.mark.timeout(240)
def test_nothing_is_lost_or_trained_twice_under_random_faults(tmp_path):
    """Kills, forks, hangs, cuts, lost tails and poison; every end of a trajectory is found."""
    settings = ChaosSettings(
        minutes=0.22,
        faults=13,
        seed=33767,
        clients=CLIENTS,
        agents=2,
        lease_s=1.2,
        retain_s=2.0,
        cut_s=0.6,
    )
    result = run_product(tmp_path / "run", settings)
    assert not result.violations, "\n".join(result.violations)
    assert sum(fault.counts for fault in result.faults) >= 13
    for verdict in result.verdicts:
        assert verdict.ended > 100
        assert verdict.fates["trained"] > verdict.ended / 2
        assert verdict.fates["lost"] == verdict.twice == 0
    write_report(tmp_path / "report", result, None)
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "chaos.json",
        "chaos.md",
        "chaos.png",
    }


@pytest.mark.timeout(120)
def test_the_usual_design_fails_under_the_same_harness(tmp_path):
    """A harness that "publish, then ack" survives would prove nothing about ours."""
    settings = ChaosSettings(minutes=0.12, faults=9, seed=15881, clients=CLIENTS[:1], agents=2)
    control = run_control(tmp_path / "control", settings)
    assert control.trained > 0
    assert control.failed, control
