"""Every error the package raises on purpose, and the exit code each one ends a command with.

    StreamError
    ├── ConfigError                 a setting is unknown, mistyped or impossible
    │   ├── SpecMismatchError       the client is registered with a different spec
    │   └── MissingExtraError       an optional dependency is not installed
    ├── UsageError                  the application called the agent wrongly
    │   ├── ObservationError        wrong shape, not numeric, or not finite
    │   ├── MaskError               wrong shape, or every action forbidden
    │   ├── PriorError              wrong shape, not finite, or not for this client
    │   └── TrajectoryStateError    a trajectory or action used out of order
    ├── WireError                   bytes that do not decode
    │   ├── WireFormatError         not this format, or fields that contradict each other
    │   ├── WireLimitError          larger than the declared limit
    │   └── DigestError             the weights are not what the publisher digested
    ├── BrokerError                 the broker did not do what was asked
    │   ├── BrokerUnavailableError  cannot be reached, or the connection broke
    │   ├── BrokerAuthError         refused the user or the password
    │   ├── BrokerFullError         out of memory under noeviction
    │   ├── BrokerUnsuitableError   too old, evicts keys, or takes no writes
    │   └── ServerStartError        the embedded server did not start
    ├── SpoolError                  an agent's spool on disk cannot be written or read
    ├── UnknownClientError          no such client in the registry
    ├── UnknownVersionError         no such model version
    ├── CommitRefusedError          the commit script refused; `reason` says which check
    │   └── FencedError             a newer worker owns the client
    ├── KeyTypeError                something else stands in the place of a client's key
    ├── LedgersLostError            watermarks are gone that the head counts on
    ├── NonFiniteError              a loss or a weight became NaN or infinite
    └── AuditError                  the balance of a client's trajectories does not close

Errors of redis, msgspec and the operating system are translated at the edge that meets them.
"""

from enum import IntEnum
from typing import ClassVar, Final

__all__ = [
    "AuditError",
    "BrokerAuthError",
    "BrokerError",
    "BrokerFullError",
    "BrokerUnavailableError",
    "BrokerUnsuitableError",
    "CommitRefusedError",
    "ConfigError",
    "DigestError",
    "ExitCode",
    "FencedError",
    "KeyTypeError",
    "LedgersLostError",
    "MaskError",
    "MissingExtraError",
    "NonFiniteError",
    "ObservationError",
    "PriorError",
    "ServerStartError",
    "SpecMismatchError",
    "SpoolError",
    "StreamError",
    "TrajectoryStateError",
    "UnknownClientError",
    "UnknownVersionError",
    "UsageError",
    "WireError",
    "WireFormatError",
    "WireLimitError",
]


MAX_MESSAGE_CHARS: Final = 4000
MAX_PATH_CHARS: Final = 200


def _fit(text: str, limit: int) -> str:
    """`text` so that a terminal and a log can show it: it may quote whatever somebody sent."""
    text = text.encode("utf-8", "backslashreplace").decode()  # halves of surrogate pairs
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


class ExitCode(IntEnum):
    """What a command ends with. Values follow sysexits.h where it has a word for the case."""

    OK = 0
    """The command did what it was asked."""
    FAILURE = 1
    """The command ran, and its answer is no: not learned, audit open, doctor found a fault."""
    USAGE = 2
    """The command line is wrong (click's own code)."""
    DATA = 65
    """Bytes that do not decode, keys of another type, or watermarks that are gone."""
    NOT_FOUND = 66
    """No such client or model version."""
    UNAVAILABLE = 69
    """The broker cannot be reached, or is unsuitable."""
    SOFTWARE = 70
    """An error that nobody foresaw; the traceback says where."""
    NON_FINITE = 71
    """Training kept producing NaN or infinite values and was stopped."""
    LEASE_HELD = 75
    """Another worker holds the client; trying again later may work."""
    CONFIG = 78
    """A setting is wrong, or an optional dependency is missing."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C."""


