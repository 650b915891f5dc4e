"""The optima that trained policies are held against, and what policies are said to earn."""

import gymnasium
import numpy as np
import pytest

from benchmarks.standard_environments.blackjack import Blackjack, Seen
from benchmarks.standard_environments.finite import FiniteTask, read_rules
from benchmarks.standard_environments.reference import make_reference
from benchmarks.standard_environments.tasks import TASKS, Task, find_task

DOWN, RIGHT, UP = 2, 1, 0


def corridor(limit: int) -> FiniteTask:
    """Two states; action 0 stays for nothing, action 1 goes on: to state 1, then to the end."""
    transitions = np.zeros((2, 2, 2))
    transitions[0] = [[1, 0], [0, 1]]
    transitions[1] = [[0, 1], [0, 0]]
    rewards = np.array([[0.0, -1.0], [0.0, 5.0]])
    return FiniteTask(rewards, transitions, np.array([1.0, 0.0]), limit)


def test_the_time_limit_is_part_of_what_is_optimal() -> None:
    """With one step left nobody pays for a door that cannot be reached."""
    assert corridor(limit=1).optimum() == 0.0
    assert corridor(limit=2).optimum() == 4.0
    assert corridor(limit=2).value_of([1, 1]) == 4.0
    assert corridor(limit=1).value_of([1, 1]) == -1.0


def test_the_cliff_is_walked_along_in_thirteen_steps() -> None:
    """Up, eleven times right, down; and who never arrives pays until the clock stops him."""
    rules = read_rules(gymnasium.make("CliffWalking-v1"))
    assert rules.optimum() == pytest.approx(-13.0)
    along = [RIGHT] * 48
    along[36] = UP
    along[35] = DOWN
    assert rules.value_of(along) == pytest.approx(-13.0)
    assert rules.value_of([UP] * 48) == pytest.approx(-rules.limit)


def test_what_a_policy_is_said_to_earn_on_the_ice_is_what_it_earns() -> None:
    """Five standard errors of 2000 episodes."""
    env = gymnasium.make("FrozenLake-v1")
    actions = [0, 3, 3, 3, 0, 0, 0, 0, 3, 1, 0, 0, 0, 2, 1, 0]
    rules = read_rules(env)
    said = rules.value_of(actions)
    assert 0.73 < said < rules.optimum() < 0.75
    totals: list[float] = []
    observation, _ = env.reset(seed=1)
    while len(totals) < 2000:
        observation, reward, terminated, truncated, _ = env.step(actions[observation])
        if terminated or truncated:
            totals.append(float(reward))
            observation, _ = env.reset()
    assert np.mean(totals) == pytest.approx(said, abs=5 * np.std(totals) / np.sqrt(len(totals)))


def basic_strategy(seen: Seen) -> int:
    """Figure 5.2 of Sutton & Barto (2nd edition)."""
    total, shown, usable = seen
    if usable:
        return int(total < 18 or (total == 18 and shown in {1, 9, 10}))
    if total >= 17 or total <= 11:
        return int(total <= 11)
    if total == 12:
        return int(shown not in {4, 5, 6})
    return int(shown not in {2, 3, 4, 5, 6})


@pytest.mark.parametrize(
    ("sab", "natural", "optimum"),
    [(True, False, -0.04311), (False, False, -0.04656), (False, True, -0.02573)],
)
def test_the_best_that_blackjack_allows_is_basic_strategy(
    sab: bool, natural: bool, optimum: float
) -> None:
    """Under all three rules, which pay a natural differently and change no decision by it."""
    game = Blackjack(sab=sab, natural=natural)
    assert game.optimum() == pytest.approx(optimum, abs=5e-6)
    assert game.value_of(basic_strategy) == pytest.approx(game.optimum(), abs=5e-5)


@pytest.mark.parametrize(("sab", "natural"), [(True, False), (False, False), (False, True)])
def test_what_a_policy_is_said_to_win_at_blackjack_is_what_it_wins(
    sab: bool, natural: bool
) -> None:
    """Five standard errors of 3000 hands."""
    env = gymnasium.make("Blackjack-v1", sab=sab, natural=natural)
    totals: list[float] = []
    seen, _ = env.reset(seed=1)
    while len(totals) < 3000:
        seen, reward, terminated, _, _ = env.step(int(seen[0] < 17))
        if terminated:
            totals.append(float(reward))
            seen, _ = env.reset()
    said = Blackjack.of(env).value_of(lambda seen: int(seen[0] < 17))
    assert np.mean(totals) == pytest.approx(said, abs=5 * np.std(totals) / np.sqrt(len(totals)))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_has_a_goal(task: Task) -> None:
    """And a goal below the optimum, where there is one."""
    reference = make_reference(task)
    if task.threshold is None:
        assert reference.optimum is not None
        assert reference.goal == pytest.approx(reference.optimum - 0.05 * abs(reference.optimum))
    else:
        assert (reference.goal, reference.optimum) == (task.threshold, None)


def test_a_task_without_rules_and_without_a_threshold_is_refused() -> None:
    """Nothing could be said of its score."""
    with pytest.raises(TypeError, match="give the task a threshold"):
        make_reference(Task(name="cartpole", environment="CartPole-v1", steps=1))


def test_an_unknown_task_is_told_the_known_ones() -> None:
    """On the command line names are typed."""
    with pytest.raises(KeyError, match="there are frozen_lake"):
        find_task("frozen_lakes")
