"""What the broker itself wrote down: every append and every commit that survived.

The append-only file is the broker's own record of each change, in order, and what a broker forgot
is not in it. So it is read as a flight recorder: nothing that happened between two looks is missed,
and no process under test had a hand in it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from benchmarks.chaos.identity import OBS_DIM, Identity, identity_of
from rl4sys_stream.broker.keys import GROUP, ClientKeys
from rl4sys_stream.broker.ledger import LedgerRecord

__all__ = [
    "ClientHistory",
    "CommitRecord",
    "EntryRecord",
    "VersionRecord",
    "id_order",
    "read_histories",
]

Command = list[bytes]
Number = tuple[str, int]
"""An agent's id and one of its numbers."""


@dataclass(frozen=True, slots=True)
class EntryRecord:
    """One append to the stream; `number` is None where the address does not decode."""

    number: Number | None
    identity: Identity | None
    steps: int = 0


class _Provenance(msgspec.Struct, frozen=True):
    agents: dict[str, list[int]] = {}


@dataclass(slots=True)
class VersionRecord:
    """What a model's hash says."""

    base: tuple[int, str] | None = None
    numbers: list[Number] = field(default_factory=list)


@dataclass(slots=True)
class CommitRecord:
    """One transaction that wrote the head."""

    acknowledged: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    head: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class ClientHistory:
    """Everything that survived of one client.

    Attributes:
        entries: Stream id -> what was appended, in order.
        present: Ids that are in the stream at the end.
        versions: (version, token) -> what its hash says, committed or not.
        commits: In order.
        ledgers: agent_id -> its last committed record.
        destroyed: Ids that somebody took out of the stream without a commit.
        delivered: The last id that the group's readers were given, as a pair of numbers.
        in_hand: Ids that were given out and not acknowledged since: the next reader gets them.
    """

    entries: dict[str, EntryRecord] = field(default_factory=dict)
    present: set[str] = field(default_factory=set)
    versions: dict[tuple[int, str], VersionRecord] = field(default_factory=dict)
    commits: list[CommitRecord] = field(default_factory=list)
    ledgers: dict[str, LedgerRecord] = field(default_factory=dict)
    destroyed: set[str] = field(default_factory=set)
    delivered: tuple[int, int] = (0, 0)
    in_hand: set[str] = field(default_factory=set)

    def is_readable(self, entry_id: str) -> bool:
        """Whether a worker will ever be given this entry (again), if it is in the stream."""
        return entry_id in self.in_hand or id_order(entry_id) > self.delivered


def read_histories(files: Iterable[Path], clients: Iterable[str]) -> dict[str, ClientHistory]:
    """The history of each client, from the files of a broker that was stopped in order."""
    readers = {client: _Reader(ClientKeys(client)) for client in clients}
    for path in files:
        with path.open("rb") as file:
            for transaction in _transactions(_commands(file)):
                for reader in readers.values():
                    reader.read(transaction)
    return {client: reader.history for client, reader in readers.items()}


def _commands(file: BinaryIO) -> Iterator[Command]:
    while line := file.readline():
        if line.startswith(b"#"):
            continue  # a time stamp
        if not line.startswith(b"*"):
            raise ValueError(f"no command at {file.tell()}: {line[:40]!r}")
        command = []
        for _ in range(int(line[1:])):
            length = int(file.readline()[1:])
            command.append(file.read(length + 2)[:-2])
        yield command


def _transactions(commands: Iterable[Command]) -> Iterator[list[Command]]:
    inside: list[Command] | None = None
    for command in commands:
        name = command[0].upper()
        if name == b"MULTI":
            inside = []
        elif name == b"EXEC":
            yield inside or []
            inside = None
        elif inside is not None:
            inside.append(command)
        else:
            yield [command]


