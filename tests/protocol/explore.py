"""Walks every state that a scenario can reach, breadth first, so that a violation comes shortest.

`python -m tests.protocol.explore` explores what the tests do, `--deep` larger worlds, for minutes;
both print how many states there were, and exit with 1 if the rules do not hold.
"""

import logging
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.protocol.agents import agent_steps, numbered
from tests.protocol.canonical import canonical
from tests.protocol.faults import broker_steps
from tests.protocol.invariants import wrong_at_rest, wrong_in
from tests.protocol.rules import SHIPPED, Rules, Scenario
from tests.protocol.state import State, first_state
from tests.protocol.workers import worker_steps

__all__ = ["DEEP", "QUICK", "Finding", "explore", "follow", "main"]


@dataclass(frozen=True)
class Finding:
    """What an exploration came to.

    Attributes:
        states: Different states reached.
        steps: Steps between them that were tried.
        at_rest: States in which nothing more can happen.
        complete: Whether all reachable states were seen.
        wrong: The first violation, "" if there is none.
        trace: The shortest way to it.
    """

    states: int
    steps: int
    at_rest: int
    complete: bool
    wrong: str = ""
    trace: tuple[str, ...] = field(default=(), repr=False)


def next_steps(state: State, rules: Rules, scenario: Scenario) -> Iterator[tuple[str, State]]:
    """Everything that may happen next."""
    yield from agent_steps(state, rules, scenario)
    yield from broker_steps(state, rules)
    yield from worker_steps(state, rules, scenario)


def explore(
    scenario: Scenario, rules: Rules = SHIPPED, *, max_states: int | None = None
) -> Finding:
    """Visit every reachable state once.

    Args:
        scenario: The world.
        rules: What is broken, if anything.
        max_states: Stop after so many; then the finding is not `complete`.
    """
    with _quiet():
        return _explore(scenario, rules, max_states)


@contextmanager
def _quiet() -> Iterator[None]:
    """The shipped books say what they skip and refuse, here a million times."""
    logger = logging.getLogger("rl4sys_stream")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _explore(scenario: Scenario, rules: Rules, max_states: int | None) -> Finding:
    start = numbered(first_state(scenario))
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    todo = deque([start])
    steps = at_rest = 0

    def finding(wrong: str = "", state: State = start, *, complete: bool = False) -> Finding:
        trace = tuple(_trace(came_from, state)) if wrong else ()
        return Finding(len(came_from), steps, at_rest, complete, wrong, trace)

    while todo:
        state = todo.popleft()
        stuck = True
        for label, found in next_steps(state, rules, scenario):
            steps += 1
            stuck = False
            following = numbered(found)
            if not scenario.ids_return:
                following = canonical(following)
            if following in came_from:
                continue
            came_from[following] = (state, label)
            if wrong := wrong_in(following, scenario):
                return finding(wrong, following)
            todo.append(following)
        if stuck:
            at_rest += 1
            if wrong := wrong_at_rest(state):
                return finding(wrong, state)
        if max_states is not None and len(came_from) >= max_states:
            return finding()
    return finding(complete=True)


def follow(scenario: Scenario, rules: Rules, way: Sequence[str]) -> str:
    """What is wrong at the end of a known way; "" where it is right, or the way is barred."""
    state = numbered(first_state(scenario))
    for label in way:
        found = dict(next_steps(state, rules, scenario))
        if label not in found:
            # The rules say otherwise from here on, such as "… : refused".
            return ""
        state = canonical(numbered(found[label]))
    return wrong_in(state, scenario)


