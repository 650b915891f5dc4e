"""The worker's private resume state of one version, in the broker beside the model.

It is staged and committed together with its version, so a worker that starts from a head always
finds the state that belongs to it, wherever it runs.
"""

import xxhash

from rl4sys_stream.algorithms.base import AlgorithmState
from rl4sys_stream.algorithms.checkpoint import decode_state, encode_state
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.stage import stage
from rl4sys_stream.errors import DigestError, UnknownVersionError, WireFormatError
from rl4sys_stream.worker.statistics import RolloutStatistics

__all__ = ["read_checkpoint", "stage_checkpoint"]

CHUNK_BYTES = 4 << 20
"""A bulk reply of tens of megabytes stalls a connection and the broker's event loop with it."""


def stage_checkpoint(
    broker: Broker, key: str, state: AlgorithmState, statistics: RolloutStatistics, *, ttl_s: int
) -> None:
    """Write the resume state under `key`, with an expiry that the commit takes away.

    Raises:
        BrokerError: Nothing counts until the commit; safe to retry.
    """
    data = encode_state(state)
    fields: dict[str, bytes | str | int] = {
        "size": len(data),
        "digest": xxhash.xxh3_128_hexdigest(data),
        "statistics": statistics.to_bytes(),
    }
    for number, start in enumerate(range(0, len(data), CHUNK_BYTES)):
        fields[f"chunk{number}"] = data[start : start + CHUNK_BYTES]
    stage(broker, key, fields, ttl_s=ttl_s)


def read_checkpoint(broker: Broker, key: str) -> tuple[AlgorithmState, RolloutStatistics]:
    """What `stage_checkpoint` wrote under `key`.

    Raises:
        UnknownVersionError: If it is gone; the message says what can be done.
        WireError: If it does not decode.
    """
    size, digest, statistics = broker.hash_get(key, "size", "digest", "statistics")
    if size is None or digest is None or statistics is None:
        raise UnknownVersionError(
            f"{key} is gone, so training cannot go on where it was; restore the broker's data, or "
            "begin a new lineage with `rl4sys-stream clients reset`"
        )
    try:
        count = -(-int(size) // CHUNK_BYTES)
    except ValueError as error:
        raise WireFormatError(f"{key} does not decode: {error}") from error
    restored = RolloutStatistics.from_bytes(statistics)
    chunks = []
    for number in range(count):
        chunk = broker.hash_get(key, f"chunk{number}")[0]
        if chunk is None:  # whatever the size claims, nothing more will come
            break
        chunks.append(chunk)
    data = b"".join(chunks)
    if xxhash.xxh3_128_hexdigest(data).encode() != digest:
        raise DigestError(f"{key} does not match its digest")
    return decode_state(data), restored
