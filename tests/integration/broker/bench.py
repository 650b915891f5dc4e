"""A worker's half of a commit, put together by hand; tests change what they like."""

from dataclasses import dataclass

import pytest

from rl4sys_stream.broker.commit import Commit, CommitResult, commit, new_commit_id
from rl4sys_stream.broker.connection import Broker, Subscription
from rl4sys_stream.broker.head import Counts, Head, ManifestEntry, read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.lease import Lease
from rl4sys_stream.broker.stage import stage
from rl4sys_stream.broker.stream import TrajectoryStream
from rl4sys_stream.errors import (
    CommitRefusedError,
)


def dump(broker: Broker, keys: ClientKeys) -> dict[str, tuple[bytes, bool]]:
    """Every key of the client, byte for byte, pending lists included; and whether it expires."""
    return {
        key: (broker.call("DUMP", key), broker.call("PTTL", key) >= 0)
        for key in broker.scan(keys.pattern)
    }


@dataclass
class Bench:
    """A client whose lease is held, with entries that were delivered to its worker."""

    broker: Broker
    keys: ClientKeys
    lease: Lease
    stream: TrajectoryStream

    @classmethod
    def of(cls, broker: Broker, client: str) -> "Bench":
        """A fresh one."""
        keys = ClientKeys(client)
        lease = Lease(broker, keys, ttl_s=30)
        assert lease.acquire()
        stream = TrajectoryStream(broker, keys)
        stream.ensure_group()
        return cls(broker, keys, lease, stream)

    def append(self, count: int, **fields: bytes) -> list[str]:
        """Entries in the stream; their ids."""
        pairs = [part for pair in fields.items() for part in pair] or ["x", "y"]
        return [
            self.broker.call("XADD", self.keys.traj, "*", "n", number, *pairs).decode()
            for number in range(count)
        ]

    def deliver(self, count: int, **fields: bytes) -> list[str]:
        """Entries that are pending; their ids."""
        ids = self.append(count, **fields)
        got: list[str] = []
        while len(got) < count:
            got += [e.entry_id for e in self.stream.read_new(count=count, block_ms=100)]
        assert got == ids
        return ids

    def stage(self, version: int) -> tuple[str, str]:
        """A staged model and checkpoint."""
        token = self.lease.token
        staged = (self.keys.model(version, token), self.keys.checkpoint(version, token))
        for key in staged:
            stage(self.broker, key, {"full": b"w" * 100}, ttl_s=100)
        return staged

    def work(self, version: int = 1, ids: tuple[str, ...] | list[str] = ()) -> Commit:
        """A commit of `version`, staged, that settles `ids` as trained."""
        token = self.lease.token
        staged = self.stage(version)
        old = read_head(self.broker, self.keys)
        manifest = (*(old.manifest if old else ()), ManifestEntry(version, token, 0, 100))
        commit_id = new_commit_id()
        head = Head(
            version,
            token,
            "line",
            *staged,
            manifest=manifest,
            counts=Counts(trained=len(ids)),
            commit=commit_id,
        )
        return Commit(
            commit_id=commit_id,
            token=token,
            expect_version=old.version if old else 0,
            expect_token=old.token if old else "",
            expect_commit=old.commit if old else "",
            head=head,
            staged=staged,
            settled=tuple(ids),
            deleted=tuple(ids),
            watermarks={"a": b'{"watermark":%d,"trained":%d}' % (len(ids), len(ids))},
            metrics=b'{"version":%d}' % version,
            notice=b'{"version":%d}' % version,
        )

    def commit(self, work: Commit) -> CommitResult:
        """Carry it out."""
        return commit(self.broker, self.keys, work)

    def refused(self, work: Commit, reason: str) -> None:
        """It is refused, and nothing at all has changed."""
        before = dump(self.broker, self.keys)
        subscription = Subscription(self.broker.address, self.keys.updates, timeout_s=5, name="t")
        with pytest.raises(CommitRefusedError) as caught:
            self.commit(work)
        assert caught.value.reason == reason
        assert dump(self.broker, self.keys) == before
        assert subscription.get(0.05) is None
        subscription.close()
