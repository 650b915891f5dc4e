"""What becomes of dead agents' folders when nobody can be told of it."""

import os
import random
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from rl4sys_stream.agent.adoption import Adopter
from rl4sys_stream.agent.parcels import OutboxLimits
from rl4sys_stream.agent.session import Session
from rl4sys_stream.agent.spool.records import MAGIC
from rl4sys_stream.broker.connection import AppendConnection, BrokerAddress
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import AgentHeartbeat
from rl4sys_stream.config import AgentSettings
from tests.unit.agent.rig import ManualClock
from tests.unit.agent.spool.disk import Disk
from tests.unit.agent.spool.operations import Life
from tests.unit.agent.spool.test_locks import forked, is_free

RETAIN_S = AgentSettings().retain_s
NOWHERE = BrokerAddress.from_url("redis://127.0.0.1:1", {})


def make(
    base: Path,
    *,
    taken: Callable[[int], None] | None = None,
    clock: ManualClock | None = None,
) -> Adopter:
    """Of an agent whose broker is away."""
    return Adopter(
        base,
        agent_id="living",
        keys=ClientKeys("client"),
        settings=AgentSettings(),
        limits=OutboxLimits(100, 1 << 20, "drop_oldest", None, spool_bytes=1 << 20),
        session=Session(),
        connect=lambda: AppendConnection(NOWHERE, timeout_s=1.0, name="test-adoption"),
        taken=taken or (lambda _: None),
        clock=clock or ManualClock(),
        rng=random.Random(1),
    )


def leave(base: Path, ends: int) -> Path:
    """The folder of an agent that died after so many trajectories."""
    life = Life(base)
    life.do(("end", ends))
    life.die()
    return life.folder


def threads() -> list[str]:
    """Names of those that run."""
    return [thread.name for thread in threading.enumerate()]


def test_an_orphan_is_somebodys_until_the_agent_stops(tmp_path):
    """Then it is the next agent's."""
    folder = leave(tmp_path, 3)
    adopter = make(tmp_path)
    adopter.turn()
    assert not is_free(folder)
    adopter.stop()
    assert is_free(folder)
    assert "rl4sys-agent-send" not in threads()


@pytest.mark.parametrize("call", ["open", "pread"])
def test_an_agent_that_stops_while_it_looks_for_orphans_holds_none(tmp_path, call):
    """The refresher's thread may be reading a slow disk when the application has closed."""
    folder = leave(tmp_path, 3)
    adopter = make(tmp_path)
    real = getattr(os, call)

    def stopped_meanwhile(*arguments: object, **options: object) -> object:
        adopter.stop()
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"os.{call}", stopped_meanwhile)
        adopter.turn()
    adopter.turn()
    assert adopter.heartbeat() is None
    assert is_free(folder)
    assert "rl4sys-agent-send" not in threads()


def test_a_child_that_is_forked_off_during_a_look_keeps_no_orphan(tmp_path):
    """Its parent is killed; the next agent does not wait for the child's end."""
    folder = leave(tmp_path, 3)
    adopter = make(tmp_path)
    adopter.tidy()  # so that the next reading is that of the look
    read = os.pread
    with ExitStack() as children, pytest.MonkeyPatch.context() as patch:

        def fork(*arguments: int) -> bytes:
            patch.undo()
            children.enter_context(forked(adopter.orphan))
            return read(*arguments)

        patch.setattr("os.pread", fork)
        adopter.turn()
        assert adopter._adopted is not None
        os.close(adopter._adopted.journal.folder._lock)  # as the kernel does for a killed process
        adopter._adopted.journal.folder._lock = -1
        assert is_free(folder)
    adopter.stop()


def all_dropped(base: Path) -> Path:
    """The folder of an agent that has nothing to offer, and books that nobody knows."""
    life = Life(base)
    life.do(("end", 2))
    life.do(("drop", 2))
    life.die()
    return life.folder


def tell(adopter: Adopter) -> AgentHeartbeat:
    """Take its report to the broker; what that says."""
    said = adopter.heartbeat()
    assert said is not None
    adopter.reported([said])
    return said


def test_a_folder_goes_when_the_broker_knows_how_its_books_ended(tmp_path):
    """An agent that stops before that leaves it to the next one: else the last report is stale."""
    folder = all_dropped(tmp_path)
    first = make(tmp_path)
    first.turn()
    assert not tell(first).closed
    first.turn()
    said = first.heartbeat()
    assert said is not None
    assert said.closed
    first.stop()
    assert is_free(folder)
    second = make(tmp_path)
    second.turn()
    second.turn()
    assert (tell(second).closed, tell(second).dropped) == (True, 2)
    second.stop()
    assert not folder.exists()


def test_a_goodbye_is_said_again_until_no_lost_write_can_take_it_back(tmp_path):
    """A broker that goes back in time has the older report, and only the folder knows better."""
    folder, clock = all_dropped(tmp_path), ManualClock()
    adopter = make(tmp_path, clock=clock)
    adopter.turn()
    adopter.turn()
    for _ in range(3):
        assert tell(adopter).closed
        adopter.turn()
        assert folder.exists()
        clock.now_s += RETAIN_S / 2 - 0.01
    clock.now_s += 0.1
    assert tell(adopter).closed
    adopter.turn()
    assert not folder.exists()
    assert adopter.count == 1
    adopter.stop()


def test_a_report_from_before_the_end_does_not_free_a_folder(tmp_path):
    """The adopter may have finished while the report was on its way."""
    folder = all_dropped(tmp_path)
    adopter = make(tmp_path)
    adopter.turn()
    before = adopter.heartbeat()
    assert before is not None
    adopter.turn()
    adopter.reported([before])
    adopter.turn()
    assert folder.exists()
    assert adopter.count == 0
    adopter.stop()


@pytest.mark.parametrize(
    ("written", "left"), [(b"", []), (MAGIC, []), (MAGIC + b"\1\2", ["agent.damaged"])]
)
def test_a_folder_whose_agent_was_killed_while_it_made_it_is_removed(tmp_path, written, left):
    """Its room was taken and nothing written: set aside for people, it would lie there for ever."""
    folder = tmp_path / "agent"
    folder.mkdir()
    (folder / "lock").touch()
    (folder / "00000001.seg").write_bytes(written.ljust(1 << 16, b"\0"))
    adopter = make(tmp_path)
    adopter.turn()
    adopter.stop()
    assert [path.name for path in tmp_path.iterdir()] == left


def test_a_folder_that_cannot_be_deleted_is_adopted_once(tmp_path):
    """Else each turn would begin with the same one again, and others never get theirs."""
    folder = all_dropped(tmp_path)
    clock = ManualClock()
    adopter = make(tmp_path, clock=clock)
    with pytest.MonkeyPatch.context() as patch:
        Disk(patch).removals = False
        adopter.turn()
        adopter.turn()
        tell(adopter)
        clock.now_s += RETAIN_S
        tell(adopter)
        for _ in range(3):
            adopter.turn()
            assert adopter.heartbeat() is None
            assert adopter.count == 1
    assert folder.exists()
    adopter._look_at = 0.0  # a while later
    adopter.turn()
    assert not folder.exists()


def test_what_dead_agents_take_is_told_while_it_lasts(tmp_path):
    """Of those that wait, and of the one in hand."""
    told: list[int] = []
    leave(tmp_path, 3)
    adopter = make(tmp_path, taken=told.append)
    adopter.tidy()
    adopter.turn()
    adopter.tidy()
    assert told[0] == told[-1] > 300
    adopter.stop()
    shutil.rmtree(tmp_path / "agent")
    adopter.tidy()
    assert told[-1] == 0
