"""What stays of the versions, as a function of the manifest and of what was named."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rl4sys_stream.broker.head import ManifestEntry
from rl4sys_stream.model_store.retention import Limits, retain


def manifest(full: list[bool]) -> tuple[ManifestEntry, ...]:
    """Versions from 1 on; the first is a keyframe, the others where it says so."""
    return tuple(
        ManifestEntry(index + 1, "1:a", 10 if index else 0, 100 if whole or not index else 0)
        for index, whole in enumerate(full)
    )


MANIFESTS = st.lists(st.booleans(), min_size=1, max_size=40).map(manifest)


@given(MANIFESTS, st.integers(2, 10), st.sets(st.integers(1, 40)))
def test_every_version_that_stays_can_be_put_together(entries, count, named):
    """From a keyframe by consecutive diffs; named ones and the newest stay, all else is told."""
    protected = {(version, "1:a") for version in named}
    found = retain(entries, Limits(count), protected)
    kept = {entry.version for entry in found.manifest}
    assert named & {entry.version for entry in entries} <= kept
    assert {entry.version for entry in entries[-count:]} <= kept
    assert set(found.manifest) | set(found.pruned) == set(entries)
    assert not set(found.manifest) & set(found.pruned)
    for index, entry in enumerate(found.manifest):
        if not entry.full_bytes:
            assert found.manifest[index - 1].version == entry.version - 1
    assert {entry.version for entry in found.bare} <= kept - named


@given(MANIFESTS, st.integers(2, 10), st.sets(st.integers(1, 40)))
def test_pruning_again_changes_nothing(entries, count, named):
    """And once nothing is named any more, what was kept for it goes."""
    protected = {(version, "1:a") for version in named}
    once = retain(entries, Limits(count), protected)
    assert retain(once.manifest, Limits(count), protected).manifest == once.manifest
    bare = retain(entries, Limits(count), ())
    assert retain(once.manifest, Limits(count), ()).manifest == bare.manifest


def test_what_lies_on_the_way_to_a_named_version_loses_its_checkpoint_alone():
    """Checkpoints are not small, and nobody can want that one."""
    entries = manifest([True, False, False, True, False, False, True, False])
    found = retain(entries, Limits(2), {(3, "1:a")})
    assert [entry.version for entry in found.manifest] == [1, 2, 3, 7, 8]
    assert [entry.version for entry in found.bare] == [1, 2]
    assert [entry.version for entry in found.pruned] == [4, 5, 6]


def test_old_versions_go_by_bytes_and_by_age_but_never_the_way_to_the_newest():
    """Whole stretches: 1 to 3 and 4 to 6; what comes after is the newest one's."""
    entries = manifest([True, False, False, True, False, False, True, False])
    entries = tuple(replace(entry, time_ms=1000 * entry.version) for entry in entries)

    def kept(limits: Limits) -> list[int]:
        return [entry.version for entry in retain(entries, limits, ()).manifest]

    assert kept(Limits(8)) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert kept(Limits(8, size_bytes=370)) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert kept(Limits(8, size_bytes=369)) == [4, 5, 6, 7, 8]
    assert kept(Limits(8, size_bytes=1)) == [7, 8]
    assert kept(Limits(8, oldest_ms=3000)) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert kept(Limits(8, oldest_ms=3001)) == [4, 5, 6, 7, 8]
    assert kept(Limits(8, oldest_ms=9000)) == [7, 8]
    unknown = manifest([True, False, False, True, False, False, True, False])
    assert len(retain(unknown, Limits(8, oldest_ms=9000), ()).manifest) == len(unknown)