class _Reader:
    def __init__(self, keys: ClientKeys) -> None:
        self.history = ClientHistory()
        self._traj = keys.traj.encode()
        self._head = keys.head.encode()
        self._seq = keys.seq.encode()
        self._quarantine = keys.quarantine.encode()
        self._model = keys.model(0, "").encode().removesuffix(b"0:")

    def read(self, transaction: list[Command]) -> None:
        """One atomic change."""
        history = self.history
        writes_head = any(
            len(command) > 1 and command[1] == self._head and command[0].upper() == b"HSET"
            for command in transaction
        )
        commit = CommitRecord() if writes_head else None
        for command in transaction:
            if len(command) > 2 and command[0].upper() == b"XGROUP":
                self._apply(b"XGROUP", command[2], [command[1], *command[3:]], commit)
            elif len(command) > 1:
                self._apply(command[0].upper(), command[1], command[2:], commit)
        if commit is not None:
            history.commits.append(commit)

    def _apply(self, name: bytes, key: bytes, rest: Command, commit: CommitRecord | None) -> None:
        if key == self._traj:
            self._apply_to_stream(name, rest, commit)
        elif name == b"HSET" and key.startswith(self._model):
            self._read_model(key, rest)
        elif name in {b"DEL", b"UNLINK"} and key in {self._head, self._seq}:
            raise ValueError(f"{key.decode()} was deleted; this run resets no client")
        elif commit is None:
            return
        elif name == b"XADD" and key == self._quarantine:
            fields = _pairs(rest[rest.index(b"entry_id") :])
            commit.quarantined.append(fields[b"entry_id"].decode())
        elif name == b"HSET" and key == self._head:
            commit.head |= {k.decode(): v for k, v in _pairs(rest).items()}
        elif name == b"HSET" and key == self._seq:
            for agent_id, data in _pairs(rest).items():
                record = msgspec.json.decode(data, type=LedgerRecord)
                self.history.ledgers[agent_id.decode()] = record

    def _apply_to_stream(self, name: bytes, rest: Command, commit: CommitRecord | None) -> None:
        history = self.history
        if name == b"XADD":
            entry_id = rest[0].decode()
            history.entries[entry_id] = _entry(_pairs(rest[1:]))
            history.present.add(entry_id)
        elif name in {b"XACK", b"XCLAIM", b"XGROUP"}:
            self._apply_to_group(name, rest, commit)
        elif name == b"XDEL":
            ids = {entry_id.decode() for entry_id in rest}
            if commit is None:
                history.destroyed |= ids
            history.present -= ids
        elif name == b"XTRIM":
            self._trim(rest)
        elif name in {b"DEL", b"UNLINK"}:
            raise ValueError("the stream was deleted; this run does not do that")

    def _apply_to_group(self, name: bytes, rest: Command, commit: CommitRecord | None) -> None:
        """A broker writes each delivery down as XCLAIM … LASTID, or as XGROUP SETID."""
        history = self.history
        if GROUP.encode() != (rest[1] if name == b"XGROUP" else rest[0]):
            return
        if name == b"XGROUP":
            if rest[0].upper() in {b"CREATE", b"SETID"}:
                history.delivered = (0, 0) if rest[2] == b"$" else id_order(rest[2].decode())
            if rest[0].upper() in {b"CREATE", b"DESTROY"}:
                history.in_hand = set()
            if rest[0].upper() == b"DESTROY":
                history.delivered = (0, 0)
        elif name == b"XACK":
            ids = [entry_id.decode() for entry_id in rest[1:]]
            history.in_hand -= set(ids)
            if commit is not None:
                commit.acknowledged += ids
        else:
            history.in_hand.add(rest[3].decode())
            if b"LASTID" in rest:
                last = rest[rest.index(b"LASTID") + 1].decode()
                history.delivered = max(history.delivered, id_order(last))

    def _trim(self, rest: Command) -> None:
        history = self.history
        what, limit = rest[0].upper(), rest[-1].decode()
        if what == b"MINID":
            gone = {one for one in history.present if id_order(one) < id_order(limit)}
        else:
            kept = sorted(history.present, key=id_order)[-int(limit) :] if int(limit) else []
            gone = history.present - set(kept)
        history.destroyed |= gone
        history.present -= gone

    def _read_model(self, key: bytes, rest: Command) -> None:
        name, _, owner = key.removeprefix(self._model).decode().partition(":")
        record = self.history.versions.setdefault((int(name), owner), VersionRecord())
        fields = _pairs(rest)
        # A model is staged in several steps, a few fields each.
        base, token = record.base or (0, "")
        if b"base_version" in fields:
            base = int(fields[b"base_version"])
        if b"base_token" in fields:
            token = fields[b"base_token"].decode()
        record.base = (base, token) if base or token else None
        if b"provenance" in fields:
            agents = msgspec.json.decode(fields[b"provenance"], type=_Provenance).agents
            record.numbers = [(agent, seq) for agent, seqs in agents.items() for seq in seqs]


def _entry(fields: dict[bytes, bytes]) -> EntryRecord:
    try:
        number = fields[b"agent_id"].decode(), int(fields[b"seq"])
        obs = fields[b"obs"]
        return EntryRecord(number, identity_of(obs), len(obs) // (4 * OBS_DIM))
    except (KeyError, ValueError):
        return EntryRecord(None, None)


def _pairs(flat: Command) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def id_order(entry_id: str) -> tuple[int, int]:
    """What entries are sorted by; milliseconds come first."""
    milliseconds, _, ordinal = entry_id.partition("-")
    return int(milliseconds), int(ordinal or 0)
