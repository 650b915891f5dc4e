"""The cheapest way from what a reader has to the version that it wants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rl4sys_stream.broker.head import ManifestEntry
from rl4sys_stream.errors import UnknownVersionError

__all__ = ["FULL", "Read", "diff_field", "plan_reads"]

FULL: Final = "full"
"""Field of a snapshot in a model's hash."""

READ_BYTES: Final = 256
"""What one more frame costs beside its own bytes: its key, and the work with it."""


@dataclass(frozen=True, slots=True)
class Read:
    """One frame to read.

    Attributes:
        entry: The version that it leads to.
        field: Where it lies in that version's hash; a snapshot if it is `FULL`.
    """

    entry: ManifestEntry
    field: str


def diff_field(base_version: int | None = None) -> str:
    """Field of the diff from the version before, or of the direct one from `base_version`."""
    return "diff" if base_version is None else f"diff:{base_version}"


_Name = tuple[int, str]


def plan_reads(
    manifest: Sequence[ManifestEntry], target: int, held: _Name | None
) -> tuple[Read, ...]:
    """The reads that lead to a version by the fewest bytes.

    Over all ways there are: a snapshot or what the reader has, then diffs from one version to the
    next and direct ones over several. A version that is pruned is no part of any way, except as
    what the reader has.

    Args:
        manifest: Retained versions, oldest first; each one's diff starts from the version before.
        target: Index in it of the version that is wanted.
        held: (version, token) that the reader has, None if none.

    Returns:
        In order, each one's base being what the one before led to; the first one's is `held`
        unless it is a snapshot.

    Raises:
        UnknownVersionError: If no way leads there.
    """
    wanted = (manifest[target].version, manifest[target].token)
    best: dict[_Name, tuple[int, Read | None, _Name | None]] = {}
    if held is not None and held != wanted:
        best[held] = (0, None, None)
    before: ManifestEntry | None = None
    for entry in manifest[: target + 1]:
        ways: list[tuple[int, Read | None, _Name | None]] = [
            (best[base][0] + size + READ_BYTES, Read(entry, field), base)
            for base, size, field in _diffs(entry, before)
            if size and base in best
        ]
        if entry.full_bytes:
            ways.append((entry.full_bytes + READ_BYTES, Read(entry, FULL), None))
        name = (entry.version, entry.token)
        if ways and name not in best:
            best[name] = min(ways, key=lambda way: way[0])
        before = entry
    return _trace(best, wanted)


def _diffs(entry: ManifestEntry, before: ManifestEntry | None) -> list[tuple[_Name, int, str]]:
    """(base, bytes, field) of the diffs that lead to `entry`."""
    found: list[tuple[_Name, int, str]] = []
    if before is not None and before.version == entry.version - 1:
        found.append(((before.version, before.token), entry.diff_bytes, diff_field()))
    found += [((base, token), size, diff_field(base)) for base, token, size in entry.direct]
    return found


def _trace(
    best: Mapping[_Name, tuple[int, Read | None, _Name | None]], wanted: _Name
) -> tuple[Read, ...]:
    """The reads that lead to `wanted`, from the first one on."""
    reads: list[Read] = []
    at: _Name | None = wanted
    while at is not None:
        if at not in best:
            raise UnknownVersionError("the manifest holds no keyframe to start from")
        _, read, at = best[at]
        if read is not None:
            reads.append(read)
    return tuple(reversed(reads))
