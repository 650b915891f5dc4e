"""What dead agents left takes no more of the disk than what is used in it."""

from pathlib import Path

from rl4sys_stream.agent.spool.folder import Orphans, SpoolFolder
from rl4sys_stream.agent.spool.journal import SpoolJournal
from rl4sys_stream.agent.spool.remains import tidy
from tests.unit.agent.rig import ManualClock
from tests.unit.agent.spool.operations import Life, books, check_bytes, lay_out, recovered


def disk_bytes(base: Path) -> int:
    """What the segments take."""
    return sum(path.stat().st_size for path in base.rglob("*.seg"))


def test_a_dead_agents_spool_is_cut_to_what_is_used_in_it_and_reads_as_before(tmp_path):
    """Four megabytes were taken for three trajectories."""
    life = Life(tmp_path)
    life.do(("end", 3))
    life.do(("offer", 1))
    life.die()
    assert disk_bytes(tmp_path) > 1 << 20
    left = tidy(Orphans(tmp_path, "other"))
    assert left == disk_bytes(tmp_path) < 2000
    assert tidy(Orphans(tmp_path, "other")) == left
    with recovered(life.folder) as journal:
        assert journal is not None
        assert books(journal.state) == books(life.state)
        check_bytes(journal, life.written)


def test_what_cannot_be_read_is_not_cut_off(tmp_path):
    """A damaged record in the middle hides what follows from agents, not from people."""
    life = Life(tmp_path)
    life.do(("end", 3))
    life.die()
    ((name, data),) = life.files().items()
    end = len(data.rstrip(b"\0"))
    for at in (end // 2, 200):
        damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        folder = lay_out(tmp_path / "copy", {name: damaged})
        left = tidy(Orphans(tmp_path / "copy", "other"))
        assert (folder / name).read_bytes().rstrip(b"\0") == damaged.rstrip(b"\0")
        assert end <= left < end + 16


def test_a_living_agents_spool_is_left_alone(tmp_path):
    """It needs the room that it has taken, and has a bound of its own."""
    life = Life(tmp_path)
    life.do(("end", 3))
    before = disk_bytes(tmp_path)
    assert tidy(Orphans(tmp_path, "other")) == 0
    assert disk_bytes(tmp_path) == before
    life.die()
    assert tidy(Orphans(tmp_path, "agent")) == 0, "its own"


def test_a_folder_in_which_nothing_happened_is_removed(tmp_path):
    """A crash loop without a broker would leave thousands."""
    Life(tmp_path).die()
    assert tidy(Orphans(tmp_path, "other")) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_only_news_is_that_everything_was_dropped_stays(tmp_path):
    """Its books are not zero, so they are still to be told."""
    life = Life(tmp_path)
    life.do(("end", 1))
    life.do(("drop", 1))
    life.die()
    assert 0 < tidy(Orphans(tmp_path, "other")) < 1000
    assert life.folder.is_dir()
    found = SpoolFolder.adopt(life.folder)
    assert found is not None, "the lock is given back"
    found.release()


def test_a_small_spool_takes_its_room_in_small_pieces(tmp_path):
    """Else one segment would be many times of what was allowed."""
    for spool_bytes, most in [(1 << 16, 140 << 10), (32 << 20, 2 << 20), (1 << 30, 4 << 20)]:
        journal = SpoolJournal.create(
            tmp_path, "agent", fsync=False, clock=ManualClock(), spool_bytes=spool_bytes
        )
        assert most // 2 < disk_bytes(tmp_path) <= most
        journal.close(remove=True)
