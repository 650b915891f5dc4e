"""What dispatchers say of themselves, so that `status` and `doctor` can tell that one is there."""

from collections.abc import Mapping

import msgspec

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import DISPATCHERS_KEY
from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.wire.json import decode_json

__all__ = [
    "DispatcherReport",
    "forget_dispatcher",
    "parse_dispatchers",
    "read_dispatchers",
    "write_dispatcher",
]

LIVE_MS = 10_000
"""A dispatcher that reported within this long counts as running."""
KEPT_MS = 24 * 3_600_000
"""Reports of dispatchers that were killed are kept this long, for whoever wonders what happened."""


class DispatcherReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one dispatcher last said.

    Attributes:
        dispatcher_id: One running dispatcher.
        host: Where it runs.
        pid: Its process.
        started_ms: Wall clock of its start.
        time_ms: Wall clock of this report.
        capacity: Most workers it would run.
        clients: Those whose worker it runs.
    """

    dispatcher_id: str = ""
    host: str = ""
    pid: int = 0
    started_ms: int = 0
    time_ms: int = 0
    capacity: int = 0
    clients: tuple[str, ...] = ()

    def live(self, now_ms: int) -> bool:
        """Whether it reported lately."""
        return now_ms - self.time_ms < LIVE_MS


def write_dispatcher(broker: Broker, report: DispatcherReport) -> None:
    """Store the report. Raises BrokerError."""
    broker.hash_set(DISPATCHERS_KEY, {report.dispatcher_id: msgspec.json.encode(report)})


def read_dispatchers(broker: Broker) -> list[DispatcherReport]:
    """The last report of every dispatcher, newest first; those that do not decode are left out."""
    return parse_dispatchers(broker.hash_all(DISPATCHERS_KEY))


def parse_dispatchers(fields: Mapping[bytes, bytes]) -> list[DispatcherReport]:
    """The reports in `fields`, newest first; those that do not decode are left out."""
    found = []
    for data in fields.values():
        try:
            found.append(decode_json(data, DispatcherReport, "the report"))
        except WireFormatError:
            continue
    return sorted(found, key=lambda report: report.time_ms, reverse=True)


def forget_dispatcher(broker: Broker, dispatcher_id: str, *, now_ms: int | None = None) -> None:
    """Remove one report, and with `now_ms` those of dispatchers that are long gone."""
    gone = [dispatcher_id]
    if now_ms is not None:
        reports = read_dispatchers(broker)
        gone += [r.dispatcher_id for r in reports if now_ms - r.time_ms > KEPT_MS]
    broker.call("HDEL", DISPATCHERS_KEY, *gone)
