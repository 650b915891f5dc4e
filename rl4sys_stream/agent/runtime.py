"""One agent id with all that belongs to it: recorder, outbox, threads, books.

A fork ends it in the child and begins another one there; closing ends it for good.
"""

import logging
import os
import random
import re
import secrets
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rl4sys_stream.agent.adoption import Adopter
from rl4sys_stream.agent.outbox import Outbox
from rl4sys_stream.agent.parcels import OutboxLimits
from rl4sys_stream.agent.recorder import Recorder
from rl4sys_stream.agent.refresher import Refresher
from rl4sys_stream.agent.sender import Sender
from rl4sys_stream.agent.session import Session
from rl4sys_stream.agent.settlement import Settlement
from rl4sys_stream.agent.slot import PolicySlot
from rl4sys_stream.agent.spool.journal import SpoolJournal
from rl4sys_stream.agent.status import AgentStatus
from rl4sys_stream.broker.connection import AppendConnection, BrokerAddress
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import AgentHeartbeat
from rl4sys_stream.clock import Clock
from rl4sys_stream.config import ClientConfig
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.telemetry import log_event

__all__ = ["Runtime", "Tally", "new_agent_id"]

MAX_HOST_CHARS: Final = 40
logger = logging.getLogger("rl4sys_stream.agent")

ABANDONED_TIMEOUT_S: Final = 5.0
SHORTEST_JOIN_S: Final = 0.2
"""Even a close without any time left waits this long for each thread."""


class Tally:
    """Decisions, counted without a lock: the sum of plain additions under the interpreter's own.

    Attributes:
        decisions: Actions requested.
        fallback_decisions: Those answered without a model.
        late_decisions: Those answered by the fallback because the model's answer came too late.
    """

    __slots__ = ("decisions", "fallback_decisions", "late_decisions")

    def __init__(self) -> None:
        self.decisions = 0
        self.fallback_decisions = 0
        self.late_decisions = 0


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Length of flattened observations, and what an action is."""

    obs_dim: int
    actions: ActionFormat


def new_agent_id() -> str:
    """A name that no other running agent has, in at most 64 characters."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:MAX_HOST_CHARS] or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