def _trace(came_from: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    found = []
    while (step := came_from[state]) is not None:
        state, label = step
        found.append(label)
    return found[::-1]


def _faults(**often: int) -> tuple[tuple[str, int], ...]:
    return tuple(often.items())


_FIRST, _LAST = frozenset({(0, 0)}), frozenset({(0, 2)})

QUICK: dict[str, Scenario] = {
    "nothing happens": Scenario((3,)),
    "answers are lost": Scenario(faults=_faults(reply=2)),
    "the broker goes back": Scenario(faults=_faults(rollback=1)),
    "… and cuts no connection": Scenario(faults=_faults(quiet=1)),
    "… with an unreadable entry": Scenario(unreadable=_FIRST, faults=_faults(rollback=1)),
    "… and ids return": Scenario(faults=_faults(rollback=1), ids_return=True),
    "… further than it may": Scenario(faults=_faults(deep=1)),
    "a zombie": Scenario(unreadable=_FIRST, faults=_faults(zombie=1)),
    "an entry is destroyed": Scenario((3,), unreadable=_LAST, faults=_faults(destroy=1)),
    "… and a zombie": Scenario(faults=_faults(zombie=1, destroy=1)),
    "workers crash, replies are lost": Scenario(faults=_faults(crash=2, commit_reply=1)),
    "killed and adopted": Scenario((2,), (True,), faults=_faults(kill=1, reply=1)),
    "dropped, killed, adopted": Scenario((3,), (True,), faults=_faults(kill=1, drop=1)),
    "killed without a spool": Scenario(faults=_faults(kill=1, zombie=1)),
    "two agents": Scenario((1, 1), (True, False), faults=_faults(kill=1, refusal=1)),
}
"""Some ten seconds."""

DEEP: dict[str, Scenario] = {
    "reply, rollback": Scenario(faults=_faults(reply=1, rollback=1)),
    "refusal, rollback": Scenario(faults=_faults(refusal=1, rollback=1)),
    "zombie, rollback": Scenario(faults=_faults(zombie=1, rollback=1)),
    "zombie, rollback, unreadable": Scenario(
        unreadable=_FIRST, faults=_faults(zombie=1, rollback=1)
    ),
    "crash, lost reply, rollback": Scenario(faults=_faults(crash=1, commit_reply=1, rollback=1)),
    "destroy, rollback": Scenario(faults=_faults(destroy=1, rollback=1)),
    "kill, rollback": Scenario((2,), (True,), faults=_faults(kill=1, rollback=1)),
    "kill twice, reply, drop": Scenario((3,), (True,), faults=_faults(kill=2, reply=1, drop=1)),
    "destroy, crash, unreadable": Scenario(
        (3,), unreadable=_LAST, faults=_faults(destroy=1, crash=1)
    ),
    "zombie, destroy, read ahead": Scenario(
        (3,), faults=_faults(zombie=1, destroy=1), read_ahead=1
    ),
    "three, rollback": Scenario((3,), faults=_faults(rollback=1)),
    "two agents, rollback, zombie": Scenario(
        (1, 1), (False, False), faults=_faults(rollback=1, zombie=1)
    ),
    "quiet, rollback": Scenario(faults=_faults(quiet=1, rollback=1)),
    "quiet, zombie": Scenario(faults=_faults(quiet=1, zombie=1)),
    "quiet, kill": Scenario((2,), (True,), faults=_faults(quiet=1, kill=1)),
    "two rollbacks": Scenario(faults=_faults(rollback=2)),
    "deep, zombie": Scenario(faults=_faults(deep=1, zombie=1)),
}
"""Minutes."""


def main(arguments: list[str]) -> int:
    """Explore, print, and say by the exit code whether the rules hold."""
    scenarios = {**QUICK, **DEEP} if "--deep" in arguments else QUICK
    failed = False
    for name, scenario in scenarios.items():
        begun = time.monotonic()
        finding = explore(scenario)
        seconds = time.monotonic() - begun
        failed |= bool(finding.wrong)
        print(
            f"{name:34} {finding.states:9} states {finding.steps:9} steps "
            f"{finding.at_rest:6} at rest {seconds:7.1f} s  {finding.wrong or 'holds'}",
            flush=True,
        )
        for step in finding.trace:
            print(f"    {step}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
