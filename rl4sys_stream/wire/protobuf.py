"""Trajectories as Protocol Buffers: the field `pb` of an entry holds one message for all columns.

The message is `Trajectory` of clients/proto/rl4sys_stream.proto, of which `make proto` generates
rl4sys_stream_pb2. It says the same as the columns, so it becomes the same header and the same
columns, and is checked by the same code. The library is an extra, loaded when it is needed.
"""

import importlib
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rl4sys_stream.config.extras import require_protobuf
from rl4sys_stream.errors import WireFormatError, WireLimitError
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.wire.format import (
    FLOAT32,
    INT64,
    PROTOBUF_CODEC,
    TRAJECTORY_FORMAT,
    UINT8,
    End,
    WireLimits,
)
from rl4sys_stream.wire.header import Header, check_entry_size, check_steps

if TYPE_CHECKING:
    from rl4sys_stream.wire import rl4sys_stream_pb2 as pb2

__all__ = ["encode_message", "is_message", "message_steps", "read_message"]

MESSAGE_FIELD: Final = b"pb"
"""Of the entry; `h` is the other codec's, and decides where there are both."""

_COLUMNS: Final = {
    "obs": "observations",
    "reward": "rewards",
    "log_prob": "log_probs",
    "mask": "masks",
    "prior": "priors",
    "final_obs": "final_observation",
    "final_mask": "final_mask",
}
"""Name of a column to that of its field; actions have two."""
_REQUIRED: Final = ("obs", "reward", "log_prob")

_HEADER_NUMBER: Final = 1
_LAST_NUMBER: Final = 10
_MOST_FIELDS: Final = 256
"""Of one message, those of later versions included."""
_LONGEST_VARINT: Final = 10


@cache
def _module() -> Any:  # noqa: ANN401 -- mypy takes an unconditional import for a base dependency
    require_protobuf(f'the trajectory codec "{PROTOBUF_CODEC}"')
    return importlib.import_module("rl4sys_stream.wire.rl4sys_stream_pb2")


def is_message(fields: Mapping[bytes, bytes]) -> bool:
    """Whether an entry is one of this codec."""
    return MESSAGE_FIELD in fields and b"h" not in fields


