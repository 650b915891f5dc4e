"""Who owns a client: of many workers one, and nobody who learned from another server."""

import threading
from dataclasses import replace

import pytest

from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.lease import Lease, token_epoch
from rl4sys_stream.broker.server_facts import read_identity
from rl4sys_stream.errors import (
    BrokerUnavailableError,
)
from rl4sys_stream.testing import RedisServer, eventually
from tests.integration.broker.bench import Bench

pytestmark = pytest.mark.integration


def test_of_many_workers_one_gets_the_lease(broker_address, client_name):
    """And its token is the fence."""
    keys = ClientKeys(client_name)
    start = threading.Barrier(8)
    got: list[str] = []

    def race() -> None:
        broker = Broker(broker_address, name="t")
        lease = Lease(broker, keys, ttl_s=30)
        start.wait()
        if lease.acquire():
            got.append(lease.token)
        broker.close()

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    broker = Broker(broker_address, name="t")
    assert len(got) == 1
    assert broker.call("GET", keys.fence).decode() == got[0]
    broker.close()


def test_of_two_owners_only_the_last_commits(bench):
    """Whoever holds the fence; the one before is refused even for a repeated or empty commit."""
    rival = Bench(bench.broker, bench.keys, Lease(bench.broker, bench.keys, ttl_s=30), bench.stream)
    ids = bench.deliver(2)
    mine = bench.work(1, ids)
    assert rival.lease.acquire(force=True)
    theirs = rival.work(1, ids)
    rival.commit(theirs)
    bench.refused(mine, "FENCED")
    bench.refused(replace(mine, head=None, staged=(), settled=(), deleted=()), "FENCED")
    assert read_head(bench.broker, bench.keys) == theirs.head


@pytest.mark.parametrize("gone", [("epoch",), ("epoch", "fence"), ("epoch", "fence", "head")])
def test_an_epoch_is_never_handed_out_again(bench, gone):
    """What is published below the lineage's epoch would be dropped for ever, as an older one's."""
    broker, keys = bench.broker, bench.keys
    ahead = 1 + token_epoch(bench.lease.token)
    broker.call("SET", keys.epoch, ahead)
    newer = Bench(broker, keys, Lease(broker, keys, ttl_s=30), bench.stream)
    assert newer.lease.acquire(force=True)
    newer.commit(newer.work(1, newer.deliver(1)))
    broker.hash_set(keys.spec, {"lineage_epoch": str(token_epoch(newer.lease.token))})
    broker.unlink(*(getattr(keys, name) for name in gone))
    last = Lease(broker, keys, ttl_s=30)
    assert last.acquire(force=True)
    assert token_epoch(last.token) == token_epoch(newer.lease.token) + 1
    assert last.acquire(force=True)
    assert token_epoch(last.token) == token_epoch(newer.lease.token) + 2


@pytest.mark.parametrize("found", [b"garbage", b"", b"9223372036854775807"])
def test_an_epoch_that_is_no_number_is_taken_from_what_there_is(bench, found):
    """The broker cannot count on from it, and waiting for that would be for ever."""
    before = token_epoch(bench.lease.token)
    bench.broker.call("SET", bench.keys.epoch, found)
    last = Lease(bench.broker, bench.keys, ttl_s=30)
    for further in (1, 2):
        assert last.acquire(force=True)
        assert token_epoch(last.token) == before + further


def test_a_lease_that_never_expires_is_nobodys(bench):
    """A restored one, or one that an operator has persisted, would be waited for for ever."""
    heir = Lease(bench.broker, bench.keys, ttl_s=30)
    assert not heir.acquire()
    bench.broker.call("PERSIST", bench.keys.lease)
    assert heir.acquire()
    assert not bench.lease.renew()


def test_what_a_worker_learned_from_another_server_process_is_not_committed():
    """That one may have lost writes since; only a commit that is there already is confirmed."""
    with RedisServer() as server:
        broker = Broker(BrokerAddress.from_url(server.url), name="t")
        bench = Bench.of(broker, "restarted")
        done = replace(bench.work(1, bench.deliver(2)), expect_server=read_identity(broker))
        bench.commit(done)
        next_one = replace(bench.work(2, bench.deliver(2)), expect_server=read_identity(broker))
        server.restart()
        eventually(lambda: read_identity(broker) != "", ignoring=(BrokerUnavailableError,))
        bench.refused(next_one, "STALE")
        assert bench.commit(done).repeated
        bench.commit(replace(next_one, expect_server=read_identity(broker)))
        broker.close()


def test_what_a_worker_learned_before_a_change_of_roles_is_not_committed():
    """The process is the same, its history of writes is another's."""
    with RedisServer(aof=None) as server:
        broker = Broker(BrokerAddress.from_url(server.url), name="t")
        bench = Bench.of(broker, "turned")
        known = read_identity(broker)
        work = replace(bench.work(1, bench.deliver(2)), expect_server=known)
        broker.call("REPLICAOF", "127.0.0.1", "1")  # nobody there: its data stays
        broker.call("REPLICAOF", "NO", "ONE")
        assert read_identity(broker).split()[0] == known.split()[0]
        bench.refused(work, "STALE")
        bench.commit(replace(work, expect_server=read_identity(broker)))
        broker.close()
