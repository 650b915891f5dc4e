"""The commit: settle entries and publish a version in one atomic, fenced step."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.control import Control, control_fields
from rl4sys_stream.broker.control_log import LOG_ENTRIES, ControlRecord
from rl4sys_stream.broker.head import Head, head_fields
from rl4sys_stream.broker.key_types import wrong_type
from rl4sys_stream.broker.keys import GROUP, ClientKeys
from rl4sys_stream.broker.scripts import Argument, run_script
from rl4sys_stream.broker.stream import entry_order
from rl4sys_stream.errors import BrokerError, CommitRefusedError, FencedError

__all__ = [
    "ANY_CONTROL",
    "Commit",
    "CommitResult",
    "Refusal",
    "commit",
    "new_commit_id",
    "sort_ids",
]

_REASONS = ("FENCED", "STALE", "CONTROL", "NOSTAGE", "NOTPENDING", "BADARGS")
_WRONG_TYPE = "refused: BADTYPE "
ANY_CONTROL = "*"
"""Instead of a revision: the commit prunes nothing, so that it does not matter what is named."""
PRUNED_GRACE_S = 60
"""How long a pruned version can still be read: longer than any agent's chain of reads."""
QUARANTINE_ENTRIES = 1000
"""Entries that the quarantine keeps; older ones are trimmed, their count stays."""


def new_commit_id() -> str:
    """A name for one commit, the same over all of its repetitions."""
    return secrets.token_hex(8)


def sort_ids(ids: Sequence[str]) -> list[str]:
    """Entry ids in stream order (numbers, not text)."""
    return sorted(ids, key=entry_order)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An entry that goes to the quarantine, and why."""

    entry_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything one commit does.

    Attributes:
        commit_id: From `new_commit_id`; repeat the same object when the reply was lost.
        token: The worker's fencing token.
        expect_version: Version of the head it started from, 0 if there was none.
        expect_token: Token of that head, "".
        expect_commit: Commit that wrote that head, "". A version alone does not say which entries
            are settled: a broker that lost a commit without a version has the same one.
        expect_server: Identity of the server at which the worker began, from `read_identity`, ""
            where it is not told. Another one may have lost what the worker was told.
        head: The new head, None where there is no version yet and none is published.
        staged: Keys staged beforehand (model, checkpoint); empty if no version is published.
        settled: Entry ids to acknowledge: trained, dropped, quarantined, duplicates.
        refusals: The quarantined ones among them.
        deleted: Entry ids that need not stay in the stream (all of `settled` but a replay
            buffer's, and what fell out of it).
        watermarks: agent_id -> new JSON value in the `seq` hash.
        pruned: Keys of versions that left the manifest; they stay for a while, since agents may be
            in the middle of reading them.
        useless: Keys of checkpoints that nobody may go back to any more; they go at once. Where
            versions follow each other quickly, a while of them fills the broker.
        metrics: JSON for the metrics stream, b"".
        notice: JSON for the subscribers, b"".
        expect_control: Revision of the control that `pruned` follows from, or `ANY_CONTROL`.
        control: The control after it, None to leave it alone.
        record: For the log of the control, None for none.
    """

    commit_id: str
    token: str
    expect_version: int
    expect_token: str
    head: Head | None
    expect_commit: str = ""
    expect_server: str = ""
    staged: Sequence[str] = ()
    settled: Sequence[str] = ()
    refusals: Sequence[Refusal] = ()
    deleted: Sequence[str] = ()
    watermarks: Mapping[str, bytes] = field(default_factory=dict)
    pruned: Sequence[str] = ()
    useless: Sequence[str] = ()
    metrics: bytes = b""
    notice: bytes = b""
    expect_control: str = ANY_CONTROL
    control: Control | None = None
    record: ControlRecord | None = None


@dataclass(frozen=True, slots=True)
class CommitResult:
    """The broker's answer.

    Attributes:
        repeated: It had been carried out before; the first reply was lost.
        pending: Entries delivered to the consumer group and not settled yet.
    """

    repeated: bool
    pending: int


def commit(broker: Broker, keys: ClientKeys, work: Commit) -> CommitResult:
    """Carry `work` out, wholly or not at all.

    Raises:
        FencedError: A newer worker owns the client.
        CommitRefusedError: STALE, NOSTAGE or NOTPENDING: start again from the head. CONTROL: read
            the control again, and prune accordingly.
        KeyTypeError: Something else stands in the place of a key; starting again does not help.
        BrokerUnavailableError: The reply was lost; call again with the same `work`.
    """
    script_keys = [keys.fence, keys.head, keys.traj, keys.seq, keys.quarantine, keys.metrics]
    script_keys += [keys.control, keys.control_log, *work.staged, *work.pruned]
    script_keys += work.useless
    try:
        repeated, pending = run_script(broker, "commit", script_keys, _arguments(keys, work))
    except BrokerError as error:
        text = str(error)
        if _WRONG_TYPE in text:
            raise wrong_type(text.partition(_WRONG_TYPE)[2]) from error
        for reason in _REASONS:
            if f"refused: {reason} " in text:
                message = f"{keys.client}: {text.partition('refused: ')[2]}"
                if reason == "FENCED":
                    raise FencedError(message) from error
                raise CommitRefusedError(message, reason=reason) from error
        raise
    return CommitResult(bool(repeated), int(pending))


def _arguments(keys: ClientKeys, work: Commit) -> list[Argument]:
    arguments: list[Argument] = [
        work.token,
        GROUP,
        work.commit_id,
        work.expect_version,
        work.expect_token,
        work.expect_commit,
        work.expect_server,
        len(work.staged),
        PRUNED_GRACE_S,
        keys.updates,
        work.notice,
        work.metrics,
        QUARANTINE_ENTRIES,
        work.expect_control,
        msgspec.json.encode(work.record) if work.record else b"",
        LOG_ENTRIES,
        len(work.useless),
    ]
    fields = head_fields(work.head) if work.head else {}
    arguments.append(len(fields))
    for name, value in fields.items():
        arguments += [name, value]
    arguments.append(len(work.watermarks))
    for agent_id, mark in work.watermarks.items():
        arguments += [agent_id, mark]
    arguments.append(len(work.refusals))
    for refusal in work.refusals:
        arguments += [refusal.entry_id, refusal.reason]
    for ids in (work.settled, work.deleted):
        ordered = sort_ids(ids)
        arguments.append(len(ordered))
        arguments += ordered
    asked = control_fields(work.control) if work.control else {}
    arguments.append(len(asked))
    for name, field_value in asked.items():
        arguments += [name, field_value]
    return arguments
