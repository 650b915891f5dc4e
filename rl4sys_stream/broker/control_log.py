"""The log of a client's control: what was asked for, by whom, when and why, and what came of it."""

from typing import Final, cast

import msgspec

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.control import Selection
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.translation import translate
from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.wire.json import decode_json

__all__ = ["LOG_ENTRIES", "ControlRecord", "read_control_log"]

LOG_ENTRIES: Final = 10_000
"""Changes that the log keeps, approximately."""


class ControlRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change.

    Attributes:
        what: "pin", "unpin", "stop", "resume", "promote", "demote", "rollback requested",
            "rollback withdrawn", "rolled back", "rollback refused", "import" or "reset".
        time_ms: Wall clock.
        by: Who did it: `user@host`, or the worker.
        reason: Why, in their words.
        version: Model version that it is about, 0 if none.
        token: Of that version.
        agents: Whom it concerns, None if it is not about agents.
        rules: Ids of the rules that were made or removed.
        request: Id of the request that it makes, or that it answers.
        detail: What came of it.
    """

    what: str
    time_ms: int
    by: str = ""
    reason: str = ""
    version: int = 0
    token: str = ""
    agents: Selection | None = None
    rules: tuple[str, ...] = ()
    request: str = ""
    detail: str = ""


def read_control_log(broker: Broker, keys: ClientKeys, *, count: int = 100) -> list[ControlRecord]:
    """The newest `count` changes, oldest first; those that do not decode are left out."""
    with translate(broker.where):
        reply = broker.redis.xrevrange(keys.control_log, count=count)
    found = []
    for _, fields in reversed(cast("list[tuple[bytes, dict[bytes, bytes]]]", reply)):
        try:
            found.append(decode_json(fields[b"r"], ControlRecord, "the record"))
        except (KeyError, WireFormatError):
            continue
    return found
