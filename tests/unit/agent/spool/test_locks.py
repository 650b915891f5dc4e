"""Whose a folder is, when processes fork and are killed in the middle of something."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rl4sys_stream.agent.spool.folder import Orphans, SpoolFolder
from tests.unit.agent.spool.operations import Life, small_segments


def is_free(folder: Path) -> bool:
    """Whether the next agent can adopt it."""
    found = SpoolFolder.adopt(folder)
    if found is not None:
        found.release()
    return found is not None


@contextmanager
def forked(action: Callable[[], None]) -> Iterator[None]:
    """A child that has done `action` and lives on."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        action()
        os.write(write, b"done")
        signal.pause()
        os._exit(0)
    os.close(write)
    try:
        assert os.read(read, 4) == b"done"
        yield
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def dead(base: Path) -> Path:
    """The folder of an agent that is dead."""
    life = Life(base)
    life.do(("end", 1))
    life.die()
    return life.folder


def test_a_folder_that_was_let_go_is_free_although_a_child_has_a_copy_of_its_lock(tmp_path):
    """Whatever forked: libraries do, too, and run none of Python's hooks."""
    folder = SpoolFolder.adopt(dead(tmp_path))
    assert folder is not None
    with forked(lambda: None):
        assert not is_free(folder.path)
        folder.release()
        assert is_free(folder.path)


def test_a_child_that_lets_go_of_a_folder_leaves_it_to_its_parent(tmp_path):
    """The parent's agent lives."""
    folder = SpoolFolder.adopt(dead(tmp_path))
    assert folder is not None
    with forked(folder.release):
        assert not is_free(folder.path)
    assert not is_free(folder.path)
    folder.release()


def test_a_child_does_not_keep_what_its_parent_was_looking_at(tmp_path):
    """The parent is killed; the folder is the next agent's, not the child's until its end."""
    path = dead(tmp_path)
    orphans = Orphans(tmp_path, "living")
    (folder,) = orphans
    with forked(orphans.disown):
        os.close(folder._lock)  # all that the end of a killed process does to its locks
        assert is_free(path)


@pytest.mark.parametrize("after", range(8))
def test_what_a_kill_leaves_of_a_removal_is_removed_by_the_next_agent(tmp_path, after):
    """Of a removal that was killed after so many of its steps."""
    with small_segments() as patch:
        life = Life(tmp_path)
        for _ in range(30):
            life.do(("end", 1))
        life.die()
        assert len(life.files()) > 2
        folder = SpoolFolder.adopt(life.folder)
        assert folder is not None
        steps = 0

        def killed(step: Callable[..., None]) -> Callable[..., None]:
            def maybe(*arguments: object, **options: object) -> None:
                nonlocal steps
                if steps >= after:
                    raise KeyboardInterrupt
                step(*arguments, **options)
                steps += 1

            return maybe

        for name in ("unlink", "rmdir"):
            patch.setattr(os, name, killed(getattr(os, name)))
        try:
            folder.remove()
        except KeyboardInterrupt:
            os.close(folder._lock)
    for left in Orphans(tmp_path, "living"):
        left.remove()
    assert list(tmp_path.iterdir()) == []
