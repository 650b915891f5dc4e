"""Finishing what dead agents left in a shared spool folder, one after another.

An adopted agent keeps its own id and its own numbers, so nothing of it is trained twice; it takes
nothing new. The living agent's threads do the work: its refresher looks for orphans, and each
orphan gets a sender until the broker has everything for good.
"""

import logging
import random
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rl4sys_stream.agent.outbox import Outbox
from rl4sys_stream.agent.parcels import OutboxLimits
from rl4sys_stream.agent.sender import Sender
from rl4sys_stream.agent.session import AdoptedSession, Session
from rl4sys_stream.agent.spool.folder import Orphans, SpoolFolder
from rl4sys_stream.agent.spool.journal import SpoolJournal
from rl4sys_stream.agent.spool.remains import is_blank, tidy
from rl4sys_stream.broker.connection import AppendConnection
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import AgentHeartbeat
from rl4sys_stream.clock import Clock
from rl4sys_stream.config import AgentSettings
from rl4sys_stream.errors import SpoolError
from rl4sys_stream.telemetry import StateLog, log_event

__all__ = ["Adopter"]

logger = logging.getLogger("rl4sys_stream.agent")

LOOK_S: Final = 5.0
"""Time between two looks for orphans, while there is none in hand."""
STOP_S: Final = 1.0


@dataclass(slots=True)
class _Adopted:
    """A dead agent whose books are being closed."""

    journal: SpoolJournal
    outbox: Outbox
    session: AdoptedSession
    sender: Sender
    finished: bool = False
    """Nothing is left to offer."""
    told_at: float | None = None
    """Since when a heartbeat that says so is at the broker."""
    told: bool = False
    """And another one `retain_s` later: a broker that loses its last writes keeps one of them."""

    def left_bytes(self) -> int:
        """What its files take, less the newest: that has the books, and room for more of them."""
        paths = self.journal.folder.segments()
        try:
            return sum(path.stat().st_size for path in paths[:-1] or paths)
        except OSError:
            return 0  # its sender deletes them meanwhile; the next time is soon


