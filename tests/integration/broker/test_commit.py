"""The commit script on a real server: wholly or not at all, once, by the owner alone."""

from contextlib import suppress
from dataclasses import replace

import pytest

from rl4sys_stream.broker.commit import CommitResult, Refusal
from rl4sys_stream.broker.connection import Broker, BrokerAddress, Subscription
from rl4sys_stream.broker.control import Control, Selection, read_control
from rl4sys_stream.broker.control_log import ControlRecord, read_control_log
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.keys import GROUP, ClientKeys
from rl4sys_stream.broker.lease import Lease
from rl4sys_stream.broker.scripts import run_script
from rl4sys_stream.broker.steering import Cause, revised, stop
from rl4sys_stream.errors import (
    BrokerError,
    BrokerFullError,
    FencedError,
    KeyTypeError,
)
from rl4sys_stream.testing import RedisServer
from tests.integration.broker.bench import Bench, dump

pytestmark = pytest.mark.integration


def test_a_commit_settles_and_publishes_in_one_step(bench):
    """Entries gone, head moved, staged keys kept, ledger and metrics written, readers told."""
    ids = bench.deliver(5)
    left = bench.deliver(2)
    work = bench.work(1, ids)
    subscription = Subscription(bench.broker.address, bench.keys.updates, timeout_s=5, name="t")
    assert bench.commit(work) == CommitResult(repeated=False, pending=2)
    assert read_head(bench.broker, bench.keys) == work.head
    assert [entry.entry_id for entry in bench.stream.addresses()] == left
    assert all(bench.broker.call("TTL", key) == -1 for key in work.staged)
    assert bench.broker.hash_all(bench.keys.seq) == {b"a": b'{"watermark":5,"trained":5}'}
    assert bench.broker.call("XLEN", bench.keys.metrics) == 1
    assert subscription.get(5) == work.notice
    subscription.close()


def test_a_commit_under_an_old_fence_writes_nothing(bench):
    """A zombie: the lease was taken over while it computed."""
    ids = bench.deliver(3)
    work = bench.work(1, ids)
    assert Lease(bench.broker, bench.keys, ttl_s=30).acquire(force=True)
    bench.refused(work, "FENCED")
    with pytest.raises(FencedError):
        bench.commit(work)


def test_a_commit_writes_nothing_when_the_fence_is_gone(bench):
    """Deleted with the client, or lost by the broker: nobody owns the client then."""
    work = bench.work(1, bench.deliver(3))
    bench.broker.unlink(bench.keys.fence, bench.keys.lease)
    bench.refused(work, "FENCED")


@pytest.mark.parametrize(
    "wrong", [{"expect_version": 1}, {"expect_token": "9:other"}, {"expect_commit": "another"}]
)
def test_a_commit_from_another_head_writes_nothing(bench, wrong):
    """Version and token both count: after a rollback a number is issued again."""
    bench.commit(bench.work(1))
    bench.commit(bench.work(2))
    bench.refused(replace(bench.work(3, bench.deliver(3)), **wrong), "STALE")


def test_a_commit_on_a_head_that_vanished_writes_nothing(bench):
    """The broker went back to before the first version."""
    bench.commit(bench.work(1))
    work = bench.work(2, bench.deliver(3))
    bench.broker.unlink(bench.keys.head)
    bench.refused(work, "STALE")


@pytest.mark.parametrize("which", [0, 1])
def test_a_commit_whose_stage_expired_writes_nothing(bench, which):
    """Model and checkpoint are both needed."""
    work = bench.work(1, bench.deliver(3))
    bench.broker.unlink(work.staged[which])
    bench.refused(work, "NOSTAGE")


def test_a_commit_of_an_entry_that_is_not_pending_writes_nothing(bench):
    """Settled before, never delivered, never existed, or claimed twice in one commit."""
    done = bench.deliver(1)
    bench.commit(bench.work(1, done))
    ids = bench.deliver(3)
    unread = bench.append(1)
    for wrong in (done[0], unread[0], "99999999999999-7", ids[1]):
        bench.refused(bench.work(2, [*ids, wrong]), "NOTPENDING")
    assert bench.commit(bench.work(2, ids)).pending == 0


