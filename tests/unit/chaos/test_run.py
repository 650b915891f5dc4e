"""What makes a run a pass, beside the judge: enough faults, enough trained, and no error."""

from collections import Counter

import pytest

from benchmarks.chaos.faults import KINDS
from benchmarks.chaos.judge import ClientVerdict
from benchmarks.chaos.run import ChaosResult, check_faults, check_share, find_tracebacks
from benchmarks.chaos.schedule import FaultRecord
from benchmarks.chaos.settings import ChaosSettings, ClientPlan

EACH = [kind.name for kind in KINDS]


def result(kinds: list[str], *, minutes: float, failed: str = "") -> ChaosResult:
    """Of a run in which these struck, of which as many as kinds were wanted."""
    clients = (ClientPlan("chaos", "PPO"),)
    settings = ChaosSettings(minutes=minutes, faults=len(KINDS), seed=1, clients=clients, agents=1)
    faults = [FaultRecord(kind, "chaos", 0.0, 1.0, 0, "done", failed) for kind in kinds]
    return ChaosResult(settings, faults)


def test_every_kind_struck_once_is_enough():
    """As many as were wanted, too."""
    assert check_faults(result(EACH, minutes=20.0)) == []


@pytest.mark.parametrize("kinds", [EACH[1:], []])
def test_a_run_with_too_few_faults_proves_nothing(kinds):
    """However short it is."""
    (violation,) = check_faults(result(kinds, minutes=1.0))
    assert "were wanted" in violation


def test_a_fault_that_could_not_be_carried_out_does_not_count():
    """It is told, and that is all."""
    assert check_faults(result(EACH, minutes=1.0, failed="no broker"))


def test_a_long_run_meets_every_kind():
    """A short one has no time for that."""
    kinds = [EACH[0], *EACH[:-1]]
    assert check_faults(result(kinds, minutes=1.0)) == []
    (violation,) = check_faults(result(kinds, minutes=5.0))
    assert EACH[-1] in violation


@pytest.mark.parametrize(
    ("trained", "skipped", "pending", "passes"),
    [(95, 5, 0, True), (94, 6, 0, False), (76, 4, 20, True), (75, 5, 20, False)],
)
def test_nearly_everything_must_be_trained_on(trained, skipped, pending, passes):
    """Of what does not wait: how little may wait is the judge's business."""
    fates = Counter(trained=trained, skipped=skipped, pending=pending)
    verdict = ClientVerdict("chaos", ended=100, fates=fates)
    assert (check_share(verdict) == []) is passes


def test_a_traceback_in_a_log_is_quoted():
    """Each of them."""
    one = "Traceback (most recent call last):\n  File x\nValueError: no\n"
    found = find_tracebacks("a.log", f"well\n{one}well\n{one}")
    assert len(found) == 2
    assert all("a.log" in text and "ValueError: no" in text for text in found)
    assert find_tracebacks("a.log", "well\n") == []
