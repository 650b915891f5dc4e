"""How far a simulator may run ahead of its learner.

A system in production cannot wait, and the learner corrects for the policy lag. A simulator can,
and the newest policy makes better use of each step: so it waits while too many of its steps are
unsettled. One rule serves all algorithms, because each learns from so many steps at once: a
rollout on-policy, `update_steps` off-policy.
"""

import logging
import math
import threading
from dataclasses import dataclass
from typing import Final

from rl4sys_stream.agent import Settlement, StreamAgent
from rl4sys_stream.clock import Clock
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.telemetry import StateLog

__all__ = ["Pace", "Pacer"]

logger = logging.getLogger("rl4sys_stream.gymnasium")

UPDATE_STEPS: Final = 2048
"""What one update takes, while nobody has said it."""
SLICE_S: Final = 0.1
"""Longest wait before another look at whether to stop."""
PATIENCE_S: Final = 10.0
"""So long a learner may take from one settlement to the next before anybody wonders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A limit on the steps in ended or cut trajectories of one agent that are not settled.

    When an agent has played its share of one update, its open trajectories are cut and handed over,
    so that an update has all the steps before it and none of an older policy.

    Attributes:
        updates_ahead: The limit in updates; with 1.0 the simulator waits while the learner trains,
            with 2.0 it plays on meanwhile, and the policy lag is 1.
        max_ahead_steps: The limit in steps instead. What one update takes is let through in any
            case: with less, the learner would wait for the simulator and the simulator for it.
        agents: Agents with this pace that feed the client together; each has its share.
    """

    updates_ahead: float = 1.0
    max_ahead_steps: int | None = None
    agents: int = 1

    def __post_init__(self) -> None:
        """Refuse what is no limit.

        Raises:
            ConfigError: With the value.
        """
        if not 0 < self.updates_ahead < math.inf:
            raise ConfigError(
                f"must be a finite number > 0, not {self.updates_ahead}", path="updates_ahead"
            )
        for name in ("max_ahead_steps", "agents"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"must be >= 1, not {value}", path=name)

    def ahead_steps(self, update_steps: int | None) -> int:
        """The limit for all agents together, if one update takes `update_steps`."""
        one = update_steps or UPDATE_STEPS
        return max(one, self.max_ahead_steps or math.ceil(one * self.updates_ahead))


class Pacer:
    """Holds one simulator to its pace.

    Attributes:
        waited_s: How long it has waited for the learner.
    """

    def __init__(
        self, pace: Pace, agent: StreamAgent, *, stopping: threading.Event, clock: Clock
    ) -> None:
        """Nothing is asked before the first step.

        Args:
            pace: The limit.
            agent: Whose steps are counted.
            stopping: Ends every wait.
            clock: Times them.
        """
        self._pace = pace
        self._agent = agent
        self._stopping = stopping
        self._clock = clock
        self._log = StateLog(logger, client=agent.client_id)
        self._relief = 0
        self._forgiven = 0
        self._trained = 0
        self._longest_s = 0.0
        self.waited_s = 0.0

    def begin(self) -> None:
        """Wait for the first model, so that no step is spent on chance; or until stopping.

        Raises:
            ConfigError: If the client is registered with another spec.
        """
        begun = self._clock.monotonic()
        while not self._stopping.is_set() and not self._agent.wait_for_model(SLICE_S):
            if refused := self._agent.status().refused:
                raise ConfigError(refused)
            if self._clock.monotonic() - begun > PATIENCE_S:
                self._log.set("play.model", "missing", hint="is a worker or dispatcher running?")
        self._log.set("play.model", "there", level=logging.DEBUG)

    def has_its_share(self, steps: int) -> bool:
        """Whether so many steps are this agent's share of one update."""
        one = self._agent.settlement().settled.update_steps or UPDATE_STEPS
        return steps >= self._share(one)

    def wait(self) -> None:
        """Return when the next step may be taken, or when stopping."""
        settlement = self._agent.settlement()
        if self._has_room(settlement):
            return
        begun = heard = self._clock.monotonic()
        while not self._stopping.is_set() and not self._has_room(settlement):
            news = self._agent.wait_for_settlement(settlement, SLICE_S)
            settlement, now = self._agent.settlement(), self._clock.monotonic()
            if news:
                self._longest_s = max(self._longest_s, now - heard)
                heard = now
            elif now - heard > max(PATIENCE_S, 3 * self._longest_s):
                heard = now
                self._log.set("play.learner", "silent", unsettled=settlement.unsettled_steps)
                self._relieve(settlement)
        self._log.set("play.learner", "heard", level=logging.DEBUG)
        self.waited_s += self._clock.monotonic() - begun

    def _has_room(self, settlement: Settlement) -> bool:
        if settlement.settled.trained_steps < self._trained:
            # A reset client, or a broker that lost its last writes: what was settled stays so.
            self._forgiven = settlement.unsettled_steps
        self._trained = settlement.settled.trained_steps
        return settlement.unsettled_steps - self._forgiven < self._limit(settlement)

    def _limit(self, settlement: Settlement) -> int:
        ahead = self._pace.ahead_steps(settlement.settled.update_steps)
        return min(ahead, self._share(ahead) + self._relief)

    def _share(self, ahead: int) -> int:
        return math.ceil(ahead / self._pace.agents)

    def _relieve(self, settlement: Settlement) -> None:
        """Go one more share ahead: a peer that has ended leaves its own to the others."""
        ahead = self._pace.ahead_steps(settlement.settled.update_steps)
        self._relief = min(ahead, self._relief + self._share(ahead))
