"""Environments that say their own rules, as Gymnasium's toy texts do in `env.unwrapped.P`.

Backward induction over the steps that are left (Puterman, Markov Decision Processes, 1994, section
4.5): the time limit is part of the task, and a policy that walks in circles has a value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.gymnasium.environments import Environment
from rl4sys_stream.gymnasium.evaluation import MAX_STEPS

__all__ = ["FiniteTask", "read_rules"]


@dataclass(frozen=True, slots=True, eq=False)
class FiniteTask:
    """A Markov decision process with S states and A actions, undiscounted.

    Attributes:
        rewards: Expected reward, float64 [S, A].
        transitions: Probability that the episode goes on in the third one, float64 [S, A, S].
        start: Probability that an episode begins there, float64 [S].
        limit: Steps after which an episode is truncated.
    """

    rewards: NDArray[np.float64]
    transitions: NDArray[np.float64]
    start: NDArray[np.float64]
    limit: int

    def optimum(self) -> float:
        """The highest expected return; the policy that has it may look at the clock."""
        values = np.zeros(len(self.start))
        for _ in range(self.limit):
            values = (self.rewards + self.transitions @ values).max(axis=1)
        return float(self.start @ values)

    def value_of(self, actions: Sequence[int]) -> float:
        """The expected return of a policy.

        Args:
            actions: What it does in each of the S states.
        """
        states = np.arange(len(self.start))
        rewards = self.rewards[states, actions]
        transitions = self.transitions[states, actions]
        values = np.zeros(len(self.start))
        for _ in range(self.limit):
            values = rewards + transitions @ values
        return float(self.start @ values)


def read_rules(env: Environment) -> FiniteTask:
    """The rules of an environment that has them as `P[state][action]` lists of outcomes.

    Args:
        env: As `gymnasium.make` returns it. Without a time limit of its own, it has the one of
            `rl4sys_stream.gymnasium.evaluate`.
    """
    game: Any = env.unwrapped
    rules = game.P
    states, actions = len(rules), len(rules[0])
    rewards = np.zeros((states, actions))
    transitions = np.zeros((states, actions, states))
    for state, choices in rules.items():
        for action, outcomes in choices.items():
            for probability, following, reward, terminated in outcomes:
                rewards[state, action] += probability * reward
                if not terminated:
                    transitions[state, action, following] += probability
    limit = env.spec.max_episode_steps if env.spec else None
    start = np.asarray(game.initial_state_distrib, np.float64)
    return FiniteTask(rewards, transitions, start, limit or MAX_STEPS)
