"""What the agent sees: 12 numbers for each waiting job, none of them about which job it is.

Times go through a logarithm, since what matters between a minute and a week is their ratio. Of what
a user says about a job the request is known to be far too long; what became of the same user's last
jobs says more (Tsafrir, Etsion, Feitelson 2007, IEEE TPDS 18(6)).
"""

import math
from collections import Counter
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
    places, trace, count = np.asarray(jobs), cluster.trace, len(jobs)
    waits = cluster.time_s - trace.submit_s[places]
    requests = trace.request_s[places]
    needs = trace.processors[places]
    log_requests, log_needs = np.log(requests), np.log(needs)
    observation = np.zeros((PLACES, FEATURES), np.float32)
    mine = observation[:count]
    mine[:, 0] = np.log1p(waits)
    mine[:, 1] = log_requests
    mine[:, 2] = log_needs
    mine[:, 3] = log_requests + log_needs
    mine[:, 4] = needs <= cluster.free
    mine[:, 5] = cluster.free / cluster.processors
    mine[:, 6] = np.log((waits + requests) / np.maximum(requests, SHORTEST_S))
    mine[:, 7:] = _history(cluster, trace.users[places].tolist())
    mask = np.zeros(PLACES, np.bool_)
    mask[:count] = True
    prior = np.zeros(PLACES, np.float32)
    prior[:count] = AREA_WEIGHT * mine[:, 3]
    return View(jobs, observation, mask, prior)


def _history(cluster: Cluster, users: list[int]) -> list[tuple[float, float, float, bool, float]]:
    """For each waiting job what is known of its user.

    Mean, longest and shortest log run time of the jobs that ended last, whether there are any, and
    the user's share of the queue.
    """
    runs, known = cluster.trace.run_s, {}
    for user, waiting in Counter(users).items():
        logs = [math.log(runs[job]) for job in cluster.ended.get(user, ())] or [0.0]
        mean, any_ended = sum(logs) / len(logs), user in cluster.ended
        known[user] = (mean, max(logs), min(logs), any_ended, waiting / len(users))
    return [known[user] for user in users]
