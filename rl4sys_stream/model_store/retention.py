"""Which versions stay: the newest ones, and those that somebody has named."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rl4sys_stream.broker.head import ManifestEntry

__all__ = ["Retention", "retain"]


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


def retain(
    manifest: Sequence[ManifestEntry], count: int, protected: Collection[tuple[int, str]]
) -> Retention:
    """Prune whole stretches from a keyframe on, but not the way to a protected version.

    So every version in the new manifest can be put together from what the manifest lists.

    Args:
        manifest: Versions before pruning, oldest first, the new one included.
        count: How many of the newest stay at least.
        protected: (version, token) of those that stay besides.
    """
    first = _first_kept(manifest, count)
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


def _first_kept(manifest: Sequence[ManifestEntry], count: int) -> int:
    """Index of the newest keyframe that leaves at least `count` entries."""
    return _keyframe_before(manifest, max(len(manifest) - count, 0))
