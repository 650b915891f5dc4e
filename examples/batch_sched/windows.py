"""Windows: parts of a trace that begin with a full cluster, for training and for judging.

A cluster that begins empty never fills within a few hundred jobs, and every scheduler is perfect on
it. So the whole trace is run once by SAF, and windows begin at moments of that run. Those in which
nobody waits are left out: there is nothing to decide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from examples.batch_sched.cluster import Cluster, Snapshot
from examples.batch_sched.heuristics import Heuristic, play, saf, sjf
from examples.batch_sched.swf import Trace, TraceError

__all__ = ["FOLDS", "Selection", "Split", "Window", "make_windows", "slowdown", "split"]

BOUND_S: Final = 10.0
"""A shorter run counts as one of 10 s (Feitelson 1997), or a second's job would outweigh all."""
DAY_S: Final = 86_400.0
FOLDS: Final = 3
VALIDATION_OF: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a window is.

    Attributes:
        processors: Of the cluster.
        skip_s: The trace's beginning, in which the cluster fills.
        every: Arrivals between the beginnings of two windows.
        arrivals: Jobs that arrive in a window.
        longest_queue: A window whose queue begins with more is left out.
        least: One in which SJF's slowdown is less has nothing to decide.
        most: One in which it is more is beyond help.
        block_s: Windows within blocks of this length belong to one part of the split.
    """

    processors: int = 1100
    skip_s: float = 4 * DAY_S
    every: int = 16
    arrivals: int = 128
    longest_queue: int = 250
    least: float = 1.5
    most: float = 500.0
    block_s: float = 4 * DAY_S


@dataclass(frozen=True, slots=True)
class Window:
    """An episode: the jobs that wait at first, and those that arrive.

    Attributes:
        start: The cluster at first.
        end: The job before which arrivals stop.
        sjf: Mean bounded slowdown of shortest job first: what the agent's reward is relative to.
    """

    start: Snapshot
    end: int
    sjf: float

    @property
    def arrivals(self) -> range:
        """The jobs that arrive in it."""
        return range(self.start.next_job, self.end)

    @property
    def jobs(self) -> NDArray[np.int64]:
        """The jobs that are scheduled in it."""
        return np.asarray([*self.start.queue, *self.arrivals])


@dataclass(frozen=True, slots=True)
class Split:
    """Windows by their use; no job arrives in two of the parts.

    Attributes:
        training: To learn from.
        validation: To choose the version by.
        held_out: To judge by.
    """

    training: tuple[Window, ...]
    validation: tuple[Window, ...]
    held_out: tuple[Window, ...]


def slowdown(cluster: Cluster, jobs: NDArray[np.int64]) -> float:
    """Mean bounded slowdown of jobs that were all started: (wait + run) / max(run, 10 s) ≥ 1."""
    trace = cluster.trace
    starts = np.asarray([cluster.started[job] for job in jobs.tolist()])
    runs = trace.run_s[jobs]
    stays = starts - trace.submit_s[jobs] + runs
    return float(np.maximum(stays / np.maximum(runs, BOUND_S), 1.0).mean())


def make_windows(trace: Trace, selection: Selection) -> list[Window]:
    """The contended windows of a trace.

    Raises:
        TraceError: If the cluster is too small for a job, or there is no such window.
    """
    cluster = Cluster(trace, selection.processors)
    windows = []
    for snapshot in list(_snapshots(cluster, selection, saf)):
        window = Window(snapshot, snapshot.next_job + selection.arrivals, 1.0)
        cluster.restore(window.start, window.end)
        play(cluster, sjf)
        reached = slowdown(cluster, window.jobs)
        if selection.least < reached < selection.most:
            windows.append(Window(window.start, window.end, reached))
    if not windows:
        raise TraceError(
            f"on {selection.processors} processors no {selection.arrivals} jobs of this trace "
            "compete for room: give the cluster fewer processors"
        )
    return windows


def _snapshots(cluster: Cluster, selection: Selection, rule: Heuristic) -> Iterator[Snapshot]:
    """The cluster after each `selection.every` arrivals of a run by `rule`."""
    seen = 0
    while not cluster.over:
        due = cluster.next_job // selection.every
        if due > seen:
            seen = due
            late = cluster.time_s >= selection.skip_s
            room = cluster.next_job + selection.arrivals <= len(cluster.trace)
            if late and room and len(cluster.queue) < selection.longest_queue:
                yield cluster.snapshot()
        jobs = np.asarray(cluster.queue)
        cluster.start(int(jobs[rule(cluster, jobs).argmin()]))


def split(
    trace: Trace, windows: Sequence[Window], selection: Selection, fold: int = FOLDS - 1
) -> Split:
    """Divide windows by blocks of time: a third is held out, a fourth of the rest validates.

    What is held out is fixed first. A window in which a job arrives that also arrives in one of
    those is left out of validation, and one that shares arrivals with either of them out of
    training. Only what waits for days, longer than a border is wide, may be met on both sides.

    Args:
        trace: The jobs.
        windows: From all of it.
        selection: Of the blocks.
        fold: Which third of the blocks is held out, from 0: every window is, in one of the three.

    Raises:
        TraceError: If a part would be empty.
    """
    blocks = [int(trace.submit_s[window.start.next_job] / selection.block_s) for window in windows]
    remaining = sorted({block for block in blocks if block % FOLDS != fold})
    choosing = set(remaining[1::VALIDATION_OF])
    learning = set(remaining) - choosing
    numbered = list(zip(blocks, windows, strict=True))
    held_out = [window for block, window in numbered if block % FOLDS == fold]
    validation = _apart([window for block, window in numbered if block in choosing], held_out)
    training = [window for block, window in numbered if block in learning]
    training = _apart(training, [*held_out, *validation])
    if not (training and validation and held_out):
        raise TraceError(
            f"{len(windows)} contended windows in {len(remaining)} blocks are too few to learn "
            "from some and be judged by others: take a longer trace, or fewer processors"
        )
    return Split(tuple(training), tuple(validation), tuple(held_out))


def _apart(windows: Sequence[Window], others: Sequence[Window]) -> list[Window]:
    taken = {job for window in others for job in window.arrivals}
    return [window for window in windows if taken.isdisjoint(window.arrivals)]
