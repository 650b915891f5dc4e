"""The journal on a disk that works, and on one that does not: bounded, honest, and mended."""

import fcntl
import os
from pathlib import Path

import pytest

from rl4sys_stream.agent.spool.folder import Orphans, SpoolFolder
from rl4sys_stream.agent.spool.journal import SpoolJournal
from rl4sys_stream.errors import SpoolError
from tests.unit.agent.rig import ManualClock
from tests.unit.agent.spool.disk import Disk
from tests.unit.agent.spool.operations import (
    Life,
    books,
    check_bytes,
    lay_out,
    recovered,
    small_segments,
)


@pytest.fixture
def patch():
    """Small segments."""
    with small_segments() as patch:
        yield patch


def test_segments_are_deleted_when_nothing_in_them_is_needed(tmp_path, patch):
    """Ten thousand bytes a second for a year must not be a year of disk."""
    life = Life(tmp_path)
    most = 0
    for _ in range(300):
        life.do(("end", 3))
        life.do(("offer", 3))
        life.do(("floor", 2))
        most = max(most, len(life.files()))
    assert life.state.issued == 900
    assert most <= 4
    life.die()


def test_dropping_makes_room_on_the_disk_too(tmp_path, patch):
    """Nothing is ever offered, and the oldest give way."""
    life = Life(tmp_path)
    for _ in range(200):
        life.do(("end", 1))
        if len(life.written) - life.state.dropped > 10:
            life.do(("drop", 1))
    assert len(life.files()) <= 5
    with recovered(lay_out(tmp_path / "copy", life.files())) as journal:
        assert journal is not None
        assert journal.state.dropped == 190
        check_bytes(journal, life.written)
    life.die()


def test_books_that_could_not_be_written_are_made_good_by_the_next_segment(tmp_path, patch):
    """Its state says what the notes between would have said."""
    disk = Disk(patch)
    life = Life(tmp_path)
    life.do(("end", 2))
    disk.writes = disk.room = False
    for step in [("accept", 3), ("quarantine", 1), ("drop", 1)]:
        life.do(step)
    with recovered(lay_out(tmp_path / "copy", life.files())) as journal:
        assert journal is not None
        assert journal.state.accepted == 2
    disk.writes = disk.room = True
    life.clock.now_s += 2
    life.do(("accept", 1))
    with recovered(lay_out(tmp_path / "copy", life.files())) as journal:
        assert journal is not None
        assert books(journal.state) == books(life.state)
        assert (journal.state.accepted, journal.state.dropped) == (6, 1)
    life.die()


def test_a_disk_that_the_spool_itself_filled_gets_its_room_back(tmp_path, patch):
    """Books that are behind must not keep the files whose room they wait for."""
    disk = Disk(patch)
    life = Life(tmp_path)
    for _ in range(12):
        life.do(("end", 1))
    life.do(("offer", 12))
    assert len(life.files()) > 2
    disk.room = False
    disk.writes = False
    life.do(("accept", 1))
    life.do(("floor", 99))
    assert len(life.files()) == 1
    disk.room = disk.writes = True
    life.clock.now_s += 2
    life.do(("end", 1))
    life.do(("offer", 1))
    with recovered(lay_out(tmp_path / "copy", life.files())) as journal:
        assert journal is not None
        assert books(journal.state) == books(life.state)
    life.die()


def test_a_folder_that_lets_nothing_be_deleted_fails_nobody_and_is_asked_again(tmp_path, patch):
    """A read-only remount must cost neither a drop, nor a floor, nor a new segment."""
    disk = Disk(patch)
    life = Life(tmp_path)
    disk.removals = False
    for _ in range(20):
        life.do(("end", 3))
        life.do(("drop", 1))
        life.do(("offer", 2))
        life.do(("floor", 1))
        life.clock.now_s += 0.3
    assert (life.state.dropped, life.state.issued, life.state.floor) == (20, 40, 41)
    assert len(life.files()) > 6
    disk.removals = True
    life.clock.now_s += 2
    life.do(("end", 1))
    life.do(("drop", 1))
    assert len(life.files()) <= 2
    with recovered(lay_out(tmp_path / "copy", life.files())) as journal:
        assert journal is not None
        assert books(journal.state) == books(life.state)
        check_bytes(journal, life.written)
    life.die()


def test_a_number_that_cannot_be_written_down_is_not_given(tmp_path, patch):
    """It would be given twice after a kill."""
    disk = Disk(patch)
    life = Life(tmp_path)
    life.do(("end", 1))
    disk.writes = False
    with pytest.raises(SpoolError, match="given twice"):
        life.journal.offered(1, [1])
    assert (life.state.issued, life.state.offered) == (0, [])
    disk.writes = True
    life.journal.offered(1, [1])
    life.die()


