"""What the worker tells subscribers of a new version; a small diff rides along.

```
{"version": 18, "token": "3:ab", "lineage": "9f…", "base_version": 17, "base_token": "3:ab",
 "digest": "…", "extras": base64, "diff": base64}
```
The last five are there if the diff is small. Whoever has the base then needs no read. Anybody else,
and whoever missed the notice, looks at the head.
"""

from typing import Final

import msgspec

from rl4sys_stream.errors import DigestError
from rl4sys_stream.model_store.shelf import ModelName, shared_weights
from rl4sys_stream.model_store.subscriber import Model
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.wire.frames import apply_any_diff
from rl4sys_stream.wire.json import decode_json

__all__ = ["MAX_PASSENGER_BYTES", "Notice", "follow_notice", "read_notice"]

MAX_PASSENGER_BYTES: Final = 4096
"""Diffs and extras of up to this size ride along. Servers do not bound how much they buffer for
slow subscribers by messages, but by bytes, so messages stay small."""


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version is published.

    Attributes:
        version: Model version, 0 where the notice is about something else.
        token: Token it was published under.
        lineage: Training history it belongs to.
        base_version: Of the model that `diff` starts from.
        base_token: Likewise.
        digest: Of weights and extras after the diff.
        extras: Of the new model.
        diff: From the base; b"" if it is too large.
    """

    version: int = 0
    token: str = ""
    lineage: str = ""
    base_version: int = 0
    base_token: str = ""
    digest: str = ""
    extras: bytes = b""
    diff: bytes = b""

    def to_bytes(self) -> bytes:
        """As JSON, without the diff and what belongs to it if they are too large."""
        if len(self.diff) + len(self.extras) <= MAX_PASSENGER_BYTES and self.diff:
            return msgspec.json.encode(self)
        alone = Notice(version=self.version, token=self.token, lineage=self.lineage)
        return msgspec.json.encode(alone)


def read_notice(data: bytes) -> Notice:
    """The inverse of `Notice.to_bytes`; notices about other things have version 0.

    Raises:
        WireFormatError: If it is no notice.
    """
    return decode_json(data, Notice, "the notice")


def follow_notice(notice: Notice, current: Model, name: ModelName) -> Model | None:
    """The new model, by the diff in `notice`.

    Args:
        notice: What was told.
        current: What the reader has.
        name: Of the new model, under which readers of this process share its weights.

    Returns:
        None if there is none, or it starts from another model than `current`: look at the head.

    Raises:
        WireError: If it does not lead to what was published; likewise.
    """
    base = (notice.lineage, notice.base_version, notice.base_token)
    if not notice.diff or base != (current.lineage, current.version, current.token):
        return None
    weights = shared_weights().get(name) or apply_any_diff(current.weights, notice.diff)
    if weights.digest(notice.extras) != notice.digest:
        raise DigestError(f"version {notice.version} does not match its digest")
    weights = shared_weights().share(name, weights)
    extras = BehaviorExtras.from_bytes(notice.extras)
    return Model(notice.version, notice.token, notice.lineage, weights, extras)
