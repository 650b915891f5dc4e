"""The refresher thread: registration, newer models, heartbeats; and the overdue rewards."""

import logging
import random
import threading
from collections.abc import Callable, Sequence
from typing import Final

from rl4sys_stream.agent.policies import policy_of
from rl4sys_stream.agent.session import Backoff, Session
from rl4sys_stream.agent.slot import PolicySlot
from rl4sys_stream.broker.connection import Broker, BrokerAddress, Subscription
from rl4sys_stream.broker.control import FOLLOW, Directive, read_control
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
from rl4sys_stream.model_store.notice import follow_notice, read_notice
from rl4sys_stream.model_store.shelf import model_name
from rl4sys_stream.model_store.subscriber import Model, ModelSubscriber
from rl4sys_stream.policy.policy import UniformPolicy
from rl4sys_stream.telemetry import StateLog, log_event

__all__ = ["Refresher"]

logger = logging.getLogger("rl4sys_stream.agent")

SLICE_S: Final = 0.25
"""Longest wait for a notice, so that a stop is noticed."""
REFUSED_RETRY_S: Final = 5.0
"""How long a refused registration or model is left alone before it is looked at again."""


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
        self._subscriber = ModelSubscriber(self._broker, keys)
        self._subscription: Subscription | None = None
        self._names = {"client": keys.client, "agent": agent_id}
        self._states = StateLog(logger, **self._names)
        self._spec: ClientSpec | None = None
        self._head_lineage = ""
        self._known_token = ""
        self._settled_by: bytes | None = None
        self._refused_model: tuple[bytes, bytes] | None = None
        self._refused_until = 0.0
        self._notices_refused = 0
        self._register_at = self._poll_at = self._heartbeat_at = self._sweep_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rl4sys-agent-refresh", daemon=True)

    @property
    def frames_refused(self) -> int:
        """Diffs that were refused, whether they came in notices or were read."""
        return self._notices_refused + self._subscriber.frames_refused

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the thread, after a last heartbeat if the broker answers."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._sweep_if_due()
                self._turn()
            except BrokerError as error:
                self._disconnect(error)
            except Exception as error:
                # The last resort: a fault of this package may cost a pause, not the thread.
                logger.exception("agent.refresher_failed")
                self._disconnect(error)
        self._say_goodbye()

    def _disconnect(self, error: Exception) -> None:
        self._close_subscription()
        self._session.last_error = str(error)
        self._session.refresher_state = "down"
        self._states.set("agent.refresher", "down", error=error)
        self._clock.wait(self._stopping, self._backoff.next_s())

    def _close_subscription(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def _say_goodbye(self) -> None:
        try:
            if self._session.refresher_state == "up" and self._session.registered:
                self._report()
        except BrokerError as error:
            self._session.last_error = str(error)
        finally:
            self._close_subscription()
            self._broker.close()

    def _sweep_if_due(self) -> None:
        now = self._clock.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + self._config.agent.heartbeat_s
            self._sweep()

    def _turn(self) -> None:
        if self._subscription is None:
            self._connect()
        now = self._clock.monotonic()
        if not self._session.registered and now >= self._register_at:
            self._register()
        if now >= self._poll_at:
            self._poll_at = now + self._config.agent.poll_interval_s
            self._follow_head()
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + self._config.agent.heartbeat_s
            self._beat()
        due = min(self._poll_at, self._heartbeat_at) - self._clock.monotonic()
        if self._subscription is None:
            return
        notice = self._subscription.get(min(max(due, 0.0), SLICE_S))
        if notice is not None and not self._follow_notice(notice):
            # Notices may be lost and may repeat; what is new is for the head to say.
            self._poll_at = 0.0

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

    def _connect(self) -> None:
        self._subscription = Subscription(
            self._address,
            self._keys.updates,
            timeout_s=self._config.timeout_s,
            name="rl4sys-agent-notices",
        )
        self._session.refresher_state = "up"
        # Another server may answer now, or the same with less in it.
        self._register()
        self._poll_at = 0.0
        self._backoff.reset()
        self._states.set("agent.refresher", "up", level=logging.INFO)

    def _register(self) -> None:
        """Register, or check that the registered spec is this one."""
        session = self._session
        self._register_at = self._clock.monotonic() + REFUSED_RETRY_S
        try:
            found = read_registration(self._broker, self._keys)
            # What the configuration leaves open is taken over once; then it is this agent's own.
            spec = self._spec or self._config.spec(found.spec if found else None)
            registration = self._write_registration(spec, found)
        except BrokerError:
            raise
        except StreamError as error:
            session.registered = False
            session.refused = str(error)
            self._states.set("agent.registration", "refused", level=logging.ERROR, error=error)
            return
        self._spec = registration.spec
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
            session.directive = directive
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

    def _follow_head(self) -> None:
        """Take over what the newest commit says: lineage, retained tail, model."""
        directive = self._follow_control()
        if directive.state == "stopped":
            # First of all: what is asked for after this may take its time.
            self._slot.stop(UniformPolicy(self._config.spec().actions))
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
            self._follow_model((version, token), directive)
        self._follow_definition()
        self._follow_settlement(commit)

    def _follow_model(self, wanted: tuple[bytes, bytes], directive: Directive) -> None:
        """Act by `wanted`, the (version, token) of a model."""
        slot = self._slot
        # After a fork of a stopped agent there is a model, and no policy made of it.
        current = slot.model if slot.stopped else slot.acting
        behind = not current or wanted != (b"%d" % current.version, current.token.encode())
        looked_at = wanted == self._refused_model and self._clock.monotonic() < self._refused_until
        if behind and not looked_at:
            self._refresh(wanted, current, directive)
        slot.resume()

    def _follow_notice(self, data: bytes) -> bool:
        """Take over the model whose diff is in a notice; False if the head has to be looked at.

        That it has to for an agent that is to act by another version, for one that waits for what
        else a commit says, and after everything out of the ordinary.
        """
        slot, session = self._slot, self._session
        current = None if slot.stopped else slot.acting
        if current is None or session.directive != FOLLOW or session.news.wanted:
            return False
        try:
            notice = read_notice(data)
            if notice.token != current.token:
                return False
            name = model_name(
                self._broker, self._keys, notice.lineage, notice.version, notice.token
            )
            model = follow_notice(notice, current, name)
            if model is None:
                return False
            self._install(model)
        except StreamError as error:
            self._notices_refused += 1
            session.last_error = str(error)
            self._states.set("agent.notice", "refused", level=logging.WARNING, error=error)
            return False
        self._states.set("agent.notice", "accepted", level=logging.DEBUG)
        return True

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

    def _refresh(
        self, wanted: tuple[bytes, bytes], current: Model | None, directive: Directive
    ) -> None:
        """Take over the newest model, or the one to be held, if it decodes and fits."""
        if self._spec is None:
            return
        slot = self._slot
        try:
            model = (
                self._subscriber.hold(directive.version, directive.token, current)
                if directive.version
                else self._subscriber.refresh(current)
            )
            if model is None:
                return
            self._install(model)
        except BrokerError:
            raise
        except StreamError as error:
            # The one before stays; reading the same again at once would not change it.
            slot.refused += wanted != self._refused_model
            self._refused_model = wanted
            self._refused_until = self._clock.monotonic() + REFUSED_RETRY_S
            self._session.last_error = str(error)
            self._states.set("agent.model", "refused", level=logging.ERROR, error=error)

    def _install(self, model: Model) -> None:
        """Act by `model`, if it fits the client."""
        if self._spec is None:
            return
        name = model_name(self._broker, self._keys, model.lineage, model.version, model.token)
        self._slot.install(model, policy_of(self._spec, model, name), now=self._clock.monotonic())
        self._states.set("agent.model", "accepted", level=logging.DEBUG)
        log_event(
            logger,
            logging.DEBUG,
            "agent.refreshed",
            client=self._keys.client,
            version=model.version,
            token=model.token,
        )
