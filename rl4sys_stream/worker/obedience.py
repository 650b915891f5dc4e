"""What a session asks of its client's control: whether to wait for held agents, or to promote."""

import logging
from dataclasses import dataclass
from typing import Final

from rl4sys_stream.broker.control import Control
from rl4sys_stream.broker.head import Head
from rl4sys_stream.broker.registry import read_heartbeats
from rl4sys_stream.broker.steering import Cause, promote
from rl4sys_stream.errors import UnknownVersionError
from rl4sys_stream.telemetry import StateLog, log_event
from rl4sys_stream.worker.committer import Committer
from rl4sys_stream.worker.gate import Evidence, PromotionGate, judge
from rl4sys_stream.worker.rollback import worker_name
from rl4sys_stream.worker.tenure import Tenure

__all__ = ["Obedience", "Pause", "find_pause"]

logger = logging.getLogger("rl4sys_stream.worker")

LOOK_S: Final = 0.5
"""Between two looks at the control; commits look, too."""
HEARTBEAT_AGE_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Pause:
    """Why an on-policy learner waits.

    Attributes:
        version: Newest of the versions at which the agents are held.
        agents: How many there are.
        limit: Largest policy lag that is trained on.
    """

    version: int
    agents: int
    limit: int

    def __str__(self) -> str:
        """For the status, with what ends it."""
        return (
            f"all {self.agents} running agents are held at version {self.version} or older; one "
            f"more version, and what they send would be more than max_policy_lag = {self.limit} "
            "behind and dropped (models unpin, models promote, or a higher limit)"
        )


def find_pause(control: Control, agents: list[str], head: Head, limit: int) -> Pause | None:
    """Whether another version would make all that comes in too old.

    Args:
        control: What the agents are to act by.
        agents: Ids of the running ones.
        head: Newest version.
        limit: Largest policy lag that is trained on.

    Returns:
        None if an agent follows the head, none runs, or the limit is not reached. Stopped agents do
        not count: what they send is trained on by nobody.
    """
    told = [control.directive(agent_id) for agent_id in agents]
    acting = [one for one in told if one.state != "stopped"]
    if not acting or any(one.version == 0 for one in acting):
        return None
    newest = max(one.version for one in acting)
    if head.version + 1 - newest <= limit:
        return None
    return Pause(newest, len(acting), limit)


class Obedience:
    """Looks at the control, and says what follows from it. Used by one thread."""

    def __init__(self, tenure: Tenure, committer: Committer, evidence: Evidence) -> None:
        """Look first when first asked.

        Args:
            tenure: Surroundings.
            committer: Knows the head, and the control as of the last commit.
            evidence: Of the promotion gate.
        """
        self._tenure = tenure
        self._committer = committer
        self._evidence = evidence
        self._next_look = 0.0
        self._next_census = 0.0
        self._pause: Pause | None = None
        self._log = StateLog(logger, client=tenure.keys.client)

    def look(self) -> Control:
        """The control, at most `LOOK_S` old."""
        now = self._tenure.clock.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_S
            self._committer.look_at_control()
            self._promote()
        return self._committer.control

    def pause(self, control: Control) -> Pause | None:
        """Why the learner has to wait, None if it has not."""
        plan, now = self._tenure.plan, self._tenure.clock.monotonic()
        if not plan.on_policy or (control.promoted is None and not control.rules):
            self._pause = None
        elif now >= self._next_census or self._pause is None:
            self._next_census = now + LOOK_S
            limit = plan.settings.max_policy_lag
            self._pause = find_pause(control, self._running(), self._committer.head, limit)
        self._log.set(
            "worker.learner",
            "paused" if self._pause else "learning",
            level=logging.WARNING if self._pause else logging.DEBUG,
            why=self._pause or "agents follow",
        )
        return self._pause

    def _running(self) -> list[str]:
        now_ms = self._tenure.clock.wall_ms()
        return [
            said.agent_id
            for said in read_heartbeats(self._tenure.broker, self._tenure.keys).values()
            if not said.closed and now_ms - said.time_ms < HEARTBEAT_AGE_MS
        ]

    def _promote(self) -> None:
        """Let agents act by a version that has shown that it is not worse."""
        tenure, committer = self._tenure, self._committer
        gate = PromotionGate.of(tenure.plan.settings)
        if gate is None:
            return
        verdict = judge(gate, committer.control, committer.head, self._evidence)
        if verdict is None:
            return
        cause = Cause(worker_name(), tenure.clock.wall_ms(), verdict.reason)
        try:
            promote(tenure.broker, tenure.keys, verdict.version, cause, tenure.token)
        except UnknownVersionError:
            return  # another head has come; the next commit finds out
        committer.look_at_control()
        log_event(
            logger,
            logging.INFO,
            "worker.promoted",
            client=tenure.keys.client,
            version=verdict.version,
            why=verdict.reason,
        )