class StreamError(Exception):
    """The root of the tree: `except StreamError` catches all of it and nothing else."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILURE

    def __init__(self, message: str = "") -> None:
        super().__init__(_fit(message, MAX_MESSAGE_CHARS))


class ConfigError(StreamError, ValueError):
    """A setting is unknown, mistyped or impossible.

    Attributes:
        path: Dotted path of the setting (`algorithm_parameters.gamma`), "" if there is none.
    """

    exit_code = ExitCode.CONFIG

    def __init__(self, message: str, *, path: str = "") -> None:
        path = _fit(path, MAX_PATH_CHARS)
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path


class SpecMismatchError(ConfigError):
    """The client is registered with a different spec; one of the two sides must change.

    Attributes:
        fields: Dotted paths of the fields that differ.
    """

    def __init__(self, message: str, *, fields: tuple[str, ...]) -> None:
        super().__init__(message)
        self.fields = fields


class MissingExtraError(ConfigError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed; run: pip install 'rl4sys-stream[{extra}]'")
        self.extra = extra


class UsageError(StreamError, ValueError):
    """The application called the agent wrongly. Never caused by the broker or a worker."""

    exit_code = ExitCode.USAGE


class ObservationError(UsageError):
    """An observation has the wrong shape, is not numeric, or is not finite."""


class MaskError(UsageError):
    """A mask has the wrong shape, or forbids every action."""


class PriorError(UsageError):
    """A prior has the wrong shape or is not finite, or the client takes none."""


class TrajectoryStateError(UsageError):
    """A trajectory or an action was used out of order (ended twice, added twice, foreign)."""


class WireError(StreamError, ValueError):
    """Bytes that do not decode. Decoding the same bytes again fails again."""

    exit_code = ExitCode.DATA


class WireFormatError(WireError):
    """Not this format, an unknown version of it, or fields that contradict each other."""


class WireLimitError(WireError):
    """Larger than the declared limit; refused before anything was allocated."""


class DigestError(WireError):
    """The weights are not what the publisher digested; fetch the keyframe instead."""


class BrokerError(StreamError):
    """The broker did not do what was asked."""

    exit_code = ExitCode.UNAVAILABLE


class BrokerUnavailableError(BrokerError):
    """The broker cannot be reached, or the connection broke mid-call. Safe to retry reads only."""


class BrokerAuthError(BrokerError):
    """The broker refused the user, the password, or the command for this user."""


class BrokerFullError(BrokerError):
    """The broker is out of memory under `noeviction`; nothing was written."""


class BrokerUnsuitableError(BrokerError):
    """The broker is too old, evicts keys, or takes no writes (a replica, or without its own)."""


class ServerStartError(BrokerError):
    """The embedded server did not start; the message carries the end of its log."""


class SpoolError(StreamError):
    """An agent's spool on disk cannot be made, written or read. Trying again later may work."""


class UnknownClientError(StreamError, LookupError):
    """No such client in the registry."""

    exit_code = ExitCode.NOT_FOUND


class UnknownVersionError(StreamError, LookupError):
    """No such model version (never published, or pruned)."""

    exit_code = ExitCode.NOT_FOUND


class CommitRefusedError(StreamError):
    """The commit script refused before it wrote anything.

    Attributes:
        reason: FENCED, STALE, CONTROL, NOSTAGE, NOTPENDING or BADARGS.
    """

    exit_code = ExitCode.FAILURE

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class FencedError(CommitRefusedError):
    """A newer worker owns the client: start again from its head, under a new token."""

    exit_code = ExitCode.LEASE_HELD

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="FENCED")


class KeyTypeError(StreamError):
    """Something else stands in the place of a client's key; trying again does not help."""

    exit_code = ExitCode.DATA


class LedgersLostError(StreamError):
    """Watermarks are gone that the head counts on: what is offered again would be trained twice."""

    exit_code = ExitCode.DATA


class NonFiniteError(StreamError, ArithmeticError):
    """A loss, gradient or weight became NaN or infinite; the update was rolled back."""

    exit_code = ExitCode.NON_FINITE


class AuditError(StreamError):
    """The balance of a client's trajectories does not close."""

    exit_code = ExitCode.FAILURE
