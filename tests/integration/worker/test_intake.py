"""Reading ahead: everything delivered is in hand once, in stream order, within bounds."""

from dataclasses import replace

import pytest

from rl4sys_stream.broker.commit import Commit, commit, new_commit_id
from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.head import Counts, Head
from rl4sys_stream.broker.keys import GROUP, ClientKeys
from rl4sys_stream.broker.lease import Lease
from rl4sys_stream.broker.stream import TrajectoryStream
from rl4sys_stream.errors import BrokerError
from rl4sys_stream.testing import RedisServer, eventually
from rl4sys_stream.wire.format import TrajectoryCodec
from rl4sys_stream.worker.intake import READ_BYTES, Candidate, Intake
from rl4sys_stream.worker.settlement import Books
from tests.unit.wire.strategies import assert_same_trajectory
from tests.unit.worker.entries import SPEC, entry_fields, trajectory

pytestmark = pytest.mark.integration

HEAD = Head(1, "1:x", "line", "m", "c", ())


@pytest.fixture
def keys(client_name):
    """Of a fresh client."""
    return ClientKeys(client_name)


@pytest.fixture
def stream(broker, keys):
    """With its group."""
    found = TrajectoryStream(broker, keys)
    found.ensure_group()
    return found


@pytest.fixture
def make(stream):
    """Makes intakes, and stops them at the end."""
    made = []

    def intake(*, max_entries=100, max_bytes=1 << 20, read_count=8, spec=SPEC):
        made.append(
            Intake(
                stream,
                spec,
                max_entries=max_entries,
                max_bytes=max_bytes,
                read_count=read_count,
                block_ms=20,
            )
        )
        return made[-1]

    yield intake
    for one in made:
        one.stop()


def append(
    broker: Broker,
    keys: ClientKeys,
    *numbers: int,
    agent_id: str = "a",
    floor: int = 1,
    codec: TrajectoryCodec = "columns",
) -> list[str]:
    """Trajectories with these numbers; their ids."""
    found = []
    for seq in numbers:
        fields = entry_fields(agent_id, seq, floor=min(floor, seq), codec=codec)
        flat = [part for pair in fields for part in pair]
        found.append(broker.call("XADD", keys.traj, "*", *flat).decode())
    return found


def take(intake: Intake, count: int) -> list[Candidate]:
    """That many candidates."""
    found = [one for _ in range(count) if (one := intake.take(5.0)) is not None]
    assert len(found) == count
    return found


def numbers(candidates: list[Candidate]) -> list[int]:
    """Of their addresses."""
    return [one.address.seq for one in candidates if one.address is not None]


def test_pending_entries_come_before_new_ones_and_all_in_order(broker, keys, stream, make):
    """What the last worker left is older."""
    append(broker, keys, *range(1, 21))
    stream.read_new(count=20, block_ms=10)
    append(broker, keys, *range(21, 31))
    intake = make()
    intake.start()
    assert numbers(take(intake, 30)) == list(range(1, 31))
    assert intake.take(0.05) is None
    assert intake.in_hand == 30


def test_entries_of_a_stranger_in_the_group_are_ours(broker, keys, stream, make):
    """Somebody looked at the stream with XREADGROUP; the entries are still to be trained."""
    append(broker, keys, 1, 2, 3)
    broker.call("XREADGROUP", "GROUP", GROUP, "curious", "COUNT", 2, "STREAMS", keys.traj, ">")
    intake = make()
    intake.start()
    assert sorted(numbers(take(intake, 3))) == [1, 2, 3]


def test_a_learner_that_needs_more_than_there_is_room_for_gets_it(broker, keys, make):
    """Nothing is committed meanwhile, so nothing but taking makes room."""
    append(broker, keys, *range(1, 61))
    intake = make(max_bytes=1000, read_count=4)
    intake.start()
    assert numbers(take(intake, 60)) == list(range(1, 61))


def test_reading_pauses_while_too_much_is_waiting(broker, keys, stream, make):
    """And goes on when some of it is taken."""
    append(broker, keys, *range(1, 51))
    intake = make(max_entries=10, read_count=5)
    intake.start()
    eventually(lambda: intake.waiting >= 10)
    assert stream.pending_count() == intake.waiting <= 15
    take(intake, 50)