def test_a_commit_without_its_group_writes_nothing(bench):
    """The group was destroyed, and with it the list that decides."""
    work = bench.work(1, bench.deliver(3))
    bench.broker.call("XGROUP", "DESTROY", bench.keys.traj, GROUP)
    bench.refused(work, "NOTPENDING")


def test_a_commit_whose_stream_is_gone_writes_nothing(bench):
    """A deleted stream takes its pending list with it."""
    work = bench.work(1, bench.deliver(3))
    bench.broker.unlink(bench.keys.traj)
    bench.refused(work, "NOTPENDING")


def test_arguments_that_do_not_add_up_write_nothing(bench):
    """A caller of another version must not be half understood."""
    keys = bench.keys
    names = [keys.fence, keys.head, keys.traj, keys.seq, keys.quarantine, keys.metrics]
    names += [keys.control, keys.control_log]
    before = dump(bench.broker, keys)
    fixed = [bench.lease.token, GROUP, "id", 0, "", "", "", 0, 60, keys.updates, "", "", 10]
    fixed += ["*", "", 10]
    whole = [0, 0, 0, 0, 0, 0]
    for tail in ([*whole, "more"], [*whole[1:], 1], [5, "a", "b", *whole[1:]], ["x"], []):
        with pytest.raises(BrokerError):
            run_script(bench.broker, "commit", names, [*fixed, *tail])
    assert dump(bench.broker, keys) == before


@pytest.mark.parametrize("name", ["head", "seq", "quarantine", "metrics", "control", "control_log"])
def test_a_key_of_another_type_is_found_before_anything_is_written(bench, name):
    """A script has no rollback: an error after the acknowledgement would lose the entries."""
    ids = bench.deliver(2)
    work = bench.work(1, ids)
    work = replace(work, refusals=(Refusal(ids[0], "bad"),))
    bench.broker.call("SET", getattr(bench.keys, name), "oops")
    before = dump(bench.broker, bench.keys)
    with pytest.raises(KeyTypeError, match=f"{getattr(bench.keys, name)} is a string, not a "):
        bench.commit(work)
    assert dump(bench.broker, bench.keys) == before


@pytest.mark.parametrize("name", ["quarantine", "metrics"])
@pytest.mark.parametrize("ordinal", ["0", "18446744073709551614", "18446744073709551615"])
def test_a_stream_that_takes_no_more_entries_is_found_before_anything_is_written(
    bench, name, ordinal
):
    """What was acknowledged would be in no account: its number was not settled yet."""
    ids = bench.deliver(3)
    refusals = tuple(Refusal(entry_id, "bad") for entry_id in ids)
    work = replace(bench.work(1, ids), refusals=refusals)
    key = getattr(bench.keys, name)
    bench.broker.call("XADD", key, f"18446744073709551615-{ordinal}", "a", "note")
    before = dump(bench.broker, bench.keys)
    with pytest.raises(KeyTypeError, match=f"{key} .* takes no more entries"):
        bench.commit(work)
    assert dump(bench.broker, bench.keys) == before
    bench.broker.unlink(key)
    assert bench.commit(work).pending == 0


def test_a_repeated_commit_is_recognised_and_changes_nothing(bench):
    """Its first reply was lost."""
    ids = bench.deliver(3)
    work = bench.work(1, ids)
    waiting = bench.deliver(1)
    assert bench.commit(work) == CommitResult(repeated=False, pending=1)
    before = dump(bench.broker, bench.keys)
    for _ in range(3):
        assert bench.commit(work) == CommitResult(repeated=True, pending=1)
    assert dump(bench.broker, bench.keys) == before
    bench.commit(bench.work(2, waiting))
    bench.refused(work, "STALE")