class Adopter:
    """Looks for orphans in one client's spool folder. Used by the refresher's thread."""

    def __init__(
        self,
        base: Path,
        *,
        agent_id: str,
        keys: ClientKeys,
        settings: AgentSettings,
        limits: OutboxLimits,
        session: Session,
        connect: Callable[[], AppendConnection],
        taken: Callable[[int], None],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        """Prepare; `turn` does the work.

        Args:
            base: Folder of the client's spools.
            agent_id: The living agent.
            keys: Of the client.
            settings: For the senders.
            limits: For the outboxes.
            session: The living agent's; its registration counts for the adopted ones, too.
            connect: Makes a connection for a sender.
            taken: Told how many bytes dead agents' spools hold.
            clock: For everything that takes time.
            rng: For the jitter of the senders' pauses.
        """
        self._orphans = Orphans(base, agent_id)
        self._agent_id = agent_id
        self._keys = keys
        self._settings = settings
        self._limits = limits
        self._session = session
        self._connect = connect
        self._taken = taken
        self._clock = clock
        self._rng = rng
        self._states = StateLog(logger, client=keys.client, agent=agent_id)
        self._adopted: _Adopted | None = None
        self._stuck: set[str] = set()  # folders whose books are closed, and that cannot be deleted
        # `stop` is another thread's, and waits only so long for the one that may be looking.
        self._stopping = threading.Lock()
        self._stopped = False
        self._look_at = self._tidy_at = 0.0
        self.count = 0
        """Dead agents whose books were closed."""

    def turn(self) -> None:
        """Go one step further; never raises for what a disk holds."""
        if self._stopped:
            return
        adopted = self._adopted
        if adopted is not None and adopted.told:
            # Now nobody needs the folder any more.
            adopted.outbox.close_journal(told=True)
            folder = adopted.journal.folder.path
            if folder.exists():
                self._stuck.add(folder.name)
            self._adopted = adopted = None
            self._look_at = self._tidy_at = 0.0
            self.count += 1
        if self._clock.monotonic() >= self._tidy_at:
            self.tidy()
        if adopted is None:
            self._look()
        elif not adopted.finished and _is_done(adopted):
            adopted.sender.stop(STOP_S)
            adopted.finished = True

    def tidy(self) -> None:
        """Cut dead agents' spools down to what is used in them, and say what that takes."""
        self._tidy_at = self._clock.monotonic() + LOOK_S
        left = tidy(self._orphans)
        adopted = self._adopted
        self._taken(left + (adopted.left_bytes() if adopted is not None else 0))

    def _look(self) -> None:
        now = self._clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        for folder in self._orphans:
            if self._stopped:
                folder.release()
                return
            if folder.path.name in self._stuck:
                folder.remove()
                continue
            try:
                journal = SpoolJournal.recover(
                    folder, fsync=self._settings.spool_fsync, clock=self._clock
                )
            except SpoolError as error:
                self._states.set("agent.spool", "unreadable", level=logging.ERROR, error=error)
                folder.release()
                continue
            if journal is None:
                if is_blank(folder):
                    folder.remove()
                else:
                    folder.set_aside()
                continue
            self._adopt(folder, journal)
            return

    def _adopt(self, folder: SpoolFolder, journal: SpoolJournal) -> None:
        outbox = Outbox(self._limits)
        offered = outbox.attach(journal)
        session = AdoptedSession(self._session)
        agent_id = journal.state.agent_id
        log_event(
            logger,
            logging.INFO,
            "agent.adopted",
            agent=self._agent_id,
            dead=agent_id,
            offered=len(offered),
            queued=outbox.counts().queued,
            folder=folder.path,
        )
        sender = Sender(
            self._connect(),
            agent_id=agent_id,
            keys=self._keys,
            outbox=outbox,
            session=session,
            settings=self._settings,
            clock=self._clock,
            rng=self._rng,
        )
        with self._stopping:
            if self._stopped:
                outbox.close_journal(told=False)
                return
            self._adopted = _Adopted(journal, outbox, session, sender)
            sender.start(offered)

    def heartbeat(self) -> AgentHeartbeat | None:
        """What to report of the adopted agent; None if there is none."""
        adopted = self._adopted
        if adopted is None:
            return None
        counts, state = adopted.outbox.counts(), adopted.journal.state
        return AgentHeartbeat(
            agent_id=state.agent_id,
            host=socket.gethostname(),
            started_ms=state.started_ms,
            time_ms=self._clock.wall_ms(),
            closed=adopted.finished,
            accepted=counts.accepted,
            issued=counts.issued,
            floor=adopted.session.floor,
            queued=counts.queued,
            sealing=counts.sealing,
            dropped=counts.dropped,
            quarantined=counts.quarantined,
            steps=counts.steps,
            broker=adopted.session.state,
            spooled=not adopted.finished,
            adopted_by=self._agent_id,
        )

    def reported(self, said: Sequence[AgentHeartbeat]) -> None:
        """What `heartbeat` made is at the broker, if it is among `said`."""
        adopted = self._adopted
        if adopted is not None:
            dead = adopted.journal.state.agent_id
            if not any(one.agent_id == dead and one.closed for one in said):
                return
            now = self._clock.monotonic()
            if adopted.told_at is None:
                adopted.told_at = now
            adopted.told = now - adopted.told_at >= self._settings.retain_s

    def nudge(self) -> None:
        """Something about the session has changed."""
        if self._adopted is not None:
            self._adopted.sender.nudge()

    def stop(self) -> None:
        """Leave what is unfinished in its folder, for the next agent; nothing more is adopted."""
        with self._stopping:
            self._stopped = True
            adopted, self._adopted = self._adopted, None
        if adopted is not None:
            adopted.sender.stop(STOP_S)
            # Once must do here: whoever leaves cannot say it again.
            adopted.outbox.close_journal(told=adopted.told_at is not None)

    def orphan(self) -> None:
        """In a forked child: the adopted agent stays the parent's."""
        adopted, self._adopted = self._adopted, None
        if adopted is not None:
            adopted.outbox.detach()
        self._orphans.disown()


def _is_done(adopted: _Adopted) -> bool:
    # In this order: once nothing is queued or unanswered, the sender can take nothing more.
    counts = adopted.outbox.counts()
    return not counts.queued and not counts.unanswered and adopted.sender.idle
