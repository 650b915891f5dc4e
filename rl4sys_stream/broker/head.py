"""The newest committed state of a client: one hash that only the commit script writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.errors import UnknownVersionError, WireFormatError
from rl4sys_stream.wire.json import decode_json

__all__ = [
    "Counts",
    "Head",
    "ManifestEntry",
    "describe_versions",
    "head_fields",
    "parse_head",
    "read_head",
    "require_version",
    "unknown_version",
]


class ManifestEntry(msgspec.Struct, frozen=True, array_like=True):
    """One retained version; the base of its diff is the version before it.

    That is the entry before it, unless the versions between two entries were pruned: then the later
    one of them has a snapshot.

    Attributes:
        version: Model version.
        token: Token it was published under; (version, token) names a model.
        diff_bytes: Size of its diff, 0 where it has none (the first version).
        full_bytes: Size of its snapshot, 0 where it has none (no keyframe).
    """

    version: int
    token: str
    diff_bytes: int
    full_bytes: int


class Counts(msgspec.Struct, frozen=True):
    """How the entries of a lineage were settled; every entry is in exactly one of the first five.

    Attributes:
        trained: Taken in by a commit that published a version (or by a replay buffer).
        quarantined: Could not be used; kept in the quarantine with the reason.
        dropped: Discarded by the worker's policy (policy lag, fallback's actions).
        skipped: Destroyed by a third party before they were read.
        duplicate: Second copies of entries that are settled or pending already.
        steps: Environment steps in the trained ones.
        episodes: Episodes that ended in the trained ones.
    """

    trained: int = 0
    quarantined: int = 0
    dropped: int = 0
    skipped: int = 0
    duplicate: int = 0
    steps: int = 0
    episodes: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """What is committed.

    Attributes:
        version: Newest model version, from 1.
        token: Token that it was published under.
        lineage: Training history it belongs to.
        model: Key of its model hash.
        checkpoint: Key of its checkpoint hash.
        manifest: Retained versions, oldest first; the last one is the newest.
        counts: Of this lineage.
        retained: Entries that stay in the stream after their settlement (a replay buffer's).
        updated_ms: Wall clock of the commit.
        commit: Name of the commit that wrote it, "" in a head that is still to be committed. A
            commit without a version changes this alone of the head's identity.
    """

    version: int
    token: str
    lineage: str
    model: str
    checkpoint: str
    manifest: tuple[ManifestEntry, ...]
    counts: Counts = field(default_factory=Counts)
    retained: int = 0
    updated_ms: int = 0
    commit: str = ""


def head_fields(head: Head) -> dict[str, bytes | str | int]:
    """`head` as the fields of its hash (without `commit`, which the script sets)."""
    return {
        "version": head.version,
        "token": head.token,
        "lineage": head.lineage,
        "model": head.model,
        "checkpoint": head.checkpoint,
        "manifest": msgspec.json.encode(head.manifest),
        "counts": msgspec.json.encode(head.counts),
        "retained": head.retained,
        "updated_ms": head.updated_ms,
    }


def parse_head(fields: Mapping[bytes, bytes]) -> Head | None:
    """The head that `fields` hold, None where they hold none.

    Raises:
        WireFormatError: If they do not decode.
    """
    if b"version" not in fields:
        return None
    try:
        return Head(
            version=int(fields[b"version"]),
            token=fields[b"token"].decode(),
            lineage=fields[b"lineage"].decode(),
            model=fields[b"model"].decode(),
            checkpoint=fields[b"checkpoint"].decode(),
            manifest=decode_json(fields[b"manifest"], tuple[ManifestEntry, ...], "the manifest"),
            counts=decode_json(fields[b"counts"], Counts, "the counts"),
            retained=int(fields[b"retained"]),
            updated_ms=int(fields[b"updated_ms"]),
            commit=fields.get(b"commit", b"").decode(),
        )
    except WireFormatError:
        raise
    except (KeyError, ValueError) as error:
        raise WireFormatError(f"the head does not decode: {error!r}") from error


def read_head(broker: Broker, keys: ClientKeys) -> Head | None:
    """The client's head, None before the first version."""
    return parse_head(broker.hash_all(keys.head))


def describe_versions(manifest: Sequence[ManifestEntry]) -> str:
    """Which versions there are, in words: "3…5, 9…20"; "none"."""
    spans: list[tuple[int, int]] = []
    for entry in manifest:
        if spans and entry.version == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], entry.version)
        else:
            spans.append((entry.version, entry.version))
    return ", ".join(f"{a}…{b}" if a < b else str(a) for a, b in spans) or "none"


def require_version(client: str, head: Head | None, version: int) -> ManifestEntry:
    """The entry of a retained version.

    Raises:
        UnknownVersionError: If it was never published or is pruned; names what there is.
    """
    manifest = head.manifest if head else ()
    for entry in manifest:
        if entry.version == version:
            return entry
    raise unknown_version(client, manifest, version)


def unknown_version(
    client: str, manifest: Sequence[ManifestEntry], version: int
) -> UnknownVersionError:
    """The error for a version that was never published or is pruned; names what there is."""
    return UnknownVersionError(
        f"{client} has no version {version}; retained versions: {describe_versions(manifest)}"
    )
