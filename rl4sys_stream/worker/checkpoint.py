"""The worker's private resume state of one version, in the broker beside the model.

It is staged and committed together with its version, so a worker that starts from a head always
finds the state that belongs to it, wherever it runs.
"""

from dataclasses import dataclass

import xxhash

from rl4sys_stream.algorithms.base import AlgorithmState
from rl4sys_stream.algorithms.checkpoint import decode_state, encode_state
from rl4sys_stream.algorithms.grid_chooser import GridState
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.stage import stage
from rl4sys_stream.errors import DigestError, UnknownVersionError, WireFormatError
from rl4sys_stream.worker.statistics import RolloutStatistics

__all__ = ["Checkpoint", "read_checkpoint", "stage_checkpoint"]

CHUNK_BYTES = 4 << 20
"""A bulk reply of tens of megabytes stalls a connection and the broker's event loop with it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a session goes on from.

    Attributes:
        state: The learner's.
        statistics: Of the rollouts.
        grid: Of the published weights; None if they were published as they are.
    """

    state: AlgorithmState
    statistics: RolloutStatistics
    grid: GridState | None = None


def stage_checkpoint(broker: Broker, key: str, checkpoint: Checkpoint, *, ttl_s: int) -> None:
    """Write `checkpoint` under `key`, with an expiry that the commit takes away.

    Raises:
        BrokerError: Nothing counts until the commit; safe to retry.
    """
    data = encode_state(checkpoint.state)
    fields: dict[str, bytes | str | int] = {
        "size": len(data),
        "digest": xxhash.xxh3_128_hexdigest(data),
        "statistics": checkpoint.statistics.to_bytes(),
        "grid": checkpoint.grid.to_bytes() if checkpoint.grid else b"",
    }
    for number, start in enumerate(range(0, len(data), CHUNK_BYTES)):
        fields[f"chunk{number}"] = data[start : start + CHUNK_BYTES]
    stage(broker, key, fields, ttl_s=ttl_s)


def read_checkpoint(broker: Broker, key: str) -> Checkpoint:
    """What `stage_checkpoint` wrote under `key`.

    Raises:
        UnknownVersionError: If it is gone; the message says what can be done.
        WireError: If it does not decode.
    """
    size, digest, statistics, grid = broker.hash_get(key, "size", "digest", "statistics", "grid")
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
    return Checkpoint(decode_state(data), restored, GridState.from_bytes(grid) if grid else None)
