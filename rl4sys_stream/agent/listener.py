"""One subscription for all agents of a process that follow one client at one broker.

A notice is heard, decoded and made into a policy once, on one thread, which then swaps that policy
into every agent that may act by it. With a subscription and a thread each, a hundred agents would
all be woken by the same notice and take turns at the interpreter.
"""

import logging
import threading
from dataclasses import dataclass
from functools import cache
from typing import Final, Protocol

from rl4sys_stream.agent.announcement import Announcement
from rl4sys_stream.agent.session import Backoff
from rl4sys_stream.broker.connection import BrokerAddress, Subscription
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.clock import Clock
from rl4sys_stream.errors import BrokerError

__all__ = ["Follower", "Line", "Listener", "Listeners", "forget_listeners", "shared_listeners"]

logger = logging.getLogger("rl4sys_stream.agent")

SLICE_S: Final = 0.25
"""Longest wait for a notice, so that a stop is noticed."""


class Follower(Protocol):
    """One agent, as a listener sees it."""

    def follow(self, announcement: Announcement) -> bool:
        """Act by what was announced; False if the head has to be looked at."""
        ...

    def look(self) -> None:
        """Look at the head."""
        ...

    def wake(self) -> None:
        """Look at how the listener is."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """How the subscription is.

    Attributes:
        epoch: Which one it is, counted from 1; 0 while there is none.
        error: Why there is none; None before the first attempt has come to an end.
    """

    epoch: int = 0
    error: Exception | None = None


class Listener:
    """Hears the notices of one client for all its followers.

    Attributes:
        line: How the subscription is; replaced whole by the listener's thread.
    """

    def __init__(
        self,
        address: BrokerAddress,
        keys: ClientKeys,
        *,
        timeout_s: float,
        clock: Clock,
        backoff: Backoff,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            address: Of the broker.
            keys: Of the client.
            timeout_s: Longest wait for the broker, in seconds.
            clock: For the pauses.
            backoff: Their lengths, while the broker is away.
        """
        self.line = Line()
        self._address = address
        self._keys = keys
        self._timeout_s = timeout_s
        self._clock = clock
        self._backoff = backoff
        self._subscription: Subscription | None = None
        self._epochs = 0
        self._doubted = 0
        self._followers: tuple[Follower, ...] = ()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rl4sys-agent-notices", daemon=True)

    def serves(self, address: BrokerAddress, keys: ClientKeys, timeout_s: float) -> bool:
        """Whether it listens for such agents: login, TLS and timeout are theirs, too."""
        mine = (self._address, self._keys.client, self._timeout_s)
        return mine == (address, keys.client, timeout_s)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for it: a slice, or until an attempt to connect is over."""
        self._stopping.set()
        self._thread.join()

    def add(self, follower: Follower) -> None:
        """Tell `follower`, too; under the lock of `Listeners`."""
        self._followers = (*self._followers, follower)

    def remove(self, follower: Follower) -> bool:
        """Tell it no more; True if nobody is left. Under the lock of `Listeners`."""
        self._followers = tuple(one for one in self._followers if one is not follower)
        return not self._followers

    def doubt(self, epoch: int) -> None:
        """Subscribe anew, unless that has happened since `epoch`.

        For followers whose own connection broke: a subscription only listens, so it may be the
        last to learn that nobody is there any more.
        """
        self._doubted = max(self._doubted, epoch)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
            except BrokerError as error:
                self._lose(error)
            except Exception as error:
                # The last resort: a fault of this package may cost a pause, not the thread.
                logger.exception("agent.listener_failed")
                self._lose(error)
        self._unsubscribe()

    def _turn(self) -> None:
        if self._doubted >= self._epochs:
            self._unsubscribe()
        if self._subscription is None:
            self._subscribe()
        elif (data := self._subscription.get(SLICE_S)) is not None:
            self._deliver(Announcement(data, self._address, self._keys))

    def _subscribe(self) -> None:
        self._subscription = Subscription(
            self._address,
            self._keys.updates,
            timeout_s=self._timeout_s,
            name="rl4sys-agent-notices",
        )
        self._backoff.reset()
        self._epochs += 1
        self._tell(Line(self._epochs))

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def _lose(self, error: Exception) -> None:
        self._unsubscribe()
        self._tell(Line(error=error))
        self._clock.wait(self._stopping, self._backoff.next_s())

    def _tell(self, line: Line) -> None:
        self.line = line
        for follower in self._followers:
            follower.wake()

    def _deliver(self, announcement: Announcement) -> None:
        """Swap it in wherever that goes, and only then wake up those who have to read."""
        followers = self._followers
        for follower in [one for one in followers if not _follows(one, announcement)]:
            follower.look()


def _follows(follower: Follower, announcement: Announcement) -> bool:
    try:
        return follower.follow(announcement)
    except Exception:
        # The last resort: what one agent cannot take is no matter of the others.
        logger.exception("agent.notice_failed")
        return False


class Listeners:
    """The listeners of one process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[Listener] = []

    def join(
        self,
        follower: Follower,
        address: BrokerAddress,
        keys: ClientKeys,
        *,
        timeout_s: float,
        clock: Clock,
        backoff: Backoff,
    ) -> Listener:
        """The listener of that client at that broker, which tells `follower` from now on.

        Args:
            follower: Who is to be told.
            address: Of the broker; other credentials or TLS settings are another address.
            keys: Of the client.
            timeout_s: Of the listener; another one makes another listener.
            clock: For a new one.
            backoff: Likewise.
        """
        with self._lock:
            for found in self._running:
                if found.serves(address, keys, timeout_s):
                    found.add(follower)
                    return found
            made = Listener(address, keys, timeout_s=timeout_s, clock=clock, backoff=backoff)
            made.add(follower)
            made.start()
            self._running.append(made)
            return made

    def leave(self, listener: Listener, follower: Follower) -> None:
        """Tell `follower` no more; whoever is the last waits for the listener's thread."""
        with self._lock:
            last = listener.remove(follower)
            if last:
                self._running.remove(listener)
        if last:
            listener.stop()


@cache
def shared_listeners() -> Listeners:
    """Those of this process, where agents meet that know nothing of each other."""
    return Listeners()


def forget_listeners() -> None:
    """In a forked child: threads and connections are the parent's, and a lock may be for ever."""
    shared_listeners.cache_clear()
