"""What people ask of a client's agents and of its worker: data beside the head.

One hash that outlives agents, workers and restarts. Agents read it whenever they look for a newer
model, and obey the first rule that selects them; a worker prunes nothing that it names. It is
changed by `steering`, and by a commit that carries out what it asks for.
"""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal, Self

import msgspec
import xxhash

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.errors import UsageError, WireFormatError
from rl4sys_stream.wire.json import decode_json

__all__ = [
    "FOLLOW",
    "Control",
    "Directive",
    "Promotion",
    "RollbackRequest",
    "Rule",
    "Selection",
    "control_fields",
    "parse_control",
    "read_control",
]

MAX_RULES: Final = 1000
_RANGE: Final = 1 << 64

Percent = Annotated[float, msgspec.Meta(gt=0, le=100)]


class Selection(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Some of a client's agents; without a field all of them.

    Attributes:
        pattern: Shell pattern that an agent's id matches (`host-7-*`), "" for none.
        percent: Share of the agents, above 0 and up to 100, None for none. Which ones follows from
            their ids alone; a larger share has all those of a smaller one.
    """

    pattern: str = ""
    percent: Percent | None = None

    def __post_init__(self) -> None:
        """Refuse a share that agents would not understand, or would take for all of them.

        Raises:
            UsageError: If `percent` is not above 0 and up to 100; NaN is not, either.
        """
        if self.percent is not None and not 0 < self.percent <= 100:  # noqa: PLR2004 - per cent
            raise UsageError(f"a share is above 0 and up to 100 per cent, not {self.percent:g}")

    def has(self, agent_id: str, salt: str) -> bool:
        """Whether an agent belongs to it.

        Args:
            agent_id: Of the agent.
            salt: Of the client's control.
        """
        if self.pattern and not fnmatch.fnmatchcase(agent_id, self.pattern):
            return False
        if self.percent is None:
            return True
        place = xxhash.xxh3_64_intdigest(f"{salt}\0{agent_id}".encode())
        return place * 100 < self.percent * _RANGE

    def covers(self, other: Self) -> bool:
        """Whether all agents of `other` are certain to belong to this."""
        by_pattern = self.pattern in ("", other.pattern)
        by_share = self.percent is None or (other.percent or 100.0) <= self.percent
        return by_pattern and by_share

    def __str__(self) -> str:
        """In words, for people."""
        pattern = f"agents {self.pattern}" if self.pattern else "agents"
        return pattern if self.percent is None else f"{self.percent:g} % of the {pattern}"


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"rule_id": "id"}):
    """What the agents of a selection act by.

    Attributes:
        rule_id: Its name.
        action: "pin": by one version; "fallback": by no model.
        agents: Whom it concerns.
        version: Of a pin; 0 is the head, whatever that is.
        token: Of that version, "".
        reason: Why, in the words of whoever made it.
        by: Who made it.
        time_ms: Wall clock of when.
    """

    rule_id: str
    action: Literal["pin", "fallback"]
    agents: Selection = Selection()
    version: int = 0
    token: str = ""
    reason: str = ""
    by: str = ""
    time_ms: int = 0


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """The version that agents act by unless a rule says otherwise.

    Attributes:
        version: Of the model.
        token: Of the model.
        reason: Why.
        by: Who promoted it: a person, or the worker's gate.
        time_ms: Wall clock of when.
    """

    version: int
    token: str
    reason: str = ""
    by: str = ""
    time_ms: int = 0


class RollbackRequest(msgspec.Struct, frozen=True, kw_only=True, rename={"request_id": "id"}):
    """The worker is to continue from an older version.

    Attributes:
        request_id: Its name.
        version: Whose weights and checkpoint.
        token: Of that version.
        reason: Why.
        by: Who asks.
        time_ms: Wall clock of when.
    """

    request_id: str
    version: int
    token: str
    reason: str = ""
    by: str = ""
    time_ms: int = 0


@dataclass(frozen=True, slots=True)
class Directive:
    """What one agent is to act by.

    Attributes:
        state: "": the head, as ever; "pinned" by a rule, to one version or to the head; "promoted":
            the promoted version; "stopped": no model.
        version: Of the model, 0 for the head.
        token: Of the model, "".
        rule_id: Rule that says so, "" if none does.
    """

    state: Literal["", "pinned", "promoted", "stopped"] = ""
    version: int = 0
    token: str = ""
    rule_id: str = ""


FOLLOW: Final = Directive()


@dataclass(frozen=True, slots=True)
class Control:
    """The whole of it.

    Attributes:
        revision: Name of the change that wrote it, "" before any.
        salt: Decides which agents belong to a share.
        rules: In order; the first that selects an agent holds.
        promoted: Version that agents act by without a rule, None: the head.
        request: What the worker is to do, None if nothing.
    """

    revision: str = ""
    salt: str = ""
    rules: tuple[Rule, ...] = ()
    promoted: Promotion | None = None
    request: RollbackRequest | None = None

    def directive(self, agent_id: str) -> Directive:
        """What the agent of that id is to act by."""
        for rule in self.rules:
            if rule.agents.has(agent_id, self.salt):
                state: Literal["pinned", "stopped"] = "pinned"
                if rule.action == "fallback":
                    state = "stopped"
                return Directive(state, rule.version, rule.token, rule.rule_id)
        if self.promoted is not None:
            return Directive("promoted", self.promoted.version, self.promoted.token)
        return FOLLOW

    @property
    def protected(self) -> frozenset[tuple[int, str]]:
        """(version, token) of all that it names: not to be pruned."""
        named = [(rule.version, rule.token) for rule in self.rules if rule.version]
        named += [(one.version, one.token) for one in (self.promoted, self.request) if one]
        return frozenset(named)

    def without_versions(self) -> Self:
        """What is left of it when no version that it names exists any more."""
        kept = tuple(rule for rule in self.rules if not rule.version)
        return replace(self, rules=kept, promoted=None, request=None)


def control_fields(control: Control) -> dict[str, bytes]:
    """`control` as the fields of its hash; empty ones say that there is none."""
    return {
        "revision": control.revision.encode(),
        "salt": control.salt.encode(),
        "rules": msgspec.json.encode(control.rules),
        "promoted": msgspec.json.encode(control.promoted) if control.promoted else b"",
        "request": msgspec.json.encode(control.request) if control.request else b"",
    }


def parse_control(fields: Mapping[bytes, bytes]) -> Control:
    """The control that `fields` hold; without any, that which asks for nothing.

    Raises:
        WireFormatError: If they do not decode.
    """
    promoted, request = fields.get(b"promoted", b""), fields.get(b"request", b"")
    rules = decode_json(fields.get(b"rules") or b"[]", tuple[Rule, ...], "the control's rules")
    if len(rules) > MAX_RULES:
        raise WireFormatError(f"the control has {len(rules)} rules; {MAX_RULES} are allowed")
    try:
        return Control(
            revision=fields.get(b"revision", b"").decode(),
            salt=fields.get(b"salt", b"").decode(),
            rules=rules,
            promoted=decode_json(promoted, Promotion, "the promotion") if promoted else None,
            request=decode_json(request, RollbackRequest, "the request") if request else None,
        )
    except UnicodeDecodeError as error:
        raise WireFormatError(f"the control does not decode: {error}") from error


def read_control(broker: Broker, keys: ClientKeys) -> Control:
    """The client's control; without any, that which asks for nothing.

    Raises:
        WireFormatError: If it does not decode.
        BrokerError: Safe to retry.
    """
    return parse_control(broker.hash_all(keys.control))
