"""The refresher thread: registration, looks at the head, heartbeats; and the overdue rewards."""

import logging
import random
import threading
from collections.abc import Callable, Sequence
from typing import Final

from rl4sys_stream.agent.follower import PolicyFollower
from rl4sys_stream.agent.listener import Line, Listener, shared_listeners
from rl4sys_stream.agent.session import Backoff, Session
from rl4sys_stream.agent.slot import PolicySlot
from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.control import Directive, read_control
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import (
    AgentHeartbeat,
    Registration,
    make_definition,
    overruled,
    read_registration,
    register,
    write_heartbeat,
)
from rl4sys_stream.clock import Clock
from rl4sys_stream.config import ClientConfig, ClientSpec
from rl4sys_stream.errors import BrokerError, BrokerUnavailableError, StreamError
from rl4sys_stream.policy.policy import UniformPolicy
from rl4sys_stream.telemetry import StateLog, log_event

__all__ = ["Refresher"]

logger = logging.getLogger("rl4sys_stream.agent")

REFUSED_RETRY_S: Final = 5.0
"""How long a refused registration is left alone before it is looked at again."""


class Refresher:
    """Keeps the agent registered, its policy new and its heartbeat beating."""

    def __init__(
        self,
        address: BrokerAddress,
        *,
        agent_id: str,
        keys: ClientKeys,
        config: ClientConfig,
        slot: PolicySlot,
        session: Session,
        sweep: Callable[[], None],
        heartbeats: Callable[[], Sequence[AgentHeartbeat]],
        reported: Callable[[Sequence[AgentHeartbeat]], None],
        changed: Callable[[], None],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            address: Of the broker.
            agent_id: Whose heartbeat it is.
            keys: Of the client.
            config: The client's, with both spaces.
            slot: Where new policies go.
            session: Shared with the sender.
            sweep: Gives up on overdue rewards; called with every heartbeat, broker or not.
            heartbeats: What to report, of this agent and of the dead one that it has adopted.
            reported: Called with all of that when the broker has it.
            changed: Tells the sender that the session has changed.
            clock: For what is due when.
            rng: For the jitter of the pauses.
        """
        self._address = address
        self._keys = keys
        self._config = config
        self._slot = slot
        self._session = session
        self._sweep = sweep
        self._heartbeats = heartbeats
        self._reported = reported
        self._changed = changed
        self._clock = clock
        self._backoff = Backoff(rng)
        self._broker = Broker(address, timeout_s=config.timeout_s, name="rl4sys-agent-refresh")
        self._names = {"client": keys.client, "agent": agent_id}
        self._states = StateLog(logger, **self._names)
        self._follower = PolicyFollower(
            self._broker,
            keys=keys,
            slot=slot,
            session=session,
            states=self._states,
            clock=clock,
        )
        self._rng = rng
        self._epoch = 0
        self._head_lineage = ""
        self._known_token = ""
        self._settled_by: bytes | None = None
        self._register_at = self._poll_at = self._heartbeat_at = self._sweep_at = 0.0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def frames_refused(self) -> int:
        """Diffs that were refused, whether they came in notices or were read."""
        return self._follower.frames_refused

    def start(self) -> None:
        """Start the thread, which hears notices with those of the client's other agents here."""
        listener = shared_listeners().join(
            self._follower,
            self._address,
            self._keys,
            timeout_s=self._config.timeout_s,
            clock=self._clock,
            backoff=Backoff(self._rng),
        )
        self._thread = threading.Thread(
            target=self._run, args=(listener,), name="rl4sys-agent-refresh", daemon=True
        )
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the thread, after a last heartbeat if the broker answers."""
        self._stopping.set()
        self._follower.woken.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, listener: Listener) -> None:
        while not self._stopping.is_set():
            try:
                self._sweep_if_due()
                self._turn(listener)
            except BrokerError as error:
                self._disconnect(error, listener)
            except Exception as error:
                # The last resort: a fault of this package may cost a pause, not the thread.
                logger.exception("agent.refresher_failed")
                self._disconnect(error, listener)
        self._follower.leave()
        try:
            self._say_goodbye()
        finally:
            shared_listeners().leave(listener, self._follower)

    def _disconnect(self, error: Exception, listener: Listener) -> None:
        if isinstance(error, BrokerUnavailableError):
            listener.doubt(self._epoch or listener.line.epoch)
        self._be_down(error)
        self._clock.wait(self._stopping, self._backoff.next_s())

    def _be_down(self, error: Exception) -> None:
        self._epoch = 0
        self._session.last_error = str(error)
        self._session.refresher_state = "down"
        self._states.set("agent.refresher", "down", error=error)

    def _say_goodbye(self) -> None:
        try:
            if self._session.refresher_state == "up" and self._session.registered:
                self._report()
        except BrokerError as error:
            self._session.last_error = str(error)
        finally:
            self._broker.close()

    def _sweep_if_due(self) -> None:
        now = self._clock.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + self._config.agent.heartbeat_s
            self._sweep()

    def _turn(self, listener: Listener) -> None:
        # In this order: whoever changes one of these afterwards sets it again.
        self._follower.woken.clear()
        line, asked = listener.line, self._follower.asked
        if not line.epoch:
            self._be_without(line)
        else:
            if line.epoch != self._epoch:
                self._connect(line)
            self._do_what_is_due(asked)
        self._wait()

    def _wait(self) -> None:
        due = [self._sweep_at]
        if self._epoch:
            due += [self._poll_at, self._heartbeat_at]
            if not self._session.registered:
                due.append(self._register_at)
        pause_s = min(due) - self._clock.monotonic()
        if pause_s > 0 and not self._stopping.is_set():
            self._clock.wait(self._follower.woken, pause_s)

    def _do_what_is_due(self, asked: int) -> None:
        now = self._clock.monotonic()
        if not self._session.registered and now >= self._register_at:
            self._register()
        if now >= self._poll_at or self._follower.must_look:
            # Notices may be lost and may repeat; what is new is for the head to say.
            self._poll_at = now + self._config.agent.poll_interval_s
            self._follow_head(asked)
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + self._config.agent.heartbeat_s
            self._beat()

    def _report(self) -> None:
        heartbeats = self._heartbeats()
        for heartbeat in heartbeats:
            write_heartbeat(self._broker, self._keys, heartbeat)
        self._reported(heartbeats)

    def _beat(self) -> None:
        if not (self._session.registered or self._session.refused):
            return
        try:
            self._report()
        except BrokerUnavailableError:
            raise
        except BrokerError as error:
            # Out of memory, or read-only: models can still be read, and are what matters.
            self._session.last_error = str(error)
            self._states.set("agent.heartbeat", "refused", error=error)
        else:
            self._states.set("agent.heartbeat", "accepted", level=logging.DEBUG)

    def _be_without(self, line: Line) -> None:
        """The listener says when there is a subscription again."""
        self._epoch = 0
        if line.error is not None:
            self._be_down(line.error)

    def _connect(self, line: Line) -> None:
        self._session.refresher_state = "up"
        # Another server may answer now, or the same with less in it.
        self._register()
        self._poll_at = 0.0
        self._backoff.reset()
        self._epoch = line.epoch
        self._states.set("agent.refresher", "up", level=logging.INFO)

    def _register(self) -> None:
        """Register, or check that the registered spec is this one."""
        session = self._session
        self._register_at = self._clock.monotonic() + REFUSED_RETRY_S
        try:
            found = read_registration(self._broker, self._keys)
            # What the configuration leaves open is taken over once; then it is this agent's own.
            spec = self._follower.spec or self._config.spec(found.spec if found else None)
            registration = self._write_registration(spec, found)
        except BrokerError:
            raise
        except StreamError as error:
            session.registered = False
            session.refused = str(error)
            self._states.set("agent.registration", "refused", level=logging.ERROR, error=error)
            return
        self._follower.spec = registration.spec
        self._states.set("agent.registration", "accepted", level=logging.INFO)
        self._note_overruled(registration)
        if session.lineage not in ("", registration.lineage):
            session.reoffers += 1
        session.lineage = registration.lineage
        session.refused = ""
        session.registered = True
        self._changed()

    def _note_overruled(self, registration: Registration) -> None:
        """Say which stated parameters do not count, because the client trains with others."""
        mine = make_definition(self._config.parameters, self._config.worker)
        paths = tuple(overruled(self._config.stated, mine, registration.definition))
        if paths and paths != self._session.overruled:
            log_event(
                logger,
                logging.WARNING,
                "agent.parameters.overruled",
                **self._names,
                settings=",".join(paths),
                by="the worker's definition, or the first registration",
            )
        self._session.overruled = paths
        self._session.news.tell_definition(registration.spec.algorithm, registration.definition)

    def _follow_definition(self) -> None:
        """Look again at what counts when a model is a new worker's: that one has its definition.

        The first agent registers before any worker has recorded its own.
        """
        model = self._slot.model
        if model is None or model.token == self._known_token:
            return
        try:
            found = read_registration(self._broker, self._keys)
        except BrokerError:
            raise
        except StreamError as error:
            # The next registration looks closer; the model acts meanwhile.
            self._session.last_error = str(error)
            found = None
        if found is not None:
            self._note_overruled(found)
        self._known_token = model.token

    def _write_registration(self, spec: ClientSpec, found: Registration | None) -> Registration:
        try:
            return register(
                self._broker,
                self._keys,
                spec,
                make_definition(self._config.parameters, self._config.worker),
                wall_ms=self._clock.wall_ms(),
            )
        except BrokerUnavailableError:
            raise
        except BrokerError:
            # It takes no writes just now, but what would be written is there already.
            if found is None or found.spec.differences(spec):
                raise
            return found

    def _follow_control(self) -> Directive:
        """What this agent is to act by; as before where that cannot be told."""
        session = self._session
        try:
            directive = read_control(self._broker, self._keys).directive(self._names["agent"])
        except BrokerUnavailableError:
            raise
        except StreamError as error:
            # An ACL from before there was a control, or one that does not decode.
            session.last_error = str(error)
            self._states.set("agent.control", "unreadable", level=logging.ERROR, error=error)
            return session.directive
        self._states.set("agent.control", "readable", level=logging.DEBUG)
        if directive != session.directive:
            self._follower.direct(directive)
            self._heartbeat_at = 0.0  # whoever gave it wants to see it obeyed
            log_event(
                logger,
                logging.INFO,
                "agent.directed",
                **self._names,
                control=directive.state or "none",
                version=directive.version,
                rule=directive.rule_id,
            )
        return directive

    def _follow_head(self, asked: int) -> None:
        """Take over what the newest commit says: lineage, retained tail, model."""
        directive = self._follow_control()
        self._follower.answer(asked)
        if directive.state == "stopped":
            # First of all: what is asked for after this may take its time.
            self._follower.stop(UniformPolicy(self._config.spec().actions))
        lineage, retained, version, token, commit = self._broker.hash_get(
            self._keys.head, "lineage", "retained", "version", "token", "commit"
        )
        self._session.retained = int(retained) if retained and retained.isdigit() else 0
        self._follow_lineage(lineage.decode("utf-8", "replace") if lineage else "")
        if version is None or token is None:
            return
        if directive.state != "stopped":
            if directive.version:
                version, token = b"%d" % directive.version, directive.token.encode()
            self._follower.take((version, token), directive)
        self._follow_definition()
        self._follow_settlement(commit)

    def _follow_settlement(self, commit: bytes | None) -> None:
        """After the model, so that whoever waits for the learner goes on with what it learned."""
        news = self._session.news
        if not news.wanted or commit == self._settled_by:
            return
        try:
            (ledger,) = self._broker.hash_get(self._keys.seq, self._names["agent"])
            news.tell(ledger)
        except BrokerUnavailableError:
            raise
        except StreamError as error:
            # Whoever waits for it waits; models and trajectories are not to suffer.
            self._session.last_error = str(error)
            self._states.set("agent.settlement", "refused", level=logging.ERROR, error=error)
        else:
            self._states.set("agent.settlement", "accepted", level=logging.DEBUG)
        self._settled_by = commit

    def _follow_lineage(self, head_lineage: str) -> None:
        """Offer everything again if the training history has changed or gone.

        Either the broker has lost its last writes, or an operator has reset the client.
        """
        session = self._session
        if self._head_lineage not in ("", head_lineage):
            session.reoffers += 1
            self._changed()
        self._head_lineage = head_lineage
        (registered,) = self._broker.hash_get(self._keys.spec, "lineage")
        if session.registered and (registered or b"").decode("utf-8", "replace") != session.lineage:
            self._register()
