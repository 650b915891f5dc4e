"""Steering a client: hold its agents at a version, stop them, promote one, ask for a rollback.

Each of these is one change of the control, made by one script together with its entry in the log
and a notice to the agents.
"""

import getpass
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import msgspec

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.control import (
    MAX_RULES,
    Control,
    Promotion,
    RollbackRequest,
    Rule,
    Selection,
    control_fields,
    read_control,
)
from rl4sys_stream.broker.control_log import LOG_ENTRIES, ControlRecord
from rl4sys_stream.broker.head import Head, ManifestEntry, read_head, require_version
from rl4sys_stream.broker.key_types import wrong_type
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.scripts import Argument, run_script
from rl4sys_stream.errors import BrokerError, FencedError, UnknownVersionError, UsageError

__all__ = [
    "Cause",
    "Change",
    "caller",
    "change_control",
    "demote",
    "pin",
    "promote",
    "request_rollback",
    "resumable_versions",
    "resume",
    "revised",
    "stop",
    "unpin",
    "withdraw_rollback",
]

ATTEMPTS: Final = 100
"""Changes race with each other and with commits, never for long."""
_REFUSED: Final = "refused: "


@dataclass(frozen=True, slots=True)
class Cause:
    """Who changes something, when and why.

    Attributes:
        by: `user@host`, or the worker.
        time_ms: Wall clock.
        reason: In their words, "".
    """

    by: str
    time_ms: int
    reason: str = ""


def caller() -> str:
    """Whose process this is, as `Cause.by` has it: `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a control.

    Attributes:
        control: As it is to be.
        record: For the log.
        versions: Those that must be retained for it.
        checkpoints: Keys of checkpoints that must be there for it.
    """

    control: Control
    record: ControlRecord
    versions: Sequence[ManifestEntry] = ()
    checkpoints: Sequence[str] = ()


def revised(control: Control) -> Control:
    """`control` under the name of a new change; its salt is drawn with the first one."""
    salt = control.salt or secrets.token_hex(8)
    return replace(control, revision=secrets.token_hex(8), salt=salt)


def change_control(
    broker: Broker,
    keys: ClientKeys,
    make: Callable[[Control, Head | None], Change | None],
    *,
    token: str = "",
) -> Change | None:
    """Make a change of what is there, whoever else makes one meanwhile.

    Args:
        broker: Where the client is.
        keys: Of the client.
        make: From the control and the head to the change, None for no change; may be asked again.
        token: Fencing token of the worker that makes it, "" for people.

    Returns:
        The change that was made, None if there was none to make.

    Raises:
        UnknownVersionError: If a version or a checkpoint that it needs has gone meanwhile.
        FencedError: If a newer worker owns the client.
        KeyTypeError: If something else stands in the place of a key.
        BrokerError: Safe to call again.
    """
    for _ in range(ATTEMPTS):
        control = read_control(broker, keys)
        change = make(control, read_head(broker, keys))
        if change is None:
            return None
        if len(change.control.rules) > MAX_RULES:
            raise UsageError(f"{keys.client} has {MAX_RULES} rules; remove some first")
        change = replace(change, control=revised(change.control))
        if _write(broker, keys, change, expect=control.revision, token=token):
            return change
    raise BrokerError(f"the control of {keys.client} is changed all the time; try again")


def _write(broker: Broker, keys: ClientKeys, change: Change, *, expect: str, token: str) -> bool:
    fields = control_fields(change.control)
    notice = msgspec.json.encode({"control": change.control.revision})
    arguments: list[Argument] = [
        expect,
        msgspec.json.encode(change.record),
        LOG_ENTRIES,
        keys.updates,
        notice,
        token,
        len(fields),
    ]
    for name, value in fields.items():
        arguments += [name, value]
    arguments.append(len(change.versions))
    for entry in change.versions:
        arguments += [entry.version, entry.token]
    script_keys = [keys.control, keys.control_log, keys.head, keys.fence, *change.checkpoints]
    try:
        run_script(broker, "control", script_keys, arguments)
    except BrokerError as error:
        word, _, rest = str(error).partition(_REFUSED)[2].partition(" ")
        if word == "BADTYPE":
            raise wrong_type(rest) from error
        if word == "FENCED":
            raise FencedError(f"{keys.client}: {rest}") from error
        # The versions were there when the change was made: they are looked for again.
        if word in {"RACED", "UNKNOWN", "NOCHECKPOINT"}:
            return False
        raise
    return True