def test_a_commit_may_settle_without_a_version(bench):
    """Nothing but refusals, before and after the first version."""
    none = replace(bench.work(1, bench.deliver(2)), head=None, staged=(), notice=b"", metrics=b"")
    assert bench.commit(none) == CommitResult(repeated=False, pending=0)
    assert bench.commit(none).repeated
    assert read_head(bench.broker, bench.keys) is None
    bench.commit(bench.work(1))
    head = read_head(bench.broker, bench.keys)
    again = replace(bench.work(2, bench.deliver(2)), head=head, staged=(), notice=b"", metrics=b"")
    assert bench.commit(again) == CommitResult(repeated=False, pending=0)
    assert head is not None
    assert read_head(bench.broker, bench.keys) == replace(head, commit=again.commit_id)
    assert bench.commit(bench.work(2)).pending == 0


def test_the_quarantine_keeps_payload_and_reason(bench):
    """Byte for byte, beside the id; the entry leaves the stream."""
    payload = bytes(range(256))
    ids = bench.deliver(2, obs=payload)
    work = replace(bench.work(1, ids), refusals=(Refusal(ids[1], "not a trajectory: “x”"),))
    bench.commit(work)
    found = bench.broker.redis.xrange(bench.keys.quarantine)
    assert [fields for _, fields in found] == [
        {
            b"entry_id": ids[1].encode(),
            b"reason": "not a trajectory: “x”".encode(),
            b"n": b"1",
            b"obs": payload,
        }
    ]
    assert bench.stream.backlog().entries == 0


@pytest.mark.parametrize("n_fields", [100, 3_000, 30_000])
def test_an_entry_of_thousands_of_fields_is_quarantined_like_any_other(bench, n_fields):
    """Lua cannot pass that many values on; the commit must go through all the same."""
    pairs = [part for number in range(n_fields) for part in (b"f%d" % number, b"v")]
    bench.broker.call("XADD", bench.keys.traj, "*", *pairs)
    (entry,) = bench.stream.read_new(count=1, block_ms=1000)
    others = bench.deliver(2)
    work = bench.work(1, [entry.entry_id, *others])
    bench.commit(replace(work, refusals=(Refusal(entry.entry_id, "too much"),)))
    assert read_head(bench.broker, bench.keys) == work.head
    assert bench.stream.backlog().entries == 0
    ((_, fields),) = bench.broker.redis.xrange(bench.keys.quarantine)
    assert fields[b"reason"] == b"too much"
    assert fields[b"f0"] == b"v"
    kept = [name for name in fields if name[:1] == b"f" and name[1:].isdigit()]
    assert int(fields.get(b"fields_left_out", 0)) + len(kept) == n_fields


def test_an_entry_that_a_third_party_deleted_can_be_settled(bench):
    """It is pending still, with nothing in it."""
    ids = bench.deliver(2)
    bench.broker.call("XDEL", bench.keys.traj, ids[0])
    work = replace(bench.work(1, ids), refusals=(Refusal(ids[0], "gone"),))
    assert bench.commit(work).pending == 0
    ((_, fields),) = bench.broker.redis.xrange(bench.keys.quarantine)
    assert fields == {b"entry_id": ids[0].encode(), b"reason": b"gone"}


def test_the_quarantine_is_bounded(bench):
    """The newest thousand stay."""
    ids = bench.deliver(1200)
    work = replace(bench.work(1, ids), refusals=tuple(Refusal(i, "bad") for i in ids))
    bench.commit(work)
    found = bench.broker.redis.xrange(bench.keys.quarantine)
    assert len(found) == 1000
    assert found[-1][1][b"entry_id"] == ids[-1].encode()


def test_pruned_versions_expire_and_no_others(bench):
    """Readers in the middle of a chain still find them for a while; a checkpoint has no reader."""
    first = bench.work(1)
    bench.commit(first)
    model, checkpoint = first.staged
    second = replace(bench.work(2), pruned=(model,), useless=(checkpoint,))
    bench.commit(second)
    assert 0 < bench.broker.call("TTL", model) <= 60
    assert not bench.broker.call("EXISTS", checkpoint)
    for key in second.staged:
        assert bench.broker.call("TTL", key) == -1


