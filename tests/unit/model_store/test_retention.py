"""What stays of the versions, as a function of the manifest and of what was named."""

from hypothesis import given
from hypothesis import strategies as st

from rl4sys_stream.broker.head import ManifestEntry
from rl4sys_stream.model_store.retention import retain


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
    found = retain(entries, count, protected)
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
    once = retain(entries, count, protected)
    assert retain(once.manifest, count, protected).manifest == once.manifest
    assert retain(once.manifest, count, ()).manifest == retain(entries, count, ()).manifest


def test_what_lies_on_the_way_to_a_named_version_loses_its_checkpoint_alone():
    """Checkpoints are not small, and nobody can want that one."""
    entries = manifest([True, False, False, True, False, False, True, False])
    found = retain(entries, 2, {(3, "1:a")})
    assert [entry.version for entry in found.manifest] == [1, 2, 3, 7, 8]
    assert [entry.version for entry in found.bare] == [1, 2]
    assert [entry.version for entry in found.pruned] == [4, 5, 6]