class Runtime:
    """Everything of an agent that a fork must not share."""

    def __init__(
        self,
        config: ClientConfig,
        *,
        address: BrokerAddress,
        keys: ClientKeys,
        dimensions: Dimensions,
        slot: PolicySlot,
        clock: Clock,
    ) -> None:
        """Prepare; no thread runs and nothing is sent before `start`.

        Args:
            config: The client's, with both spaces.
            address: Of the broker.
            keys: Of the client.
            dimensions: Of the spaces.
            slot: Holds the policy that acts.
            clock: For everything that takes time.
        """
        settings = config.agent
        self.agent_id = new_agent_id()
        self.slot = slot
        self.tally = Tally()
        limits = OutboxLimits(
            max_entries=settings.queue_entries,
            max_bytes=settings.queue_bytes,
            drop_policy=settings.drop_policy,
            block_timeout_s=settings.block_timeout_s,
            spool_bytes=settings.spool_bytes,
        )
        self.outbox = Outbox(limits)
        self.recorder = Recorder(
            self.outbox,
            obs_dim=dimensions.obs_dim,
            actions=dimensions.actions,
            max_steps=settings.max_trajectory_steps,
            reward_timeout_s=settings.reward_timeout_s,
            reward_wait_steps=settings.reward_wait_steps,
            codec=settings.codec,
            clock=clock,
        )
        self.session = Session()
        self._config = config
        self._keys = keys
        self._clock = clock
        self._started_ms = clock.wall_ms()
        self._closed = False
        self._left_in_spool = self._given_up = self._told = False
        self._abandoned = False
        rng = random.Random(self.agent_id)  # noqa: S311 - jitter

        def connect() -> AppendConnection:
            return AppendConnection(address, timeout_s=config.timeout_s, name="rl4sys-agent-send")

        self._spool_base: Path | None = None
        self._adopter: Adopter | None = None
        if settings.spool_dir is not None:
            self._spool_base = Path(settings.spool_dir).expanduser() / keys.client
            self._adopter = Adopter(
                self._spool_base,
                agent_id=self.agent_id,
                keys=keys,
                settings=settings,
                limits=limits,
                session=self.session,
                connect=connect,
                taken=self.outbox.share_disk,
                clock=clock,
                rng=rng,
            )
        self._sender = Sender(
            connect(),
            agent_id=self.agent_id,
            keys=keys,
            outbox=self.outbox,
            session=self.session,
            settings=settings,
            clock=clock,
            rng=rng,
        )
        self._refresher = Refresher(
            address,
            agent_id=self.agent_id,
            keys=keys,
            config=config,
            slot=slot,
            session=self.session,
            sweep=self._sweep,
            heartbeats=self.heartbeats,
            reported=self._reported,
            changed=self._changed,
            clock=clock,
            rng=rng,
        )

    def start(self) -> None:
        """Open the spool, if there is to be one, and start both threads.

        Raises:
            SpoolError: If it cannot be opened; the agent works without it when started again.
        """
        base, self._spool_base = self._spool_base, None
        if base is not None:
            settings = self._config.agent
            journal = SpoolJournal.create(
                base,
                self.agent_id,
                fsync=settings.spool_fsync,
                clock=self._clock,
                spool_bytes=settings.spool_bytes,
            )
            self.outbox.attach(journal)
        if base is not None and self._adopter is not None:
            self._adopter.tidy()
        self._refresher.start()
        self._sender.start()

    def abandon(self) -> None:
        """The agent object is gone. Called by the garbage collector, so nothing is done here."""
        self._abandoned = True

    def _reported(self, said: Sequence[AgentHeartbeat]) -> None:
        self._told |= any(
            one.agent_id == self.agent_id and one.closed and not one.spooled for one in said
        )
        if self._adopter is not None:
            self._adopter.reported(said)

    def _changed(self) -> None:
        self._sender.nudge()
        if self._adopter is not None:
            self._adopter.nudge()

    def _sweep(self) -> None:
        self.recorder.sweep()
        if self._adopter is not None and not self._closed:
            self._adopter.turn()
        if self._abandoned and not self._closed:
            self._abandoned = False
            log_event(logger, logging.WARNING, "agent.not_closed", agent=self.agent_id)
            # On a thread of its own, because closing waits for the one that is calling this.
            threading.Thread(target=self.close, args=(ABANDONED_TIMEOUT_S,), daemon=True).start()

    def close(self, timeout_s: float) -> bool:
        """Flush and end; True if the broker has answered everything.

        Args:
            timeout_s: Longest wait for the broker.
        """
        deadline = self._clock.monotonic() + timeout_s
        # Closing cuts what is open and queues it: at most the timeout, whatever the drop policy.
        self.outbox.stop_blocking()
        self.recorder.close()
        delivered = self.flush(max(deadline - self._clock.monotonic(), 0.0))
        self.outbox.close()
        self._sender.stop(max(deadline - self._clock.monotonic(), SHORTEST_JOIN_S))
        # Whatever the broker may still lose stays on disk, for the next agent to offer again.
        self._left_in_spool = self.outbox.needed
        self._closed = True
        # After the sender, so that the last heartbeat has the final counts; before the spool is
        # given up, because from then on these are the books of whoever adopts it.
        self._refresher.stop(max(deadline - self._clock.monotonic(), SHORTEST_JOIN_S))
        self._given_up = self._left_in_spool
        if self._adopter is not None:
            self._adopter.stop()
        self.outbox.close_journal(told=self._told)
        return delivered

    def flush(self, timeout_s: float) -> bool:
        """Wait until the broker has answered everything sealed so far; False if it did not."""
        # While the registry refuses the spec nothing is sent, so there is nothing to wait for.
        return self.outbox.wait_until_empty(0.0 if self.session.refused else timeout_s)

    def orphan(self) -> None:
        """After a fork, in the child: this belongs to the parent."""
        self.recorder.orphan()
        self.outbox.detach()
        if self._adopter is not None:
            self._adopter.orphan()

    def heartbeats(self) -> list[AgentHeartbeat]:
        """What the registry is told: of this agent, and of the dead one that it has adopted."""
        if self._given_up:
            return []
        adopted = self._adopter.heartbeat() if self._adopter is not None else None
        return [self._heartbeat(), *([adopted] if adopted else [])]

    def _heartbeat(self) -> AgentHeartbeat:
        counts, model, session = self.outbox.counts(), self.slot.acting, self.session
        return AgentHeartbeat(
            agent_id=self.agent_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_ms=self._started_ms,
            time_ms=self._clock.wall_ms(),
            closed=self._closed,
            version=model.version if model else 0,
            token=model.token if model else "",
            lineage=model.lineage if model else "",
            accepted=counts.accepted,
            issued=counts.issued,
            floor=session.floor,
            queued=counts.queued,
            sealing=counts.sealing,
            dropped=counts.dropped,
            quarantined=counts.quarantined,
            open=self.recorder.open,
            steps=counts.steps,
            decisions=self.tally.decisions,
            fallback_decisions=self.tally.fallback_decisions,
            late_decisions=self.tally.late_decisions,
            refused=session.refused,
            broker=session.state,
            spooled=self._left_in_spool if self._closed else counts.spooled,
            control=session.directive.state,
            rule=session.directive.rule_id,
            frames_refused=self._refresher.frames_refused,
        )

    def settlement(self) -> Settlement:
        """What became of this agent's steps; from the first call on the refresher looks at it."""
        news, counts = self.session.news, self.outbox.counts()
        news.wanted = True
        return Settlement(
            accepted=counts.accepted,
            accepted_steps=counts.steps,
            lost=counts.dropped + counts.quarantined,
            settled=news.settled,
        )

    def status(self) -> AgentStatus:
        """What the application is told."""
        counts, model, session = self.outbox.counts(), self.slot.acting, self.session
        installed_at = self.slot.installed_at
        return AgentStatus(
            client=self._keys.client,
            agent_id=self.agent_id,
            version=model.version if model else 0,
            token=model.token if model else "",
            lineage=model.lineage if model else "",
            policy_age_s=None if installed_at is None else self._clock.monotonic() - installed_at,
            control=session.directive.state,
            rule=session.directive.rule_id,
            decisions=self.tally.decisions,
            fallback_decisions=self.tally.fallback_decisions,
            late_decisions=self.tally.late_decisions,
            open=self.recorder.open,
            accepted=counts.accepted,
            steps=counts.steps,
            sealing=counts.sealing,
            queued=counts.queued,
            queued_bytes=counts.queued_bytes,
            issued=counts.issued,
            unanswered=counts.unanswered,
            floor=session.floor,
            resent=session.resent,
            dropped=counts.dropped,
            quarantined=counts.quarantined,
            abandoned=self.recorder.abandoned,
            broker=session.state,
            refused=session.refused,
            overruled=session.overruled,
            spooled=self._left_in_spool if self._closed else counts.spooled,
            unsaved=counts.unsaved,
            adopted=self._adopter.count if self._adopter is not None else 0,
            models_refused=self.slot.refused,
            frames_refused=self._refresher.frames_refused,
            rollbacks=self.slot.rollbacks,
            lineage_changes=self.slot.lineage_changes,
            server_changes=self.session.server_changes,
            last_error=session.last_error,
            closed=self._closed,
        )
