"""Which versions a reader asks for: the fewest bytes that lead to the wanted one."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl4sys_stream.broker.head import ManifestEntry
from rl4sys_stream.errors import UnknownVersionError
from rl4sys_stream.model_store.subscriber import plan_reads


def entry(version: int, diff: int = 10, full: int = 0, token: str = "t") -> ManifestEntry:
    """One retained version."""
    return ManifestEntry(version, token, diff, full)


FIVE = (entry(1, 0, 100), entry(2), entry(3), entry(4, 10, 100), entry(5))


def planned(
    manifest: Sequence[ManifestEntry], target: int, held: tuple[int, str] | None
) -> tuple[bool, list[int]]:
    """(from a snapshot, versions)."""
    whole, entries = plan_reads(manifest, target, held)
    return whole, [one.version for one in entries]


def test_a_joiner_reads_the_newest_keyframe_and_the_diffs_after_it():
    """Also for an older version."""
    assert planned(FIVE, 4, None) == (True, [4, 5])
    assert planned(FIVE, 3, None) == (True, [4])
    assert planned(FIVE, 2, None) == (True, [1, 2, 3])


def test_a_reader_that_is_behind_reads_diffs_while_they_are_cheaper():
    """One behind, several behind, too far behind."""
    assert planned(FIVE, 4, (4, "t")) == (False, [5])
    assert planned(FIVE, 4, (2, "t")) == (False, [3, 4, 5])
    costly = (entry(1, 0, 100), entry(2, 60), entry(3, 60), entry(4, 60, 100), entry(5, 1))
    assert planned(costly, 4, (2, "t")) == (True, [4, 5])


def test_a_base_that_is_pruned_or_of_another_token_is_none():
    """The number alone names no model."""
    assert planned(FIVE[3:], 1, (2, "t")) == (True, [4, 5])
    assert planned(FIVE, 4, (4, "other")) == (True, [4, 5])
    assert planned(FIVE, 4, (9, "t")) == (True, [4, 5])


def test_versions_that_were_pruned_in_between_break_the_chain():
    """The diff of the first one after them starts from one that is gone."""
    gap = (entry(1, 0, 100), entry(2), entry(7, 10, 100), entry(8))
    assert planned(gap, 3, (2, "t")) == (True, [7, 8])
    assert planned(gap, 3, (7, "t")) == (False, [8])
    assert planned(gap, 1, (1, "t")) == (False, [2])


def test_an_entry_without_a_diff_breaks_the_chain():
    """The layout changed there."""
    broken = (entry(1, 0, 100), entry(2), entry(3, 0, 1000), entry(4))
    assert planned(broken, 3, (2, "t")) == (True, [3, 4])
    assert planned(broken, 3, (3, "t")) == (False, [4])


def test_without_a_keyframe_only_a_chain_leads_there():
    """And without one there is no way."""
    assert planned((entry(7), entry(8)), 1, (7, "t")) == (False, [8])
    with pytest.raises(UnknownVersionError, match="no keyframe"):
        plan_reads((entry(7), entry(8)), 1, None)


@st.composite
def manifests(draw):
    """As a publisher writes them: no diff without a base, a snapshot where there is no diff."""
    found: list[ManifestEntry] = []
    for version in range(1, draw(st.integers(1, 12)) + 1):
        diff = draw(st.integers(0, 50)) if found else 0
        full = draw(st.sampled_from([0, 40])) if diff else 40
        found.append(entry(version, diff, full))
    return tuple(found)


@given(manifests(), st.data())
def test_the_plan_is_readable_and_the_cheapest_of_all(manifest, data):
    """Against every other way there is."""
    target = data.draw(st.integers(0, len(manifest) - 1))
    held = data.draw(st.none() | st.integers(0, max(target - 1, 0)))
    have = None if held is None or held >= target else (manifest[held].version, "t")
    whole, entries = plan_reads(manifest, target, have)
    assert entries[-1] == manifest[target]
    first = manifest.index(entries[0])
    assert list(entries) == list(manifest[first : target + 1])
    diffs = entries[1:] if whole else entries
    assert all(one.diff_bytes for one in diffs)
    assert manifest[first].full_bytes if whole else have == (manifest[first - 1].version, "t")
    cost = (entries[0].full_bytes if whole else 0) + sum(one.diff_bytes for one in diffs)
    newest = max(i for i in range(target + 1) if manifest[i].full_bytes)
    rest = manifest[newest + 1 : target + 1]
    costs = [manifest[newest].full_bytes + sum(one.diff_bytes for one in rest)]
    if have is not None:
        chain = manifest[manifest.index(entry_of(manifest, have)) + 1 : target + 1]
        if all(one.diff_bytes for one in chain):
            costs.append(sum(one.diff_bytes for one in chain))
    assert cost == min(costs)


def entry_of(manifest: Sequence[ManifestEntry], have: tuple[int, str]) -> ManifestEntry:
    """The entry that a reader holds."""
    return next(one for one in manifest if (one.version, one.token) == have)
