"""Training and rollout metrics: one stream a client, written by the commits, trimmed."""

from collections.abc import Iterable, Mapping
from typing import cast

import msgspec

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.translation import translate
from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.wire.json import decode_json

__all__ = ["MetricsRecord", "parse_metrics", "read_metrics"]


class MetricsRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one version reported.

    Attributes:
        entry_id: Of the record; ask for what comes after it.
        version: Model version.
        time_ms: Wall clock of its publication.
        metrics: Values by name (`train/approx_kl`, `rollout/ep_rew_mean`, …).
    """

    entry_id: str = ""
    version: int = 0
    time_ms: int = 0
    metrics: Mapping[str, float] = {}


def read_metrics(
    broker: Broker, keys: ClientKeys, *, after: str = "", count: int = 1000
) -> list[MetricsRecord]:
    """Up to `count` records: those after entry id `after`, or else the newest; oldest first."""
    with translate(broker.where):
        if after:
            reply = broker.redis.xrange(keys.metrics, min=f"({after}", count=count)
        else:
            reply = broker.redis.xrevrange(keys.metrics, count=count)
    rows = cast("list[tuple[bytes, dict[bytes, bytes]]]", reply)
    return parse_metrics(rows if after else reversed(rows))


def parse_metrics(rows: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> list[MetricsRecord]:
    """The records in `rows` (entry id, fields); those that do not decode are left out."""
    found = []
    for entry_id, fields in rows:
        try:
            record = decode_json(fields[b"m"], MetricsRecord, "the metrics")
        except (KeyError, WireFormatError):
            continue
        found.append(msgspec.structs.replace(record, entry_id=entry_id.decode()))
    return found
