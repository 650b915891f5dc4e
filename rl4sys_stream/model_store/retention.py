"""Which versions stay: the newest ones, and those that somebody has named."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rl4sys_stream.broker.head import ManifestEntry

__all__ = ["Limits", "Retention", "retain"]


@dataclass(frozen=True, slots=True)
class Retention:
    """What a commit leaves of the versions.

    Attributes:
        manifest: The head's new manifest, oldest first.
        pruned: Versions that are no more in it.
        bare: Versions in it that lose their checkpoint: they are there as the way to a later one
            that was named.
    """

    manifest: tuple[ManifestEntry, ...]
    pruned: tuple[ManifestEntry, ...]
    bare: tuple[ManifestEntry, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the past is kept.

    Attributes:
        versions: As many of the newest stay, unless one of the others says otherwise.
        size_bytes: Of all snapshots and diffs together, at most; None: whatever it comes to.
        oldest_ms: Wall clock before which versions go; None: however old they are.
    """

    versions: int
    size_bytes: int | None = None
    oldest_ms: int | None = None


def retain(
    manifest: Sequence[ManifestEntry], limits: Limits, protected: Collection[tuple[int, str]]
) -> Retention:
    """Prune whole stretches from a keyframe on, but not the way to a protected version.

    So every version in the new manifest can be put together from what the manifest lists.

    Args:
        manifest: Versions before pruning, oldest first, the new one included.
        limits: What goes; what the newest version is put together from stays in any case.
        protected: (version, token) of those that stay besides.
    """
    first = _first_kept(manifest, limits)
    old: set[int] = set()
    bare: set[int] = set()
    for index in range(first):
        if (manifest[index].version, manifest[index].token) in protected:
            keyframe = _keyframe_before(manifest, index)
            old.update(range(keyframe, index + 1))
            bare.update(range(keyframe, index))
    named = {i for i in old if (manifest[i].version, manifest[i].token) in protected}
    kept = [manifest[i] for i in sorted(old)]
    return Retention(
        manifest=(*kept, *manifest[first:]),
        pruned=tuple(manifest[i] for i in range(first) if i not in old),
        bare=tuple(manifest[i] for i in sorted(bare - named)),
    )


def _keyframe_before(manifest: Sequence[ManifestEntry], index: int) -> int:
    """Index of the keyframe that the version at `index` is put together from."""
    return max((i for i in range(index + 1) if manifest[i].full_bytes), default=0)


def _first_kept(manifest: Sequence[ManifestEntry], limits: Limits) -> int:
    """Index of the keyframe from which on everything stays."""
    first = _keyframe_before(manifest, max(len(manifest) - limits.versions, 0))
    size = sum(entry.size_bytes for entry in manifest[first:])
    for index in range(first + 1, len(manifest)):
        if not manifest[index].full_bytes:
            continue
        stretch = manifest[first:index]
        too_large = limits.size_bytes is not None and size > limits.size_bytes
        # Of a version whose time was not noted nobody knows how old it is.
        too_old = limits.oldest_ms is not None and 0 < stretch[-1].time_ms < limits.oldest_ms
        if not too_large and not too_old:
            break
        size -= sum(entry.size_bytes for entry in stretch)
        first = index
    return first
