"""A cluster of equal processors, event by event: jobs arrive, are chosen, run, and end.

Whoever schedules chooses which waiting job is the next to start. If there is no room for it, it
gets a reservation for the earliest moment at which there will be by the running jobs' requests, and
others may start before it where they do not delay that: EASY backfilling (Lifka 1995, "The
ANL/IBM SP Scheduling System"; Mu'alem and Feitelson 2001, IEEE TPDS 12(6)).
"""

from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Final

from examples.batch_sched.swf import Trace, TraceError

__all__ = ["HISTORY", "Cluster", "Reservation", "Snapshot"]

HISTORY: Final = 2
"""Of each user's jobs, so many of those that ended last are remembered."""
NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A cluster at one moment; jobs are numbers in the trace.

    Attributes:
        time_s: The moment.
        queue: Waiting jobs, in order of arrival.
        running: Running jobs and when each was started.
        next_job: The first that has not arrived.
        ended: User -> the jobs of theirs that ended last, at most `HISTORY`, oldest first.
    """

    time_s: float = 0.0
    queue: tuple[int, ...] = ()
    running: tuple[tuple[int, float], ...] = ()
    next_job: int = 0
    ended: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a job that waits for room has been promised.

    Attributes:
        time_s: When there will be room for it at the latest.
        spare: Processors that will be free beside it then.
    """

    time_s: float
    spare: int


class Cluster:
    """Runs a trace, or a part of it; whoever schedules calls `start` until it is `over`.

    Attributes:
        trace: All jobs.
        processors: How many there are.
        time_s: Now.
        free: Processors that are idle.
        queue: Waiting jobs, in order of arrival; not to be changed.
        started: Job -> when it was started, since `restore`, and of those that ran then.
        ended: See `Snapshot.ended`.
    """

    def __init__(self, trace: Trace, processors: int) -> None:
        """An empty cluster before the first job.

        Raises:
            TraceError: If a job needs more processors than there are.
        """
        largest = int(trace.processors.max())
        if largest > processors:
            raise TraceError(
                f"a job of the trace needs {largest} processors, the cluster has {processors}; "
                "give it as many"
            )
        self.trace, self.processors = trace, processors
        # Plain numbers: a simulation reads single ones, at which arrays are slow.
        self._submit: list[float] = trace.submit_s.tolist()
        self._run: list[float] = trace.run_s.tolist()
        self._request: list[float] = trace.request_s.tolist()
        self._needs: list[int] = trace.processors.tolist()
        self._users: list[int] = trace.users.tolist()
        self.restore(Snapshot(), len(trace))

    def restore(self, snapshot: Snapshot, end: int) -> None:
        """Go on from `snapshot`; no job from number `end` on will arrive.

        Time passes until there is a job to choose.
        """
        self.time_s, self._next, self._end = snapshot.time_s, snapshot.next_job, end
        self.queue: list[int] = list(snapshot.queue)
        self.started: dict[int, float] = dict(snapshot.running)
        self.ended: dict[int, tuple[int, ...]] = dict(snapshot.ended)
        self._ends = [(start + self._run[job], job) for job, start in snapshot.running]
        heapify(self._ends)
        # By the time until which each may run: (time, job). Reservations go through it in order.
        self._due = sorted((start + self._request[job], job) for job, start in snapshot.running)
        self.free = self.processors - sum(self._needs[job] for job, _ in snapshot.running)
        self._arrive()
        self._await_choice()

    def snapshot(self) -> Snapshot:
        """The cluster as it stands."""
        running = tuple((job, self.started[job]) for _, job in self._ends)
        return Snapshot(self.time_s, tuple(self.queue), running, self._next, dict(self.ended))

    @property
    def over(self) -> bool:
        """True if nothing waits, and nothing will arrive."""
        return not self.queue and self._next >= self._end

    @property
    def next_job(self) -> int:
        """The first that has not arrived."""
        return self._next

    def running(self) -> list[int]:
        """Jobs that run, in no order."""
        return [job for _, job in self._ends]

    def start(self, job: int) -> None:
        """Start a job of the queue as soon as there is room, then wait for the next choice.

        Others are backfilled while it waits.
        """
        if self._needs[job] > self.free:
            self._wait_for_room(job)
        self._launch(job)
        self._await_choice()

    def reservation(self, job: int) -> Reservation:
        """When there will be room for `job` if all running jobs take as long as requested."""
        needed, free, time_s = self._needs[job], self.free, self.time_s
        for due_s, other in self._due:
            # All that are due at that moment make room, not only as many as it takes.
            if free >= needed and due_s > time_s:
                break
            free += self._needs[other]
            time_s = due_s
        return Reservation(time_s, free - needed)

    def _wait_for_room(self, job: int) -> None:
        """Let time pass until `job` fits.

        Whom an event cannot help is not looked at again: where nothing has ended, only those that
        have just arrived can be backfilled.
        """
        reserved, candidates = self.reservation(job), self.queue
        while True:
            reserved = self._backfill(job, reserved, list(candidates))
            before, waiting = self.free, len(self.queue)
            self._advance()
            if self._needs[job] <= self.free:
                return
            if self.free > before:
                reserved, candidates = self.reservation(job), self.queue
            else:
                candidates = self.queue[waiting:]

    def _backfill(self, job: int, reserved: Reservation, candidates: list[int]) -> Reservation:
        """Start what fits now and does not delay `job`; what its reservation is then."""
        spare = reserved.spare
        for other in candidates:
            if not self.free:
                break
            needs = self._needs[other]
            if other == job or needs > self.free:
                continue
            if self.time_s + self._request[other] > reserved.time_s:
                if needs > spare:
                    continue
                spare -= needs
            self._launch(other)
        return Reservation(reserved.time_s, spare)

    def _launch(self, job: int) -> None:
        self.queue.remove(job)
        self.started[job] = self.time_s
        self.free -= self._needs[job]
        heappush(self._ends, (self.time_s + self._run[job], job))
        insort(self._due, (self.time_s + self._request[job], job))

    def _await_choice(self) -> None:
        while not self.queue and self._next < self._end:
            self._advance()

    def _advance(self) -> None:
        """To the next event: all that ends or arrives at that moment."""
        arrival_s = self._submit[self._next] if self._next < self._end else NEVER
        end_s = self._ends[0][0] if self._ends else NEVER
        self.time_s = max(self.time_s, min(arrival_s, end_s))
        while self._ends and self._ends[0][0] <= self.time_s:
            self._finish(heappop(self._ends)[1])
        self._arrive()

    def _finish(self, job: int) -> None:
        self.free += self._needs[job]
        del self._due[bisect_left(self._due, (self.started[job] + self._request[job], job))]
        user = self._users[job]
        self.ended[user] = (*self.ended.get(user, ()), job)[-HISTORY:]

    def _arrive(self) -> None:
        while self._next < self._end and self._submit[self._next] <= self.time_s:
            self.queue.append(self._next)
            self._next += 1
