"""The cluster, against a simulation that looks at every second."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.batch_sched.cluster import Cluster, Reservation, Snapshot
from examples.batch_sched.swf import Trace, TraceError
from tests.unit.batch_sched.traces import PROCESSORS, busy_trace, small_traces, trace_of

SIZE = 6


def liked(salt: int, job: int) -> tuple[int, int]:
    """A rule without sense, so that every order comes up."""
    return (job * 7919 + salt) % 13, job


class Slow:
    """EASY backfilling by its definition: others may start if the reserved job is not delayed.

    When that one could start is found by looking at every later second.
    """

    def __init__(self, trace: Trace, salt: int) -> None:
        self.trace, self.salt = trace, salt
        self.started: dict[int, int] = {}
        self.now = 0

    def free(self, second: int, length: np.ndarray) -> int:
        """Processors that are idle at `second` if what is started takes as long as `length`."""
        busy = [
            int(self.trace.processors[job])
            for job, start in self.started.items()
            if start <= second < start + length[job]
        ]
        return SIZE - sum(busy)

    def fits(self, job: int) -> bool:
        """Whether there is room for it now."""
        return int(self.trace.processors[job]) <= self.free(self.now, self.trace.run_s)

    def possible(self, job: int) -> int:
        """The first second with room for a job by the requests of what runs."""
        needed, second = int(self.trace.processors[job]), self.now
        running = np.asarray(
            [
                0.0
                if job in self.started and self.started[job] + self.trace.run_s[job] <= self.now
                else self.trace.request_s[job]
                for job in range(len(self.trace))
            ]
        )
        while self.free(second, running) < needed:
            second += 1
        return second

    def run(self) -> dict[int, int]:
        """All starts."""
        chosen: int | None = None
        while len(self.started) < len(self.trace):
            waiting = [
                job
                for job in range(len(self.trace))
                if job not in self.started and self.trace.submit_s[job] <= self.now
            ]
            if chosen is None and waiting:
                chosen = min(waiting, key=lambda job: liked(self.salt, job))
            if chosen is not None and self.fits(chosen):
                self.started[chosen] = self.now
                chosen = None
                continue  # somebody else is chosen in the same second
            if chosen is not None:
                self.backfill(chosen, [job for job in waiting if job != chosen])
            self.now += 1
        return self.started

    def backfill(self, chosen: int, others: list[int]) -> None:
        """Start those of `others` that leave the first possible second of `chosen` as it is."""
        promised = self.possible(chosen)
        for job in others:
            if self.fits(job):
                self.started[job] = self.now
                if self.possible(chosen) > promised:
                    del self.started[job]


@settings(deadline=None)  # a busy machine is no failure
@given(small_traces(SIZE), st.integers(0, 12))
def test_it_starts_every_job_when_a_simulation_by_the_second_does(trace: Trace, salt: int) -> None:
    """Events, reservations by sorted requests and remembered refusals are short cuts, no more."""
    cluster = Cluster(trace, SIZE)
    while not cluster.over:
        cluster.start(min(cluster.queue, key=lambda job: liked(salt, job)))
    assert cluster.started == Slow(trace, salt).run()


@settings(deadline=None)  # a busy machine is no failure
@given(small_traces(SIZE), st.integers(0, 12))
def test_no_backfilled_job_delays_a_reservation(trace: Trace, salt: int) -> None:
    """What makes EASY fair to large jobs: the promise at the choice is kept."""
    cluster = Cluster(trace, SIZE)
    while not cluster.over:
        job = min(cluster.queue, key=lambda job: liked(salt, job))
        promised = cluster.reservation(job)
        cluster.start(job)
        assert cluster.started[job] <= promised.time_s


def test_there_are_never_more_processors_in_use_than_there_are() -> None:
    """On a trace of a size that is really scheduled."""
    trace = busy_trace(days=4)
    cluster = Cluster(trace, PROCESSORS)
    while not cluster.over:
        cluster.start(cluster.queue[0])
    starts = np.asarray([cluster.started[job] for job in range(len(trace))])
    assert (starts >= trace.submit_s).all()
    ends = starts + trace.run_s
    for moment in starts:
        assert trace.processors[(starts <= moment) & (moment < ends)].sum() <= PROCESSORS


def test_a_long_narrow_job_is_backfilled_beside_a_reservation_and_a_wide_one_is_not() -> None:
    """By hand: 4 processors, 2 of them busy until 10 s; the job that waits needs 3."""
    trace = trace_of((0, 10, 10, 2), (1, 5, 5, 3), (2, 50, 50, 2), (3, 50, 50, 1), (4, 6, 6, 1))
    cluster = Cluster(trace, 4)
    cluster.start(0)
    cluster.start(1)
    assert cluster.started == {0: 0.0, 1: 10.0, 3: 3.0, 4: 4.0}
    assert cluster.queue == [2]


def test_what_is_spare_beside_a_reservation_is_given_away_once() -> None:
    """By hand: 3 of 5 processors are busy until 10 s, 4 are reserved then, which leaves 1."""
    trace = trace_of((0, 10, 10, 3), (1, 5, 5, 4), (2, 50, 50, 1), (2, 50, 50, 1))
    cluster = Cluster(trace, 5)
    cluster.start(0)
    assert cluster.reservation(1) == Reservation(10.0, 1)
    cluster.start(1)
    assert cluster.started == {0: 0.0, 1: 10.0, 2: 2.0}


def test_all_that_is_due_at_the_moment_of_a_reservation_makes_room_then() -> None:
    """By hand: two jobs end at 5 s, one of them is enough, and what the other leaves is spare."""
    trace = trace_of((0, 5, 5, 1), (0, 5, 5, 1), (0, 1, 1, 5), (0, 6, 6, 1))
    cluster = Cluster(trace, 6)
    for job in (0, 1, 2):
        cluster.start(job)
    assert cluster.started == {0: 0.0, 1: 0.0, 2: 5.0, 3: 0.0}


@settings(deadline=None)  # a busy machine is no failure
@given(small_traces(SIZE), st.integers(0, 9))
def test_a_restored_cluster_goes_on_as_the_one_that_it_was_taken_from(
    trace: Trace, taken: int
) -> None:
    """An episode begins in the middle of another run."""
    cluster, other = Cluster(trace, SIZE), Cluster(trace, SIZE)
    for _ in range(taken):
        if not cluster.over:
            cluster.start(cluster.queue[-1])
    other.restore(cluster.snapshot(), len(trace))
    assert (other.time_s, other.free, other.queue) == (cluster.time_s, cluster.free, cluster.queue)
    while not cluster.over:
        cluster.start(cluster.queue[-1])
    while not other.over:
        other.start(other.queue[-1])
    assert cluster.started.items() >= other.started.items()
    assert cluster.ended == other.ended


def test_what_ended_is_remembered_by_user_the_last_two_jobs() -> None:
    """From which the agent guesses how long the next one takes."""
    trace = trace_of(*[(second, 1, 2, 1) for second in range(0, 40, 2)])
    cluster = Cluster(trace, 4)
    while not cluster.over:
        cluster.start(cluster.queue[0])
    assert cluster.ended[0] == (15, 18)
    assert cluster.ended[1] == (13, 16)
    assert cluster.snapshot().ended == cluster.ended


def test_nobody_arrives_after_the_end_of_a_part() -> None:
    """Windows end, traces go on."""
    trace = trace_of((0, 9, 9, 1), (1, 9, 9, 1), (2, 9, 9, 1))
    cluster = Cluster(trace, 1)
    cluster.restore(Snapshot(), 2)
    cluster.start(0)
    cluster.start(1)
    assert cluster.over
    assert cluster.started == {0: 0.0, 1: 9.0}


def test_a_cluster_that_is_too_small_for_a_job_is_refused() -> None:
    """It would wait for ever."""
    with pytest.raises(TraceError, match="needs 5 processors, the cluster has 4"):
        Cluster(trace_of((0, 1, 1, 5)), 4)
