"""The application: a batch scheduler that asks an agent which waiting job is next.

One window is one episode. What it brought is known only at its end, when all its jobs were started.
A decision with a single candidate is none: the job is started, and nobody is asked.
"""

import math
from pathlib import Path
from typing import Final

from examples.batch_sched.cluster import Cluster
from examples.batch_sched.features import look
from examples.batch_sched.windows import Window, slowdown
from rl4sys_stream import StreamAgent

__all__ = ["DEFINITION", "Scheduler", "make_agent", "reward"]

DEFINITION: Final = Path(__file__).parents[2] / "workers" / "batch_sched.json"
LIMIT: Final = 2.0


def make_agent(
    definition: Path = DEFINITION, *, redis_url: str | None = None, seed: int | None = None
) -> StreamAgent:
    """An agent that chooses among the places of the queue.

    Args:
        definition: Of the client, in workers/.
        redis_url: Of the broker; None takes the environment's.
        seed: Of its exploration.
    """
    return StreamAgent(definition, redis_url=redis_url, seed=seed)


def reward(window: Window, reached: float) -> float:
    """What an episode brought: log(SJF's mean bounded slowdown / `reached`), within ±2.

    Relative to a rule on the same window, since windows differ by a hundred times. Seven times
    better or worse is as far as the scale goes: no window's luck may outweigh ten others.
    """
    return min(LIMIT, max(-LIMIT, math.log(window.sjf / reached)))


class Scheduler:
    """Schedules windows as an agent chooses.

    Args:
        cluster: What is scheduled.
        agent: Who chooses.
        prior: Whether the agent is told, as prior logits, to prefer the smallest area.
    """

    def __init__(self, cluster: Cluster, agent: StreamAgent, *, prior: bool) -> None:
        self._cluster, self._agent, self._prior = cluster, agent, prior

    def learn(self, window: Window) -> float:
        """Run a window and let the agent learn from it; the mean bounded slowdown."""
        cluster, agent, trajectory, action = self._cluster, self._agent, None, None
        cluster.restore(window.start, window.end)
        while not cluster.over:
            if len(cluster.queue) == 1:
                cluster.start(cluster.queue[0])
                continue
            view = look(cluster)
            if action is not None:
                action.update_reward(0.0)  # it was not the last, which alone brings something
            trajectory, action = agent.request_for_action(
                trajectory, view.observation, view.mask, view.prior if self._prior else None
            )
            agent.add_to_trajectory(trajectory, action)
            cluster.start(view.jobs[int(action)])
        reached = slowdown(cluster, window.jobs)
        if trajectory is not None and action is not None:
            action.update_reward(reward(window, reached))
            agent.mark_end_of_trajectory(trajectory, action)
        return reached

    def judge(self, window: Window) -> float:
        """Run a window by the agent's best choices, of which nothing is recorded."""
        cluster = self._cluster
        cluster.restore(window.start, window.end)
        while not cluster.over:
            if len(cluster.queue) == 1:
                cluster.start(cluster.queue[0])
                continue
            view = look(cluster)
            prior = view.prior if self._prior else None
            choice = self._agent.evaluate(view.observation, view.mask, prior)
            cluster.start(view.jobs[int(choice)])
        return slowdown(cluster, window.jobs)
