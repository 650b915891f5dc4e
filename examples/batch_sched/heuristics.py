"""What one does today: rules that give every waiting job a score, and take the lowest.

Where two are equal, the job that came first goes first, unless a rule says otherwise.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from examples.batch_sched.cluster import Cluster

__all__ = ["HEURISTICS", "Heuristic", "play", "saf", "sjf"]

Heuristic = Callable[[Cluster, NDArray[np.int64]], NDArray[np.float64]]
"""The scores float64 [q] of the waiting jobs int64 [q] of a cluster; the lowest is next."""

F1_WEIGHT: Final = 870.0
LESS_THAN_AREAS_DIFFER: Final = 1e-6
"""Processor-seconds for each place in the trace: a million jobs make up one."""


def fcfs(cluster: Cluster, jobs: NDArray[np.int64]) -> NDArray[np.float64]:
    """First come, first served."""
    return cluster.trace.submit_s[jobs]


def sjf(cluster: Cluster, jobs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shortest job first, by request."""
    return cluster.trace.request_s[jobs]


def saf(cluster: Cluster, jobs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Smallest area first: request times processors."""
    return cluster.trace.request_s[jobs] * cluster.trace.processors[jobs]


def saf_lifo(cluster: Cluster, jobs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Smallest area first, and of equals, such as the jobs of an array, the last to come."""
    return saf(cluster, jobs) - LESS_THAN_AREAS_DIFFER * jobs


def f1(cluster: Cluster, jobs: NDArray[np.int64]) -> NDArray[np.float64]:
    """The best of four rules found by regression (Carastan-Santos and de Camargo, SC 2017).

    log10(request) · processors + 870 · log10(submission); the first job counts as submitted at 1 s.
    """
    trace = cluster.trace
    size = np.log10(np.maximum(trace.request_s[jobs], 1.0)) * trace.processors[jobs]
    return size + F1_WEIGHT * np.log10(np.maximum(trace.submit_s[jobs], 1.0))


def wfp3(cluster: Cluster, jobs: NDArray[np.int64]) -> NDArray[np.float64]:
    """-(wait / request)³ · processors: large jobs that wait (Tang et al., Cluster 2009)."""
    trace = cluster.trace
    waits = cluster.time_s - trace.submit_s[jobs]
    return -((waits / trace.request_s[jobs]) ** 3) * trace.processors[jobs]


def unicep(cluster: Cluster, jobs: NDArray[np.int64]) -> NDArray[np.float64]:
    """-wait / (log2(processors) · request) (Tang et al., Cluster 2009).

    The logarithm of one processor, 0, is taken as that of two: nothing is divided by it.
    """
    trace = cluster.trace
    waits = cluster.time_s - trace.submit_s[jobs]
    width = np.log2(np.maximum(trace.processors[jobs], 2))
    return -waits / (width * trace.request_s[jobs])


HEURISTICS: Final[Mapping[str, Heuristic]] = {
    "FCFS": fcfs,
    "SJF": sjf,
    "SAF": saf,
    "SAF-LIFO": saf_lifo,
    "F1": f1,
    "WFP3": wfp3,
    "UNICEP": unicep,
}


def play(cluster: Cluster, heuristic: Heuristic) -> None:
    """Let a heuristic choose until the cluster's part of the trace is over."""
    while not cluster.over:
        jobs = np.asarray(cluster.queue)
        cluster.start(int(jobs[heuristic(cluster, jobs).argmin()]))
