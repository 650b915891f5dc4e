"""What is to be earned in an environment, and what a policy earns there without chance in it."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from benchmarks.standard_environments.blackjack import Blackjack
from benchmarks.standard_environments.finite import read_rules
from benchmarks.standard_environments.tasks import Task
from rl4sys_stream import StreamAgent
from rl4sys_stream.gymnasium import make_environment

__all__ = ["TOLERANCE", "Reference", "make_reference"]

TOLERANCE = 0.05
"""Share of the optimum by which a policy may miss it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a score is held against.

    Attributes:
        optimum: The highest expected return; None where nobody can compute it.
        goal: Mean return that counts as learned.
        expected_return: Of an agent's greedy policy; None where only playing tells.
    """

    optimum: float | None
    goal: float
    expected_return: Callable[[StreamAgent], float] | None


def make_reference(task: Task) -> Reference:
    """Compute what is to be earned, where the rules say it.

    Raises:
        TypeError: If a task has neither a threshold nor rules that are known here.
    """
    if task.threshold is not None:
        return Reference(optimum=None, goal=task.threshold, expected_return=None)
    with closing(make_environment(task.environment)) as env:
        if hasattr(env.unwrapped, "P"):
            rules = read_rules(env)
            return _optimal(
                rules.optimum(),
                lambda agent: rules.value_of(
                    [_greedy(agent, state) for state in range(len(rules.start))]
                ),
            )
        if hasattr(env.unwrapped, "sab"):
            game = Blackjack.of(env)
            return _optimal(
                game.optimum(), lambda agent: game.value_of(lambda seen: _greedy(agent, seen))
            )
    raise TypeError(f"{task.environment} says no rules: give the task a threshold")


def _optimal(optimum: float, expected_return: Callable[[StreamAgent], float]) -> Reference:
    return Reference(
        optimum=optimum,
        goal=optimum - TOLERANCE * abs(optimum),
        expected_return=expected_return,
    )


def _greedy(agent: StreamAgent, observation: int | tuple[int, ...]) -> int:
    return int(agent.evaluate(observation).action)