def test_what_is_deleted_need_not_be_what_is_settled(bench):
    """A replay buffer's entries stay after their settlement, and fall out later."""
    ids = bench.deliver(4)
    bench.commit(replace(bench.work(1, ids), deleted=()))
    assert bench.stream.backlog().entries == 4
    assert bench.stream.pending_count() == 0
    bench.commit(replace(bench.work(2), deleted=tuple(ids[:3])))
    assert [entry.entry_id for entry in bench.stream.addresses()] == ids[3:]


def test_four_thousand_entries_fit_into_one_commit(bench):
    """With as many agents, and others pending in between."""
    with bench.broker.redis.pipeline(transaction=False) as pipe:
        for number in range(8000):
            pipe.xadd(bench.keys.traj, {"n": number})
        pipe.execute()
    entries = bench.stream.read_new(count=8000, block_ms=1000)
    ids = [entry.entry_id for entry in entries]
    marks = {f"agent-{n}": b'{"watermark":1,"trained":1}' for n in range(4000)}
    shuffled = [*ids[::-2]]
    work = replace(bench.work(1, shuffled), watermarks=marks)
    assert bench.commit(work) == CommitResult(repeated=False, pending=4000)
    assert len(bench.broker.hash_all(bench.keys.seq)) == 4000
    assert [entry.entry_id for entry in bench.stream.addresses()] == ids[::2]


@pytest.fixture(scope="module")
def full_server():
    """A server with little memory."""
    with RedisServer(aof=None, maxmemory="12mb") as server:
        yield server


def fill(broker: Broker, key: str) -> None:
    """Append until the broker refuses."""
    chunk = b"x" * 4096
    with suppress(BrokerFullError):
        for _ in range(10_000):
            broker.call("XADD", key, "*", "obs", chunk)
    with pytest.raises(BrokerFullError):
        broker.call("SET", "other", b"x" * 4096)


def test_a_broker_full_of_trajectories_takes_leases_stages_and_commits(full_server):
    """Else nothing would ever be acknowledged, and the broker would stay full for good."""
    broker = Broker(BrokerAddress.from_url(full_server.url), name="t")
    keys = ClientKeys("full")
    fill(broker, keys.traj)
    bench = Bench.of(broker, "full")
    assert bench.lease.renew()
    # The first version settles nothing, so it frees nothing either.
    assert bench.commit(bench.work(1)).pending == 0
    for version in range(2, 6):
        ids = [e.entry_id for e in bench.stream.read_new(count=100, block_ms=1000)]
        work = replace(bench.work(version, ids), refusals=(Refusal(ids[0], "bad"),))
        assert bench.commit(work).pending == 0
        head = read_head(broker, keys)
        assert head is not None
        assert head.version == version
    broker.call("SET", "other", b"x")
    broker.close()


def test_the_quarantine_keeps_the_beginning_of_a_huge_field(bench):
    """A thousand entries as large as they may be would fill the broker, and nobody empties it."""
    bench.broker.call("XADD", bench.keys.traj, "*", "agent_id", "a", "obs", b"x" * 1_000_000)
    (entry,) = bench.stream.read_new(count=10, block_ms=1000)
    work = replace(bench.work(1, [entry.entry_id]), refusals=(Refusal(entry.entry_id, "big"),))
    bench.commit(work)
    ((_, fields),) = bench.broker.redis.xrange(bench.keys.quarantine)
    assert fields[b"agent_id"] == b"a"
    assert fields[b"obs"] == b"x" * 16384
    assert fields[b"original_bytes"] == b"1000012"