@pytest.mark.parametrize("what", ["room", "writes", "syncs"])
def test_a_segment_that_could_not_be_begun_leaves_nothing_behind(tmp_path, patch, what):
    """Its state would hide what is still written to the one before, and its name be taken."""
    disk = Disk(patch)
    life = Life(tmp_path, fsync=True)
    while len(life.files()) < 2:
        life.do(("end", 1))
    setattr(disk, what, False)
    before = set(life.files())
    for _ in range(20):
        life.do(("end", 1))
        life.clock.now_s += 2
    assert set(life.files()) == before
    setattr(disk, what, True)
    life.do(("end", 1))
    life.do(("offer", 1))
    with recovered(lay_out(tmp_path / "copy", life.files())) as journal:
        assert journal is not None
        assert books(journal.state) == books(life.state)
    life.die()


@pytest.mark.parametrize("what", ["room", "writes", "syncs"])
def test_a_segment_that_could_be_neither_begun_nor_deleted_blocks_and_hides_nothing(
    tmp_path, patch, what
):
    """As where a file system becomes read-only for a while, and is made good again."""
    disk = Disk(patch)
    life = Life(tmp_path, fsync=True)
    while len(life.files()) < 2:
        life.do(("end", 1))
    setattr(disk, what, False)
    disk.removals = False
    before = len(life.files())
    while len(life.files()) == before:
        life.do(("end", 1))
        life.clock.now_s += 2
    setattr(disk, what, True)
    unsaved = life.journal.unsaved
    for attempt in range(6):
        life.clock.now_s += 2
        life.do(("offer", 1))
        with recovered(lay_out(tmp_path / f"copy{attempt}", life.files())) as journal:
            assert journal is not None
            assert journal.state.issued == life.state.issued, "no number is given twice"
        life.do(("end", 1))
    assert life.journal.unsaved == unsaved
    assert life.state.issued > 3
    life.die()


def test_a_folder_that_cannot_be_written_to_is_refused_with_the_settings_name(tmp_path):
    """The next move is in the message; permissions do not stop root, so a file stands in the way.

    No folder of a failed attempt is left for others to look at.
    """
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match=r"agent\.spool_dir"):
        SpoolJournal.create(tmp_path / "file", "agent", fsync=False, clock=ManualClock())
    with pytest.MonkeyPatch.context() as patch:
        Disk(patch).room = False
        with pytest.raises(SpoolError, match=r"agent\.spool_dir"):
            SpoolJournal.create(tmp_path / "full", "agent", fsync=False, clock=ManualClock())
    assert list((tmp_path / "full").iterdir()) == []


def test_an_agent_that_is_being_born_is_not_taken_for_dead(tmp_path, patch):
    """Another agent looks for orphans between each two steps of its making."""
    found: list[str] = []

    def look() -> None:
        with pytest.MonkeyPatch.context() as undisturbed:
            undisturbed.setattr("fcntl.flock", flock)
            for folder in Orphans(tmp_path, "other"):
                found.append(folder.path.name)
                folder.remove()

    def lock(descriptor: int, operation: int) -> None:
        look()
        flock(descriptor, operation)

    def take_room(descriptor: int, offset: int, length: int) -> None:
        look()
        allocate(descriptor, offset, length)

    flock, allocate = fcntl.flock, os.posix_fallocate
    patch.setattr("fcntl.flock", lock)
    patch.setattr("os.posix_fallocate", take_room)
    life = Life(tmp_path)
    life.do(("end", 1))
    assert found == []
    assert life.folder.is_dir()
    life.die()


def test_a_living_agents_folder_is_adopted_by_nobody_and_a_dead_ones_by_one(tmp_path):
    """Two agents in one folder, also of one process."""
    life = Life(tmp_path)
    assert list(Orphans(tmp_path, "other")) == []
    life.die()
    (adopted,) = Orphans(tmp_path, "other")
    assert list(Orphans(tmp_path, "third")) == []
    assert list(Orphans(tmp_path, "agent")) == []
    adopted.remove()
    assert list(tmp_path.iterdir()) == []
    assert SpoolFolder.adopt(tmp_path / "agent") is None


def test_a_folder_that_cannot_be_read_now_is_left_for_later(tmp_path, patch):
    """A process out of descriptors must not throw away what it cannot open."""
    life = Life(tmp_path)
    for _ in range(12):
        life.do(("end", 1))
    life.die()
    opened = os.open

    def refuses_the_second(path: Path, *arguments: int) -> int:
        if str(path).endswith("00000002.seg"):
            raise OSError(24, "Too many open files")
        return opened(path, *arguments)

    folder = SpoolFolder.adopt(life.folder)
    assert folder is not None
    before = len(list(Path("/dev/fd").iterdir()))
    patch.setattr("os.open", refuses_the_second)
    with pytest.raises(SpoolError, match="cannot read"):
        SpoolJournal.recover(folder, fsync=False, clock=ManualClock())
    patch.setattr("os.open", opened)
    assert len(list(Path("/dev/fd").iterdir())) == before, "what was opened is closed"
    journal = SpoolJournal.recover(folder, fsync=False, clock=ManualClock())
    assert journal is not None
    check_bytes(journal, life.written)
    assert len(journal.state.queued) == 1
    journal.close(remove=True)