@pytest.mark.parametrize("pending", [False, True], ids=["new", "left by the last worker"])
def test_one_read_asks_for_no_more_than_its_bytes_hold(broker, keys, stream, make, pending):
    """Whatever the number of entries that it may ask for; of them the largest count."""
    append(broker, keys, *range(1, 41))
    if pending:
        stream.read_new(count=40, block_ms=10)
    limits = replace(SPEC.limits, max_entry_bytes=READ_BYTES // 4)
    intake = make(read_count=256, max_bytes=1, spec=replace(SPEC, limits=limits))
    intake.start()
    eventually(lambda: intake.waiting > 0)
    with pytest.raises(AssertionError):
        eventually(lambda: intake.waiting > 4, timeout_s=0.2)
    assert numbers(take(intake, 40)) == list(range(1, 41))


def test_entries_above_their_limit_come_one_at_a_time(broker, keys, make):
    """Nobody knows their size before they are here, but one tells of the next."""
    limits = replace(SPEC.limits, max_entry_bytes=2000)
    for _ in range(12):
        broker.call("XADD", keys.traj, "*", "x", b"x" * 2001)
    intake = make(read_count=8, max_bytes=1, spec=replace(SPEC, limits=limits))
    intake.start()
    eventually(lambda: intake.waiting == 8)
    take(intake, 8)
    eventually(lambda: intake.waiting == 1)
    with pytest.raises(AssertionError):
        eventually(lambda: intake.waiting > 1, timeout_s=0.2)
    append(broker, keys, *range(1, 21))
    take(intake, 4)
    assert numbers(take(intake, 20)) == list(range(1, 21))
    assert not intake._oversized


def test_what_was_forgotten_is_fetched_as_far_as_there_is_room(broker, keys, stream, make):
    """A zombie may have read as much as a worker holds; a gap is closed all the same."""
    append(broker, keys, *range(1, 31))
    (last,) = append(broker, keys, 31)
    stream.read_new(count=31, block_ms=10)
    intake = make(max_entries=10, read_count=5)
    intake.look_for_forgotten(31)
    assert intake.waiting == 10
    assert numbers(intake.rescan(last)) == list(range(1, 31))


def test_what_was_forgotten_on_an_idle_stream_is_found(broker, keys, make):
    """A paused worker read it under our name after we had begun; no later entry tells of it."""
    intake = make()
    intake.start()
    append(broker, keys, 1)
    take(intake, 1)
    with broker.redis.pipeline(transaction=True) as together:
        together.xadd(keys.traj, dict(entry_fields("a", 2)))
        together.xreadgroup(GROUP, GROUP, {keys.traj: ">"})
        together.execute()
    assert numbers(take(intake, 1)) == [2]


def lose(stream: TrajectoryStream, intake: Intake, broker: Broker, keys: ClientKeys) -> None:
    """Number 1 goes to a zombie; 2 and 3, whose floor has passed 1, come to us."""
    append(broker, keys, 1)
    assert len(TrajectoryStream(broker, keys).read_new(count=1, block_ms=10)) == 1
    append(broker, keys, 2)
    append(broker, keys, 3, floor=3)
    intake._queue(stream.read_new(count=8, block_ms=10))
    assert intake.waiting == 2


def accounts(intake: Intake) -> Books:
    """Over nothing."""
    return Books({}, Counts(), lineage_epoch=0, max_policy_lag=8, rescan=intake.rescan)


def test_a_forgotten_entry_goes_before_what_was_appended_after_it(broker, keys, stream, make):
    """Else the floor of a later entry would have it skipped while it waits in line."""
    intake = make()
    lose(stream, intake, broker, keys)
    intake.look_for_forgotten(stream.pending_count())
    books = accounts(intake)
    found = [item for _ in range(3) for item in books.accept(intake.take(1.0), HEAD)]
    assert [item.address.seq for item in found] == [1, 2, 3]
    assert books.settle_trained().counts.skipped == 0


def test_a_gap_is_recovered_although_its_entry_is_in_line_already(broker, keys, stream, make):
    """It was found between the moment the later entry was taken and the moment it was judged."""
    intake = make()
    lose(stream, intake, broker, keys)
    books = accounts(intake)
    found = books.accept(intake.take(1.0), HEAD)
    late = intake.take(1.0)
    intake.look_for_forgotten(stream.pending_count())
    found += books.accept(late, HEAD)
    assert sorted(item.address.seq for item in found) == [1, 2, 3]
    assert intake.waiting == 0
    assert books.settle_trained().counts.skipped == 0


def test_a_rescan_takes_what_is_older_and_leaves_the_rest_in_line(broker, keys, stream, make):
    """In order, and nothing twice."""
    intake = make()
    ids = append(broker, keys, *range(1, 7))
    entries = stream.read_new(count=6, block_ms=10)
    intake._queue(entries[1:3])
    assert numbers(intake.rescan(ids[3])) == [1, 2, 3]
    assert numbers(take(intake, 3)) == [4, 5, 6]
    assert intake.rescan("99999999999999-0") == []


def test_a_busy_stream_does_not_hide_what_was_forgotten(broker, keys, stream, make):
    """The commit says how much is pending; no idle moment is needed."""
    lease = Lease(broker, keys, ttl_s=30)
    assert lease.acquire()
    intake = make()
    append(broker, keys, 1, agent_id="silent")
    TrajectoryStream(broker, keys).read_new(count=1, block_ms=10)
    (busy,) = append(broker, keys, 1, agent_id="busy")
    intake._queue(stream.read_new(count=1, block_ms=10))
    take(intake, 1)
    work = Commit(new_commit_id(), lease.token, 0, "", None, settled=(busy,), deleted=(busy,))
    result = intake.settle(lambda: commit(broker, keys, work), work.settled)
    assert (result.pending, intake.in_hand) == (1, 0)
    intake.look_for_forgotten(result.pending)
    (found,) = take(intake, 1)
    assert found.address is not None
    assert found.address.agent_id == "silent"
    intake.look_for_forgotten(1)
    assert intake.take(0.01) is None


def test_settled_entries_leave_the_hand_and_make_room(broker, keys, make):
    """Only when the commit went through."""
    ids = append(broker, keys, 1, 2)
    intake = make()
    intake.start()
    take(intake, 2)

    def refused():
        raise ValueError

    with pytest.raises(ValueError):
        intake.settle(refused, ids)
    assert intake.in_hand == 2
    assert intake.settle(lambda: "done", [*ids, "7-7"]) == "done"
    assert intake.in_hand == 0


def test_entries_of_both_codecs_may_mix(broker, keys, make):
    """Agents are upgraded one after another, and a worker is not told which is which."""
    append(broker, keys, 1)
    append(broker, keys, 2, codec="protobuf")
    append(broker, keys, 3)
    intake = make()
    intake.start()
    found = take(intake, 3)
    assert [one.reason for one in found] == ["", "", ""]
    for one in found:
        assert one.address is not None
        assert one.trajectory is not None
        assert_same_trajectory(one.trajectory, trajectory(seed=one.address.seq))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([b"x", b"y"], "has no field 'agent_id'"),
        ([b"agent_id", b"a", b"seq", b"1", b"floor", b"1"], "has no field 'h'"),
        ([b"agent_id", b"a", b"seq", b"1", b"floor", b"1", b"h", b"\xff"], "does not parse"),
        ([b"agent_id", b"a", b"seq", b"1", b"floor", b"1", b"pb", b"\x0a\xff"], "the message"),
        ([b"agent_id", b"a", b"seq", b"1", b"floor", b"2"], "floor 2 is above seq 1"),
        ([b"agent_id", b"a", b"seq", b"1", b"floor", b"1", b"h", b"x" * 99_999], "a header of"),
        ([b"agent_id", b"a", b"seq", b"1", b"floor", b"1", b"h", b"x" * (9 << 20)], "are allowed"),
    ],
)
def test_entries_that_do_not_decode_come_with_their_reason(broker, keys, make, fields, reason):
    """And reading goes on."""
    broker.call("XADD", keys.traj, "*", *fields)
    append(broker, keys, 1)
    intake = make()
    intake.start()
    bad, good = take(intake, 2)
    assert reason in bad.reason
    assert bad.trajectory is None
    assert good.reason == ""


def test_what_waits_is_given_out_before_the_brokers_death_is_told(client_name):
    """Then the error comes, again and again."""
    with RedisServer(aof=None) as server:
        broker = Broker(BrokerAddress.from_url(server.url), timeout_s=2, name="t")
        keys = ClientKeys(client_name)
        append(broker, keys, 1, 2)
        stream = TrajectoryStream(broker, keys)
        intake = Intake(stream, SPEC, max_entries=9, max_bytes=99999, read_count=9, block_ms=20)
        intake.start()
        eventually(lambda: intake.waiting == 2)
        server.kill()
        assert len(take(intake, 2)) == 2
        for _ in range(2):
            with pytest.raises(BrokerError):
                intake.take(5.0)
        intake.stop()
        broker.close()