def pin(
    broker: Broker, keys: ClientKeys, version: int | None, agents: Selection, cause: Cause
) -> Rule:
    """Hold agents at a version, while training goes on; the newest pin goes first.

    Earlier pins of the same agents are removed.

    Args:
        broker: Where the client is.
        keys: Of the client.
        version: Retained version; None is the head, for agents that are to be ahead of a promotion.
        agents: Whom it concerns.
        cause: Who and why.

    Raises:
        UnknownVersionError: If there is no such version; names those that there are.
        BrokerError: Safe to call again.
    """
    made: list[Rule] = []

    def make(control: Control, head: Head | None) -> Change:
        entry = None if version is None else require_version(keys.client, head, version)
        rule = _rule("pin", agents, cause, entry)
        made[:] = [rule]
        stops = [one for one in control.rules if one.action == "fallback"]
        pins = [one for one in control.rules if one.action == "pin"]
        kept = [one for one in pins if not agents.covers(one.agents)]
        return Change(
            replace(control, rules=(*stops, rule, *kept)),
            _record("pin", cause, entry=entry, agents=agents, rules=(rule.rule_id,)),
            versions=(entry,) if entry else (),
        )

    change_control(broker, keys, make)
    return made[0]


def stop(broker: Broker, keys: ClientKeys, agents: Selection, cause: Cause) -> Rule:
    """Let agents act without any model, at once: the kill switch. It goes before all pins.

    Raises:
        BrokerError: Safe to call again.
    """
    rule = _rule("fallback", agents, cause, None)

    def make(control: Control, _: Head | None) -> Change:
        kept = [
            one
            for one in control.rules
            if one.action != "fallback" or not agents.covers(one.agents)
        ]
        return Change(
            replace(control, rules=(rule, *kept)),
            _record("stop", cause, agents=agents, rules=(rule.rule_id,)),
        )

    change_control(broker, keys, make)
    return rule


def unpin(broker: Broker, keys: ClientKeys, rule_id: str, cause: Cause) -> tuple[Rule, ...]:
    """Release the agents of a pin, or of all of them for "": they follow the head again.

    Returns:
        The rules that were removed; empty if there were none.

    Raises:
        UsageError: If there is no such pin; names those that there are.
        BrokerError: Safe to call again.
    """
    return _remove(broker, keys, "pin", rule_id, cause)


def resume(broker: Broker, keys: ClientKeys, rule_id: str, cause: Cause) -> tuple[Rule, ...]:
    """Take back a stop, or all of them for ""; as `unpin`."""
    return _remove(broker, keys, "fallback", rule_id, cause)


def promote(broker: Broker, keys: ClientKeys, version: int, cause: Cause, token: str = "") -> None:
    """Let all agents without a rule act by a version, until another is promoted.

    Args:
        broker: Where the client is.
        keys: Of the client.
        version: Retained version.
        cause: Who and why.
        token: Fencing token of the worker whose gate does it, "" for people.

    Raises:
        UnknownVersionError: If there is no such version; names those that there are.
        FencedError: If a newer worker owns the client.
        BrokerError: Safe to call again.
    """

    def make(control: Control, head: Head | None) -> Change:
        entry = require_version(keys.client, head, version)
        promotion = Promotion(
            version=entry.version,
            token=entry.token,
            reason=cause.reason,
            by=cause.by,
            time_ms=cause.time_ms,
        )
        record = _record("promote", cause, entry=entry)
        return Change(replace(control, promoted=promotion), record, versions=(entry,))

    change_control(broker, keys, make, token=token)


def demote(broker: Broker, keys: ClientKeys, cause: Cause) -> Promotion | None:
    """Take the promotion back: agents follow the head. Returns it, None if there was none."""
    found: list[Promotion] = []

    def make(control: Control, _: Head | None) -> Change | None:
        if control.promoted is None:
            return None
        found[:] = [control.promoted]
        record = _record("demote", cause)
        record = msgspec.structs.replace(
            record, version=control.promoted.version, token=control.promoted.token
        )
        return Change(replace(control, promoted=None), record)

    return found[0] if change_control(broker, keys, make) else None


