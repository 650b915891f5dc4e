"""What several readers of one process have of the same models: one copy for all of them.

Agents are made one by one, by applications that know nothing of each other, so the place where they
meet belongs to the process. It keeps nothing alive: what no reader holds any more is gone.
"""

from functools import cache
from typing import Final, Generic, TypeVar
from weakref import WeakValueDictionary

from rl4sys_stream.broker.connection import BrokerAddress
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.wire.snapshot import Weights

__all__ = ["ModelName", "Shelf", "model_name", "shared_weights"]

T = TypeVar("T")

ModelName = tuple[str, str, str, int, str]
"""Broker, client, lineage, version and token: these name one set of weights for ever."""


def model_name(
    address: BrokerAddress, keys: ClientKeys, lineage: str, version: int, token: str
) -> ModelName:
    """The name of a model among all that a process may read."""
    return address.public_url, keys.client, lineage, version, token


class Shelf(Generic[T]):
    """Immutable things by the model they belong to.

    Threads may share it, without a lock: two that make the same thing at once both succeed, and
    from then on one of the two is everybody's.
    """

    def __init__(self) -> None:
        self._held: Final[WeakValueDictionary[object, T]] = WeakValueDictionary()

    def get(self, name: object) -> T | None:
        """What somebody holds under `name`."""
        return self._held.get(name)

    def share(self, name: object, made: T) -> T:
        """What somebody holds under `name`, else `made`, which is shared from now on."""
        return self._held.setdefault(name, made)


@cache
def shared_weights() -> Shelf[Weights]:
    """The weights that readers of this process hold."""
    return Shelf()
