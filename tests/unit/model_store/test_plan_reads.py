"""Which versions a reader asks for: the fewest bytes that lead to the wanted one."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rl4sys_stream.broker.head import ManifestEntry
from rl4sys_stream.errors import UnknownVersionError
from rl4sys_stream.model_store.route import FULL, READ_BYTES, diff_field, plan_reads


def entry(version: int, diff: int = 10, full: int = 0, token: str = "t") -> ManifestEntry:
    """One retained version."""
    return ManifestEntry(version, token, diff, full)


FIVE = (entry(1, 0, 9000), entry(2), entry(3), entry(4, 10, 9000), entry(5))


def planned(
    manifest: Sequence[ManifestEntry], target: int, held: tuple[int, str] | None
) -> tuple[bool, list[int]]:
    """(from a snapshot, versions)."""
    reads = plan_reads(manifest, target, held)
    assert all(read.field == diff_field() for read in reads[1:])
    return reads[0].field == FULL, [read.entry.version for read in reads]


def test_a_joiner_reads_the_newest_keyframe_and_the_diffs_after_it():
    """Also for an older version."""
    assert planned(FIVE, 4, None) == (True, [4, 5])
    assert planned(FIVE, 3, None) == (True, [4])
    assert planned(FIVE, 2, None) == (True, [1, 2, 3])


def test_a_reader_that_is_behind_reads_diffs_while_they_are_cheaper():
    """One behind, several behind, too far behind."""
    assert planned(FIVE, 4, (4, "t")) == (False, [5])
    assert planned(FIVE, 4, (2, "t")) == (False, [3, 4, 5])
    costly = (entry(1, 0, 9000), entry(2, 6000), entry(3, 6000), entry(4, 6000, 9000), entry(5, 1))
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
    broken = (entry(1, 0, 9000), entry(2), entry(3, 0, 9000), entry(4))
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
        diff = draw(st.integers(0, 500)) if found else 0
        full = draw(st.sampled_from([0, 4000])) if diff else 4000
        direct: tuple[tuple[int, str, int], ...] = ()
        if version > 4 and draw(st.booleans()):
            direct = ((version - 4, "t", draw(st.integers(0, 1000))),)
        found.append(replace(entry(version, diff, full), direct=direct))
    return tuple(found)


@given(manifests(), st.data())
def test_the_plan_is_readable_and_the_cheapest_of_all(manifest, data):
    """Against every other way there is."""
    target = data.draw(st.integers(0, len(manifest) - 1))
    held = data.draw(st.none() | st.integers(0, max(target - 1, 0)))
    have = None if held is None or held >= target else (manifest[held].version, "t")
    reads = plan_reads(manifest, target, have)
    at, cost = have, 0
    for read in reads:
        entry, name = read.entry, (read.entry.version, read.entry.token)
        if read.field == FULL:
            size = entry.full_bytes
        elif read.field == diff_field():
            assert at == (entry.version - 1, "t")
            size = entry.diff_bytes
        else:
            ((base, token, size),) = (
                one for one in entry.direct if diff_field(one[0]) == read.field
            )
            assert at == (base, token)
        assert size
        at, cost = name, cost + size + READ_BYTES
    assert at == (manifest[target].version, "t")
    assert cost == cheapest(manifest, target, have)


def cheapest(manifest: Sequence[ManifestEntry], target: int, have: tuple[int, str] | None) -> int:
    """By looking at all ways to every version."""
    costs = {} if have is None else {have[0]: 0}
    for entry in manifest[: target + 1]:
        ways = [entry.full_bytes + READ_BYTES] if entry.full_bytes else []
        steps = [(entry.version - 1, entry.diff_bytes), *((one[0], one[2]) for one in entry.direct)]
        ways += [costs[base] + size + READ_BYTES for base, size in steps if size and base in costs]
        costs.setdefault(entry.version, min(ways))
    return costs[manifest[target].version]


def test_a_direct_diff_is_taken_where_it_saves_bytes():
    """Also by a reader whose own version is pruned."""
    nine = replace(entry(9, 1000), direct=((5, "t", 1200), (1, "t", 1500)))
    manifest = (entry(7, 0, 9000), entry(8, 1000), nine, entry(10, 1000))
    assert [read.field for read in plan_reads(manifest, 3, (5, "t"))] == ["diff:5", "diff"]
    assert [read.field for read in plan_reads(manifest, 3, (1, "t"))] == ["diff:1", "diff"]
    assert [read.field for read in plan_reads(manifest, 3, (8, "t"))] == ["diff", "diff"]
    assert [read.field for read in plan_reads(manifest, 3, (5, "u"))] == [
        "full",
        "diff",
        "diff",
        "diff",
    ]
