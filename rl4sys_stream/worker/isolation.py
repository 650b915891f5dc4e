"""Finding the few trajectories that make an update fail, by halving.

An update may fail with an exception, which is tried again in this process, or by ending the
process (a crash in native code, the system's memory killer), which is tried in forked children.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from math import ceil, log2
from typing import TypeVar

import msgspec

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.head import Head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.errors import BrokerFullError

__all__ = ["Attempts", "ends_a_process", "find_culprits"]

T = TypeVar("T")

DEATHS_UNTIL_SUSPICION = 2
"""Workers are killed for many reasons; that two in a row die over the same update is one."""


class _Record(msgspec.Struct, frozen=True):
    version: int
    token: str
    process: str
    deaths: int


class Attempts:
    """Remembers over the deaths of workers how often the update from one head was begun."""

    def __init__(self, broker: Broker, keys: ClientKeys, process: str) -> None:
        """Prepare.

        Args:
            broker: Where the record is kept.
            keys: Of the client.
            process: A name that no other process has: sessions of one process do not count as
                deaths of each other.
        """
        self._broker = broker
        self._keys = keys
        self._process = process
        self._deaths = 0
        self._head: tuple[int, str] = (0, "")

    def resume(self, head: Head) -> bool:
        """Look at what the last worker left; True if the update from `head` is suspicious.

        Raises:
            BrokerError: Safe to retry.
        """
        self._head, self._deaths = (head.version, head.token), 0
        (data,) = self._broker.hash_get(self._keys.worker, "attempt")
        try:
            record = msgspec.json.decode(data or b"", type=_Record)
        except msgspec.MsgspecError:
            return False
        if (record.version, record.token) == self._head:
            self._deaths = record.deaths + (record.process != self._process)
        return self._deaths >= DEATHS_UNTIL_SUSPICION

    def begin(self, head: Head) -> None:
        """Note that an update from `head` begins; the commit that follows makes the note stale.

        Raises:
            BrokerError: Safe to retry.
        """
        if (head.version, head.token) != self._head:
            self._head, self._deaths = (head.version, head.token), 0
        record = _Record(head.version, head.token, self._process, self._deaths)
        try:
            self._broker.hash_set(self._keys.worker, {"attempt": msgspec.json.encode(record)})
        except BrokerFullError:
            return  # it waits for this very update to be emptied


def find_culprits(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> list[T] | None:
    """The items that fail by themselves, of a batch that fails as a whole.

    Args:
        items: At least one; together they fail.
        fails: Whether some of them, in their order, fail without the others.

    Returns:
        In their order; None where halving does not find them: the parts of a failing whole do not
        fail, or there are so many that looking on costs more than they are worth.
    """
    budget = 4 * ceil(log2(len(items) + 1)) + 4 + min(len(items), 32)
    found: list[T] = []
    todo = [list(items)]
    while todo:
        batch = todo.pop()
        if len(batch) == 1:
            found += batch
            continue
        middle = len(batch) // 2
        halves = [half for half in (batch[:middle], batch[middle:]) if fails(half)]
        budget -= 2
        if not halves or budget < 0:
            return None
        todo += reversed(halves)
    return found


def ends_a_process(action: Callable[[], object]) -> bool:
    """Whether `action` ends the process that does it; tried in a forked child.

    The child does nothing but `action` and never returns from here. Exceptions are no such end.
    """
    with warnings.catch_warnings():
        # Other threads of this process hold no lock that arithmetic needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:  # noqa: BLE001 -- whatever it was, it did not end the process
            os._exit(0)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) != 0
