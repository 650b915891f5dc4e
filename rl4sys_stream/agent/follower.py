"""Which version one agent acts by: what its refresher reads, and what the listener announces.

Two threads replace its policy, the refresher's own and the listener's that many agents share. A
lock of the agent's keeps them apart; it is held for a few assignments, never over a request, and
the decision path does not know of it.
"""

import logging
import threading
from typing import Final

from rl4sys_stream.agent.announcement import Announcement
from rl4sys_stream.agent.policies import policy_of
from rl4sys_stream.agent.session import Session
from rl4sys_stream.agent.slot import PolicySlot
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.control import FOLLOW, Directive
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.clock import Clock
from rl4sys_stream.config import ClientSpec
from rl4sys_stream.errors import BrokerError, StreamError
from rl4sys_stream.model_store.shelf import model_name
from rl4sys_stream.model_store.subscriber import Model, ModelSubscriber
from rl4sys_stream.policy.policy import ModelPolicy, UniformPolicy
from rl4sys_stream.telemetry import StateLog, log_event

__all__ = ["PolicyFollower"]

logger = logging.getLogger("rl4sys_stream.agent")

REFUSED_RETRY_S: Final = 5.0
"""How long a refused model is left alone before it is looked at again."""


class PolicyFollower:
    """Puts the policy into an agent's slot that it is to act by.

    Attributes:
        spec: The client's, once it is registered; no model is taken over before.
        woken: Set when there is something to look at; the refresher waits for it.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        keys: ClientKeys,
        slot: PolicySlot,
        session: Session,
        states: StateLog,
        clock: Clock,
    ) -> None:
        """Begin with what `slot` has.

        Args:
            broker: For the refresher's reads.
            keys: Of the client.
            slot: Where new policies go.
            session: The agent's; says what it is to act by.
            states: Logs what was refused.
            clock: For what is due when.
        """
        self.spec: ClientSpec | None = None
        self.woken = threading.Event()
        self._address = broker.address
        self._keys = keys
        self._slot = slot
        self._session = session
        self._states = states
        self._clock = clock
        self._subscriber = ModelSubscriber(broker, keys)
        self._refused_model: tuple[bytes, bytes] | None = None
        self._refused_until = 0.0
        self._notices_refused = 0
        self._asked = self._answered = 0
        self._left = False
        self._lock = threading.Lock()

    @property
    def frames_refused(self) -> int:
        """Diffs that were refused, whether they came in notices or were read."""
        return self._notices_refused + self._subscriber.frames_refused

    # -- by the listener's thread -----------------------------------------------------------------

    def wake(self) -> None:
        """Have the refresher look at how the listener is."""
        self.woken.set()

    def look(self) -> None:
        """Have the refresher look at the control and at the head."""
        with self._lock:
            self._asked += 1
        self.woken.set()

    def follow(self, announcement: Announcement) -> bool:
        """Act by what was announced; False if the head has to be looked at.

        That it has to for an agent that is to act by another version, for one that waits for what
        else a commit says, after everything out of the ordinary, and until it has begun to look:
        what came before this notice may have been a pin.
        """
        with self._lock:
            return self._left or self._follow(announcement)

    def _follow(self, announcement: Announcement) -> bool:
        slot, session, spec = self._slot, self._session, self.spec
        current = None if slot.stopped else slot.acting
        steered = session.directive != FOLLOW or session.news.wanted
        if spec is None or current is None or steered or self._asked != self._answered:
            return False
        try:
            if announcement.is_old(current):
                return True
            found = announcement.after(current, slot.policy, spec)
        except StreamError as error:
            self._notices_refused += 1
            session.last_error = str(error)
            self._states.set("agent.notice", "refused", level=logging.WARNING, error=error)
            return False
        if found is None:
            return False
        self._install(*found)
        self._states.set("agent.notice", "accepted", level=logging.DEBUG)
        return True

    # -- by the refresher's thread ----------------------------------------------------------------

    @property
    def asked(self) -> int:
        """How often the head was to be looked at."""
        return self._asked

    @property
    def must_look(self) -> bool:
        """Whether that is more often than `answer` knows of."""
        return self._asked != self._answered

    def answer(self, asked: int) -> None:
        """The control was read, after a look had been asked for that often."""
        self._answered = asked

    def direct(self, directive: Directive) -> None:
        """From now on act by `directive`."""
        with self._lock:
            self._session.directive = directive

    def stop(self, policy: UniformPolicy) -> None:
        """Let no model act from now on, but `policy`."""
        with self._lock:
            self._slot.stop(policy)

    def leave(self) -> None:
        """Take no announcement any more."""
        with self._lock:
            self._left = True

    def take(self, wanted: tuple[bytes, bytes], directive: Directive) -> None:
        """Act by `wanted`, the (version, token) of a model.

        Raises:
            BrokerError: Safe to retry.
        """
        slot = self._slot
        before = slot.model
        # After a fork of a stopped agent there is a model, and no policy made of it.
        current = before if slot.stopped or slot.policy.version else None
        behind = not current or wanted != (b"%d" % current.version, current.token.encode())
        looked_at = wanted == self._refused_model and self._clock.monotonic() < self._refused_until
        if behind and not looked_at:
            self._read(wanted, before, current, directive)
        with self._lock:
            slot.resume()

    def _read(
        self,
        wanted: tuple[bytes, bytes],
        before: Model | None,
        current: Model | None,
        directive: Directive,
    ) -> None:
        """Take over the newest model, or the one to be held, if it decodes and fits."""
        spec, slot = self.spec, self._slot
        if spec is None:
            return
        try:
            model = (
                self._subscriber.hold(directive.version, directive.token, current)
                if directive.version
                else self._subscriber.refresh(current)
            )
            if model is None:
                return
            address = self._address
            name = model_name(address, self._keys, model.lineage, model.version, model.token)
            policy = policy_of(spec, model, name)
        except BrokerError:
            raise
        except StreamError as error:
            # The one before stays; reading the same again at once would not change it.
            slot.refused += wanted != self._refused_model
            self._refused_model = wanted
            self._refused_until = self._clock.monotonic() + REFUSED_RETRY_S
            self._session.last_error = str(error)
            self._states.set("agent.model", "refused", level=logging.ERROR, error=error)
            return
        with self._lock:
            overtaken = slot.model is not before
            if not overtaken:
                self._install(model, policy)
        if overtaken:
            # An announcement has led somewhere meanwhile, and that may be further.
            self.look()

    def _install(self, model: Model, policy: ModelPolicy) -> None:
        self._slot.install(model, policy, now=self._clock.monotonic())
        self._states.set("agent.model", "accepted", level=logging.DEBUG)
        log_event(
            logger,
            logging.DEBUG,
            "agent.refreshed",
            client=self._keys.client,
            version=model.version,
            token=model.token,
        )