def encode_message(header: Header, columns: Mapping[str, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """The entry's one field beside its address.

    Args:
        header: As for the other codec.
        columns: Name to bytes, the final observation and its mask included.

    Raises:
        MissingExtraError: If the library is not installed.
    """
    pb = _module()
    message: pb2.Trajectory = pb.Trajectory(
        header=pb.TrajectoryHeader(
            format=header.v,
            steps=header.steps,
            behavior=[
                pb.BehaviorRun(version=run.version, token=run.token, steps=run.steps)
                for run in header.behavior
            ],
            end=pb.End.Value(f"END_{header.end.name}"),
            episode=header.episode,
            offset=header.offset,
            created_ms=header.created_ms,
        ),
        **{field: columns[name] for name, field in _COLUMNS.items() if name in columns},
    )
    if header.cols["action"][0] == FLOAT32:
        message.vectors = columns["action"]
    else:
        message.choices = columns["action"]
    return ((MESSAGE_FIELD, message.SerializeToString()),)


def message_steps(fields: Mapping[bytes, bytes], limits: WireLimits) -> int:
    """Steps of an entry, as its header says.

    Raises:
        WireFormatError: As `read_message`.
        WireLimitError: Likewise.
        MissingExtraError: Likewise.
    """
    return int(_parse(fields, limits).header.steps)


def read_message(
    fields: Mapping[bytes, bytes], *, obs_dim: int, actions: ActionFormat, limits: WireLimits
) -> tuple[Header, dict[bytes, bytes]]:
    """The header and the columns that the message in an entry stands for.

    Shapes are those of the client: a message has none. So what has another length, or actions of
    the other kind, is refused by whoever reads the columns.

    Args:
        fields: Of the entry.
        obs_dim: Length of a flattened observation.
        actions: What an action is.
        limits: Of the entry.

    Raises:
        WireFormatError: If it is no such message, or of an unknown format.
        WireLimitError: If it is larger than `limits`; then it was not parsed.
        MissingExtraError: If the library is not installed.
    """
    message = _parse(fields, limits)
    columns: dict[bytes, bytes] = {}
    for name, field in _COLUMNS.items():
        if name in _REQUIRED or message.HasField(field):
            columns[name.encode()] = getattr(message, field)
    kind = message.WhichOneof("actions")
    if kind is not None:
        columns[b"action"] = getattr(message, kind)
    shapes = _shapes(kind, obs_dim, actions)
    declared = {name: column for name, column in shapes.items() if name.encode() in columns}
    final = {name: declared.pop(name, None) for name in ("final_obs", "final_mask")}
    return _header(message, {"cols": declared, **final}), columns


def _shapes(kind: str | None, obs_dim: int, actions: ActionFormat) -> dict[str, object]:
    """Element type and shape of each column of the client."""
    elements = [] if actions.single else [actions.dim]
    return {
        "obs": [FLOAT32, [obs_dim]],
        "action": [FLOAT32 if kind == "vectors" else INT64, elements],
        "reward": [FLOAT32, []],
        "log_prob": [FLOAT32, []],
        "mask": [UINT8, [actions.choices]],
        "prior": [FLOAT32, [actions.choices]],
        "final_obs": [FLOAT32, [obs_dim]],
        "final_mask": [UINT8, [actions.choices]],
    }


def _header(message: "pb2.Trajectory", columns: Mapping[str, object]) -> Header:
    said = message.header
    try:
        end = End[_module().End.Name(said.end).removeprefix("END_")]
    except (KeyError, ValueError):
        raise WireFormatError(f"the end {said.end} is unknown") from None
    try:
        return msgspec.convert(
            {
                "v": said.format,
                "codec": PROTOBUF_CODEC,
                "steps": said.steps,
                "behavior": [[run.version, run.token, run.steps] for run in said.behavior],
                "end": end.value,
                "episode": said.episode,
                "offset": said.offset,
                "created_ms": said.created_ms,
                **columns,
            },
            Header,
        )
    except msgspec.ValidationError as error:
        raise WireFormatError(f"the header does not fit: {error}") from None


def _parse(fields: Mapping[bytes, bytes], limits: WireLimits) -> "pb2.Trajectory":
    check_entry_size(fields, limits)
    data = fields[MESSAGE_FIELD]
    _check_size(data, limits)
    pb = _module()
    message: pb2.Trajectory = pb.Trajectory()
    decode_error = importlib.import_module("google.protobuf.message").DecodeError
    try:
        message.ParseFromString(data)
    except decode_error as error:
        raise WireFormatError(f"the message does not parse: {error}") from None
    said = message.header
    if said.format != TRAJECTORY_FORMAT:
        raise WireFormatError(
            f"trajectory format {said.format}, codec {PROTOBUF_CODEC!r} is unknown; this side "
            f"reads format {TRAJECTORY_FORMAT}: upgrade it"
        )
    check_steps(said.steps, limits)
    # Before anything is made of them: an empty run has two bytes.
    if len(said.behavior) * 4 > len(message.rewards):
        raise WireFormatError(f"{len(said.behavior)} runs of behavior for fewer rewards")
    return message


def _check_size(data: bytes, limits: WireLimits) -> None:
    """Refuse a message by what is in it beside the contents of columns.

    The library makes objects of that, which are many times its size; so it is measured before.

    Raises:
        WireFormatError: If the message is cut, or holds what no version of the format has.
        WireLimitError: If there is more than `limits` says, or there are too many fields.
    """
    at, columns = 0, 0
    for _ in range(_MOST_FIELDS):
        if at == len(data):
            break
        number, size, at = _skip_field(data, at)
        if _HEADER_NUMBER < number <= _LAST_NUMBER:
            columns += size
    if at < len(data):
        raise WireLimitError(f"a message of more than {_MOST_FIELDS} fields")
    aside = len(data) - columns
    if aside > limits.max_header_bytes:
        raise WireLimitError(
            f"a message of {aside} bytes beside its columns; {limits.max_header_bytes} are allowed"
        )


def _skip_field(data: bytes, at: int) -> tuple[int, int, int]:
    """Number of the field at `at`, how many bytes are its content, and where the next one begins.

    Only of bytes there is a content: a column is nothing else.
    """
    tag, at = _varint(data, at)
    size = 0
    match tag & 7:
        case 0:  # a number
            _, at = _varint(data, at)
        case 1:  # 64 bits
            at += 8
        case 2:  # bytes
            size, at = _varint(data, at)
            at += size
        case 5:  # 32 bits
            at += 4
        case kind:
            raise WireFormatError(f"the message has a field of wire type {kind}")
    if at > len(data):
        raise WireFormatError("the message ends within a field")
    return tag >> 3, size, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next thing begins."""
    value = 0
    for index, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        value |= (byte & 127) << (7 * index)
        if byte < 128:  # noqa: PLR2004 - the highest bit says that another byte follows
            return value, at + index + 1
    raise WireFormatError("the message ends within a number, or holds one of more than 64 bits")
