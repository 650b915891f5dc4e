"""What the agent sees: 12 numbers for each waiting job, none of them about which job it is.

Times go through a logarithm, since what matters between a minute and a week is their ratio. Of what
a user says about a job the request is known to be far too long; what became of the same user's last
jobs says more (Tsafrir, Etsion, Feitelson 2007, IEEE TPDS 18(6)).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from examples.batch_sched.cluster import Cluster
from rl4sys_stream import Box, Discrete

__all__ = ["ACTION_SPACE", "FEATURES", "OBSERVATION_SPACE", "PLACES", "View", "look"]

PLACES: Final = 128
"""Jobs that the agent can see; of a longer queue those that came first."""
FEATURES: Final = 12
OBSERVATION_SPACE: Final = Box((PLACES, FEATURES))
ACTION_SPACE: Final = Discrete(PLACES)
AREA_WEIGHT: Final = -1.5
"""Of the prior: at a hundred times the area a job is a thousand times less likely to be chosen."""
SHORTEST_S: Final = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The queue at one decision.

    Attributes:
        jobs: Numbers of the jobs in the first places.
        observation: float32 [128, 12]; zeros where there is no job.
        mask: bool [128], True where there is one.
        prior: float32 [128], logits by smallest area first; zeros where there is no job.
    """

    jobs: list[int]
    observation: NDArray[np.float32]
    mask: NDArray[np.bool_]
    prior: NDArray[np.float32]


def look(cluster: Cluster) -> View:
    """What the agent sees of a cluster's queue."""
    jobs = cluster.queue[:PLACES]
    trace, count = cluster.trace, len(jobs)
    waits = cluster.time_s - trace.submit_s[jobs]
    requests = trace.request_s[jobs]
    needs = trace.processors[jobs]
    log_areas = np.log(requests * needs)
    observation = np.zeros((PLACES, FEATURES), np.float32)
    mine = observation[:count]
    mine[:, 0] = np.log1p(waits)
    mine[:, 1] = np.log(requests)
    mine[:, 2] = np.log(needs)
    mine[:, 3] = needs <= cluster.free
    mine[:, 4] = cluster.free / cluster.processors
    mine[:, 5] = np.log((waits + requests) / np.maximum(requests, SHORTEST_S))
    mine[:, 6:11] = _users(cluster, jobs)
    mine[:, 11] = log_areas
    mask = np.zeros(PLACES, np.bool_)
    mask[:count] = True
    prior = np.zeros(PLACES, np.float32)
    prior[:count] = AREA_WEIGHT * log_areas
    return View(jobs, observation, mask, prior)


def _users(cluster: Cluster, jobs: list[int]) -> list[tuple[float, ...]]:
    """For each job of its user: mean, max, min log run time of the last, any, share of the queue."""
    users = cluster.trace.users[jobs].tolist()
    known: dict[int, tuple[float, ...]] = {}
    for user in set(users):
        runs = cluster.trace.run_s[list(cluster.ended.get(user, ()))]
        share = users.count(user) / len(users)
        if len(runs):
            logs = np.log(runs)
            known[user] = (logs.mean(), logs.max(), logs.min(), 1.0, share)
        else:
            known[user] = (0.0, 0.0, 0.0, 0.0, share)
    return [known[user] for user in users]
