"""What a successor finds: a prefix of what happened, whole, and nothing that did not happen."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl4sys_stream.agent.spool.journal import SpoolJournal
from tests.unit.agent.spool.disk import Disk
from tests.unit.agent.spool.operations import (
    Life,
    Operation,
    balance,
    books,
    check_bytes,
    first_cut,
    lay_out,
    operation,
    recovered,
    small_segments,
    used,
)

LIFE: list[Operation] = [
    *[("accept", 1), ("seal", 2)] * 5,
    ("offer", 3),
    ("accept", 2),
    ("quarantine", 1),
    *[("accept", 1), ("seal", 3)] * 4,
    ("drop", 2),
    ("floor", 1),
    ("offer", 2),
    *[("accept", 1), ("seal", 3), ("offer", 1), ("floor", 1)] * 6,
    ("floor", 3),
]


def check_kills(base: Path, life: Life, step: Operation, cuts: int | None) -> None:
    """Kill the process while the one record of `step` is written, at all or some of its bytes."""
    before, books_before, bytes_before = life.files(), books(life.state), dict(life.written)
    life.do(step)
    after = life.files()
    newest = max(after)
    start, end = first_cut(after[newest], before.get(newest)), used(after[newest])
    stride = 1 if cuts is None else max((end - start) // cuts, 1)
    for cut in range(start, end, stride):
        torn = after[newest][:cut].ljust(len(after[newest]), b"\0")
        if torn == after[newest]:
            break  # what is missing are zeros, as a new file is full of
        with recovered(lay_out(base, {**before, newest: torn})) as journal:
            assert journal is not None
            assert books(journal.state) == books_before
            check_bytes(journal, {**life.written, **bytes_before})
    with recovered(lay_out(base, after)) as journal:
        assert journal is not None
        assert books(journal.state) == books(life.state)
        check_bytes(journal, life.written)


def single(whole: Operation) -> list[Operation]:
    """An operation as steps that write one record each."""
    name, count = whole
    if name == "end":
        return [("accept", 1), ("seal", 1)] * count
    return [(name, 1)] * count if name in {"accept", "offer"} else [whole]


def test_a_kill_at_any_byte_leaves_all_that_was_written_before(tmp_path):
    """One whole life, over several segments, killed at every byte that it ever wrote."""
    with small_segments():
        life = Life(tmp_path / "life")
        for whole in LIFE:
            for step in single(whole):
                check_kills(tmp_path / "copy", life, step, None)
        assert max(life.files()) > "00000003"
        life.die()


@settings(max_examples=25, deadline=None)
@given(st.lists(operation, min_size=1, max_size=25))
def test_whatever_happened_a_kill_leaves_a_prefix_of_it(plan):
    """The books and the bytes after any number of operations, and within the last one."""
    with tempfile.TemporaryDirectory() as folder, small_segments():
        life = Life(Path(folder) / "life")
        for whole in plan:
            for step in single(whole):
                check_kills(Path(folder) / "copy", life, step, 3)
        life.die()


fault = st.sampled_from([(name, on) for name in ("room", "writes", "syncs") for on in (0, 1)])
common = st.tuples(st.sampled_from(["end", "offer", "floor"]), st.integers(1, 2))
faults = st.lists(
    st.one_of(operation, common, common, fault, st.just(("time", 2))), min_size=10, max_size=60
)


@settings(max_examples=80, deadline=None)
@given(faults, st.booleans())
def test_a_disk_that_refuses_now_and_then_never_makes_the_books_lie(plan, fsync):
    """Full, failing in the middle of a write, or not confirming what it was given.

    Whenever the process dies, no number is given twice, what is needed is read back as it was
    written, and the books balance; once the disk works again they are exact.
    """
    with tempfile.TemporaryDirectory() as folder, small_segments() as patch:
        disk = Disk(patch)
        life = Life(Path(folder) / "life", fsync=fsync)
        for name, value in plan:
            if name == "time":
                life.clock.now_s += value
            elif name in {"room", "writes", "syncs"}:
                setattr(disk, name, bool(value))
            else:
                life.do((name, value))
            with recovered(lay_out(Path(folder) / "copy", life.files())) as journal:
                assert journal is not None
                check_honest(journal, life)
        disk.room = disk.writes = disk.syncs = True
        life.clock.now_s += 2
        life.do(("accept", 1))
        with recovered(lay_out(Path(folder) / "copy", life.files())) as journal:
            assert journal is not None
            assert books(journal.state) == books(life.state)
            check_bytes(journal, life.written)
        life.die()


def check_honest(journal: SpoolJournal, life: Life) -> None:
    """What holds although the last notes may be missing."""
    state = journal.state
    assert balance(state) == 0
    check_bytes(journal, life.written)
    assert state.issued >= max(life.numbers, default=0)
    for number, ordinal, length in state.offered:
        for i in range(length):
            assert life.numbers.get(number + i, ordinal + i) == ordinal + i


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_flipped_bits_never_crash_nor_give_wrong_bytes(data):
    """In any number, anywhere: what is found is what was written, or is not found."""
    with tempfile.TemporaryDirectory() as folder, small_segments():
        life = Life(Path(folder) / "life")
        for step in LIFE[: data.draw(st.integers(5, len(LIFE)))]:
            life.do(step)
        files = {name: bytearray(content) for name, content in life.files().items()}
        ends = {name: used(content) for name, content in life.files().items()}
        life.die()
        for _ in range(data.draw(st.integers(1, 5))):
            name = data.draw(st.sampled_from(sorted(files)))
            bit = data.draw(st.integers(0, 8 * ends[name] - 1))
            files[name][bit // 8] ^= 1 << bit % 8
        with recovered(
            lay_out(
                Path(folder) / "copy", {name: bytes(content) for name, content in files.items()}
            )
        ) as journal:
            if journal is not None:
                assert balance(journal.state) == 0
                assert journal.state.accepted <= life.state.accepted
                check_bytes(journal, life.written)


@pytest.mark.parametrize("content", [b"", b"RL4SPL\x00\x01", b"RL4SPL\x00\x02", b"x" * 5000])
def test_a_segment_that_holds_nothing_is_passed_over(tmp_path, content):
    """Killed before its first record, or not ours."""
    life = Life(tmp_path / "life")
    life.do(("accept", 1))
    life.do(("seal", 1))
    files = life.files()
    life.die()
    with recovered(lay_out(tmp_path / "copy", {**files, "00000002.seg": content})) as journal:
        assert journal is not None
        check_bytes(journal, life.written)
        assert (journal.state.accepted, journal.state.sealing) == (1, 0)
    with recovered(lay_out(tmp_path / "copy", {"00000001.seg": content})) as journal:
        assert journal is None
