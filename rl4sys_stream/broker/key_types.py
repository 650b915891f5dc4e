"""Whether the keys of a client are what they should be, or something else stands in their place.

A broker refuses commands on a key of another type, and does not say which key it was. Waiting does
not mend that.
"""

from typing import Final

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import CLIENTS_KEY, ClientKeys
from rl4sys_stream.broker.translation import translate
from rl4sys_stream.errors import KeyTypeError

__all__ = ["require_key_types", "wrong_type"]

_STREAMS: Final = ("traj", "quarantine", "metrics", "control_log")
_STRINGS: Final = ("lease", "fence", "epoch")
_HASHES: Final = ("spec", "head", "seq", "agents", "past", "worker", "control")


def require_key_types(broker: Broker, keys: ClientKeys) -> None:
    """Nothing, if each key of the client is missing or of its type.

    Raises:
        KeyTypeError: If one is not; the message names it.
        BrokerError: Safe to retry.
    """
    expected = {CLIENTS_KEY: "set"}
    for kind, names in (("stream", _STREAMS), ("string", _STRINGS), ("hash", _HASHES)):
        expected |= {getattr(keys, name): kind for name in names}
    with translate(broker.where), broker.redis.pipeline(transaction=False) as pipe:
        for key in expected:
            pipe.type(key)
        found = [reply.decode() for reply in pipe.execute()]
    for (key, kind), actual in zip(expected.items(), found, strict=True):
        if actual not in {kind, "none"}:
            raise wrong_type(f"{key} is a {actual}, not a {kind}")


def wrong_type(what: str) -> KeyTypeError:
    """The error for a key of which `what` is wrong."""
    return KeyTypeError(
        f"{what}: it was written by something else. RENAME it if it is worth keeping, else UNLINK "
        "it; then try again"
    )