def test_a_row_of_the_quarantine_has_64_kib_and_says_first_whose_it_is(bench):
    """A thousand fields of 16 KiB each would be 16 MiB, and there are a thousand rows."""
    pairs = [part for number in range(200) for part in (b"f%d" % number, b"x" * 5000)]
    pairs += [b"n" * 70_000, b"", b"agent_id", b"a", b"seq", b"7", b"floor", b"3"]
    bench.broker.call("XADD", bench.keys.traj, "*", *pairs)
    (entry,) = bench.stream.read_new(count=10, block_ms=1000)
    refusal = Refusal(entry.entry_id, "r" * 100_000)
    bench.commit(replace(bench.work(1, [entry.entry_id]), refusals=(refusal,)))
    ((_, fields),) = bench.broker.redis.xrange(bench.keys.quarantine)
    assert [fields[name] for name in (b"agent_id", b"seq", b"floor")] == [b"a", b"7", b"3"]
    assert fields.pop(b"reason") == b"r" * 16384
    assert int(fields[b"original_bytes"]) == entry.size_bytes
    kept = [name for name in fields if name[:1] == b"f" and name[1:].isdigit()]
    assert [fields[name] for name in kept[:13]] == [b"x" * 5000] * 13
    assert int(fields[b"fields_left_out"]) == 201 - len(kept)
    assert 65_000 < sum(len(name) + len(value) for name, value in fields.items()) < 65_536 + 200


def steered(bench: Bench) -> Control:
    """The control after somebody has changed it."""
    stop(bench.broker, bench.keys, Selection(), Cause("alice@ops", 1, "test"))
    return read_control(bench.broker, bench.keys)


@pytest.mark.parametrize("expected", ["", "another"])
def test_a_commit_that_prunes_by_an_older_control_writes_nothing(bench, expected):
    """What was named since must not be pruned; the worker looks again, and needs no new update."""
    first = bench.work(1)
    bench.commit(replace(first, expect_control=""))
    control = steered(bench)
    work = replace(bench.work(2, bench.deliver(2)), pruned=first.staged, expect_control=expected)
    bench.refused(work, "CONTROL")
    again = replace(work, expect_control=control.revision)
    assert not bench.commit(again).repeated
    assert bench.commit(replace(work, expect_control="whatever")).repeated, "known by its id"


def test_a_commit_changes_the_control_and_writes_that_down(bench):
    """In the same instant as the version that answers it."""
    control = steered(bench)
    after = revised(replace(control, rules=()))
    record = ControlRecord(what="rolled back", time_ms=7, version=1)
    work = replace(bench.work(1), expect_control=control.revision, control=after, record=record)
    bench.commit(work)
    assert read_control(bench.broker, bench.keys) == after
    assert read_control_log(bench.broker, bench.keys)[-1] == record
    bench.commit(work)
    assert len(read_control_log(bench.broker, bench.keys)) == 2, "a repetition writes nothing"


def test_a_checkpoint_that_has_gone_may_be_named_again(bench):
    """One beside a version that stays is named by each commit."""
    first = bench.work(1)
    bench.commit(first)
    checkpoint = first.staged[1]
    for version in (2, 3):
        bench.commit(replace(bench.work(version), useless=(checkpoint,)))
    assert not bench.broker.call("EXISTS", checkpoint)


def test_a_change_of_the_control_is_refused_where_its_ground_has_gone(bench):
    """Each time before anything is written: a raced revision, a fence, a version, a checkpoint."""
    keys = bench.keys
    bench.commit(bench.work(1))
    control = steered(bench)
    names = [keys.control, keys.control_log, keys.head, keys.fence]
    before = dump(bench.broker, keys)
    token, revision = bench.lease.token, control.revision
    for word, more, arguments in (
        ("RACED", [], ["older", "{}", 10, keys.updates, "n", "", 0, 0]),
        ("FENCED", [], [revision, "{}", 10, keys.updates, "n", "9:z", 0, 0]),
        ("UNKNOWN", [], [revision, "{}", 10, keys.updates, "n", "", 0, 1, 7, token]),
        ("UNKNOWN", [], [revision, "{}", 10, keys.updates, "n", "", 0, 1, 1, "9:z"]),
        (
            "NOCHECKPOINT",
            [keys.checkpoint(9, token)],
            [revision, "{}", 10, keys.updates, "n", "", 0, 0],
        ),
    ):
        with pytest.raises(BrokerError, match=f"refused: {word} "):
            run_script(bench.broker, "control", [*names, *more], arguments)
    assert dump(bench.broker, keys) == before
    bench.broker.call("SET", keys.control_log, "oops")
    with pytest.raises(KeyTypeError, match="control-log is a string"):
        steered(bench)
