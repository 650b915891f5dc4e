"""Agents that act with old policies on purpose: a delay line between refresher and decision."""

import functools
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from rl4sys_stream.agent import agent as agent_module
from rl4sys_stream.agent.slot import PolicySlot
from rl4sys_stream.model_store.subscriber import Model
from rl4sys_stream.policy.policy import ModelPolicy, Policy

__all__ = ["DelayedSlot", "delayed_policies"]


class DelayedSlot(PolicySlot):
    """Lets the policy act that is some versions older than the newest, as soon as there is one."""

    __slots__ = ("_line", "_versions")

    def __init__(self, policy: Policy, *, versions: int) -> None:
        """Begin with `policy`; from then on act `versions` behind."""
        super().__init__(policy)
        self._versions = versions
        self._line: deque[ModelPolicy] = deque()

    def install(self, model: Model, policy: ModelPolicy, *, now: float) -> None:
        """Put `policy` at the end of the line, and let the one at its beginning act."""
        line = self._line
        line.append(policy)
        while len(line) > 1 and line[1].version <= policy.version - self._versions:
            line.popleft()
        super().install(model, line[0], now=now)


@contextmanager
def delayed_policies(versions: int) -> Iterator[None]:
    """Agents that are made meanwhile act with policies `versions` old; 0 changes nothing.

    The package offers no such thing, and should not: it is put in here, where an agent makes the
    place of its policy.
    """
    if not versions:
        yield
        return
    delayed = functools.partial(DelayedSlot, versions=versions)
    with mock.patch.object(agent_module, "PolicySlot", delayed):
        yield
