"""Windows: contended parts of a trace, and which of them are for what."""

import numpy as np
import pytest

from examples.batch_sched.cluster import Cluster
from examples.batch_sched.evaluation import baselines
from examples.batch_sched.heuristics import HEURISTICS, play
from examples.batch_sched.swf import TraceError
from examples.batch_sched.windows import FOLDS, Selection, make_windows, slowdown, split
from tests.unit.batch_sched.traces import PROCESSORS, busy_trace, trace_of

SELECTION = Selection(processors=PROCESSORS)


@pytest.fixture(scope="module")
def trace():
    """Two months of rush hours."""
    return busy_trace()


@pytest.fixture(scope="module")
def windows(trace):
    """Of them."""
    return make_windows(trace, SELECTION)


def test_a_slowdown_is_the_stay_over_the_run_but_of_at_least_ten_seconds():
    """By hand: 1 for the first, (20 + 30) / 30, and (49 + 1) / 10."""
    cluster = Cluster(trace_of((0, 20, 20, 1), (0, 30, 30, 1), (1, 1, 1, 1)), 1)
    play(cluster, HEURISTICS["FCFS"])
    assert slowdown(cluster, np.arange(3)) == pytest.approx((1 + 50 / 30 + 5) / 3)


def test_every_window_is_contended_and_begins_in_the_middle_of_a_run(windows):
    """There is something to decide in each."""
    assert len(windows) > 50
    for window in windows:
        assert SELECTION.least < window.sjf < SELECTION.most
        assert len(window.arrivals) == SELECTION.arrivals
        assert window.start.time_s >= SELECTION.skip_s
    assert sum(len(window.start.running) for window in windows) > len(windows)


def test_a_window_repeats_what_was_reached_on_it(trace, windows):
    """The reward's yardstick and the table's row are the same run."""
    cluster = Cluster(trace, PROCESSORS)
    (sjf,) = baselines(cluster, windows[:5], {"SJF": HEURISTICS["SJF"]})
    assert sjf.slowdowns == tuple(window.sjf for window in windows[:5])


def test_no_job_arrives_in_two_parts_of_a_split(trace, windows):
    """Or one would be judged by what one has learned from."""
    for fold in range(FOLDS):
        parts = split(trace, windows, SELECTION, fold)
        arrivals = [
            {job for window in part for job in window.arrivals}
            for part in (parts.training, parts.validation, parts.held_out)
        ]
        assert all(arrivals)
        assert sum(map(len, arrivals)) == len(set.union(*arrivals))


def test_every_window_is_held_out_in_exactly_one_fold(trace, windows):
    """Three agents judge all of the trace, each what it has not seen."""
    held_out = [split(trace, windows, SELECTION, fold).held_out for fold in range(FOLDS)]
    assert sorted(window.start.time_s for part in held_out for window in part) == sorted(
        window.start.time_s for window in windows
    )


def test_an_idle_cluster_has_no_windows():
    """And the error says what to change."""
    with pytest.raises(TraceError, match="fewer processors"):
        make_windows(busy_trace(days=12), Selection(processors=4000))


def test_a_trace_too_short_to_split_is_refused():
    """A week holds one block, which cannot be learned from and judged by."""
    trace = busy_trace(days=8)
    with pytest.raises(TraceError, match="longer trace"):
        split(trace, make_windows(trace, SELECTION), SELECTION)
