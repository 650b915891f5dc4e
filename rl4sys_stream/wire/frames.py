"""Snapshots and diffs of any kind: the frame says which one it is."""

from typing import Final

from rl4sys_stream.wire.compact import (
    DIFF_KIND,
    SNAPSHOT_KIND,
    apply_compact_diff,
    decode_compact_snapshot,
)
from rl4sys_stream.wire.diff import apply_diff
from rl4sys_stream.wire.snapshot import Weights, decode_snapshot

__all__ = ["apply_any_diff", "decode_any_snapshot"]

_KIND_AT: Final = 5


def decode_any_snapshot(data: bytes, *, max_parameters: int) -> Weights:
    """The weights of an exact or a compact snapshot.

    Raises:
        WireFormatError: If it is neither, or cut.
        WireLimitError: If it declares more than `max_parameters`.
        DigestError: If the weights are not those that were encoded.
    """
    compact = data[_KIND_AT : _KIND_AT + 1] == bytes((SNAPSHOT_KIND,))
    decode = decode_compact_snapshot if compact else decode_snapshot
    return decode(data, max_parameters=max_parameters)


def apply_any_diff(base: Weights, data: bytes) -> Weights:
    """What an exact or a compact diff makes of `base`, which is left as it is.

    Raises:
        WireFormatError: If it is neither, or cut.
        DigestError: If it starts from other weights or does not lead to the published ones. Fetch
            the keyframe.
    """
    compact = data[_KIND_AT : _KIND_AT + 1] == bytes((DIFF_KIND,))
    return (apply_compact_diff if compact else apply_diff)(base, data)