def request_rollback(
    broker: Broker, keys: ClientKeys, version: int, cause: Cause
) -> RollbackRequest:
    """Ask the worker to continue from an older version; in place of an earlier request.

    Raises:
        UnknownVersionError: If there is no such version, or its checkpoint was pruned; names those
            that can be rolled back to.
        BrokerError: Safe to call again.
    """
    request_id = secrets.token_hex(4)
    made: list[RollbackRequest] = []

    def make(control: Control, head: Head | None) -> Change:
        entry = require_version(keys.client, head, version)
        if entry not in (resumable := resumable_versions(broker, keys, head)):
            there = ", ".join(str(one.version) for one in resumable) or "none"
            raise UnknownVersionError(
                f"version {version} of {keys.client} has no checkpoint: only the newest versions "
                f"and those that are pinned keep theirs, and an imported one has none; can be "
                f"rolled back to: {there}"
            )
        request = RollbackRequest(
            request_id=request_id,
            version=entry.version,
            token=entry.token,
            reason=cause.reason,
            by=cause.by,
            time_ms=cause.time_ms,
        )
        made[:] = [request]
        return Change(
            replace(control, request=request),
            _record("rollback requested", cause, entry=entry, request=request_id),
            versions=(entry,),
            checkpoints=(keys.checkpoint(entry.version, entry.token),),
        )

    change_control(broker, keys, make)
    return made[0]


def withdraw_rollback(
    broker: Broker,
    keys: ClientKeys,
    request_id: str,
    cause: Cause,
    *,
    token: str = "",
    what: Literal["rollback withdrawn", "rollback refused"] = "rollback withdrawn",
) -> bool:
    """Forget a request that nobody has carried out yet; False if there is no such one.

    Args:
        broker: Where the client is.
        keys: Of the client.
        request_id: Of the request, "" for whichever there is.
        cause: Who and why.
        token: Fencing token of the worker that refuses it, "" for people.
        what: For the log.
    """

    def make(control: Control, _: Head | None) -> Change | None:
        request = control.request
        if request is None or request_id not in ("", request.request_id):
            return None
        record = _record(what, cause, request=request.request_id)
        record = msgspec.structs.replace(record, version=request.version, token=request.token)
        return Change(replace(control, request=None), record)

    return change_control(broker, keys, make, token=token) is not None


def resumable_versions(
    broker: Broker, keys: ClientKeys, head: Head | None
) -> tuple[ManifestEntry, ...]:
    """Retained versions whose checkpoint is there for good, oldest first."""
    manifest = head.manifest if head else ()
    return tuple(
        entry
        for entry in manifest
        if broker.call("PTTL", keys.checkpoint(entry.version, entry.token)) == -1
    )


def _remove(
    broker: Broker,
    keys: ClientKeys,
    action: Literal["pin", "fallback"],
    rule_id: str,
    cause: Cause,
) -> tuple[Rule, ...]:
    removed: list[Rule] = []

    def make(control: Control, _: Head | None) -> Change | None:
        there = [rule for rule in control.rules if rule.action == action]
        removed[:] = [rule for rule in there if rule_id in ("", rule.rule_id)]
        if rule_id and not removed:
            known = ", ".join(rule.rule_id for rule in there) or "none"
            kind = "pin" if action == "pin" else "stop"
            raise UsageError(f"{keys.client} has no {kind} {rule_id!r}; there are: {known}")
        if not removed:
            return None
        return Change(
            replace(control, rules=tuple(one for one in control.rules if one not in removed)),
            _record(
                "unpin" if action == "pin" else "resume",
                cause,
                rules=tuple(rule.rule_id for rule in removed),
            ),
        )

    change_control(broker, keys, make)
    return tuple(removed)


def _rule(
    action: Literal["pin", "fallback"],
    agents: Selection,
    cause: Cause,
    entry: ManifestEntry | None,
) -> Rule:
    return Rule(
        rule_id=secrets.token_hex(4),
        action=action,
        agents=agents,
        version=entry.version if entry else 0,
        token=entry.token if entry else "",
        reason=cause.reason,
        by=cause.by,
        time_ms=cause.time_ms,
    )


def _record(
    what: str,
    cause: Cause,
    *,
    entry: ManifestEntry | None = None,
    agents: Selection | None = None,
    rules: tuple[str, ...] = (),
    request: str = "",
) -> ControlRecord:
    return ControlRecord(
        what=what,
        time_ms=cause.time_ms,
        by=cause.by,
        reason=cause.reason,
        version=entry.version if entry else 0,
        token=entry.token if entry else "",
        agents=agents,
        rules=rules,
        request=request,
    )
