"""What all wire formats share: version numbers, element types, limits, exact integers."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

__all__ = [
    "FALLBACK_TOKEN",
    "FLOAT32",
    "INT64",
    "MAX_EXACT_INTEGER",
    "MAX_PRIOR",
    "MAX_TOKEN_CHARS",
    "PROTOBUF_CODEC",
    "TRAJECTORY_CODEC",
    "TRAJECTORY_FORMAT",
    "UINT8",
    "WEIGHTS_FORMAT",
    "End",
    "TrajectoryCodec",
    "WireLimits",
]

TRAJECTORY_FORMAT: Final = 1
"""`v` in a trajectory's header. It rises when an old reader would misunderstand a new entry."""

TRAJECTORY_CODEC: Final = "columns"
"""`codec` in a trajectory's header: one raw column a quantity."""

PROTOBUF_CODEC: Final = "protobuf"
"""The other codec: one message of Protocol Buffers for all of them."""

TrajectoryCodec = Literal["columns", "protobuf"]
"""How an agent encodes trajectories; readers take both."""

WEIGHTS_FORMAT: Final = 1
"""Format byte of snapshot and diff frames."""

FALLBACK_TOKEN: Final = "fallback"  # noqa: S105 - a marker in the behaviour runs, no secret
"""Token of steps whose action the application's own fallback chose. Their probability is unknown,
so no importance ratio can correct for them, and no learner trains on them."""

FLOAT32: Final = "<f4"
INT64: Final = "<i8"
UINT8: Final = "|u1"
"""The element types a column may have, as numpy spells them; all little-endian."""

MAX_EXACT_INTEGER: Final = (1 << 53) - 1
"""Largest integer that JSON readers and Redis' Lua (both use doubles) keep exactly."""

MAX_PRIOR: Final = 1000.0
"""Largest magnitude of a prior logit. It decides alone long before, and beyond it float32 would
have no room left for what the network says."""

MAX_TOKEN_CHARS: Final = 128
"""Longest agent_id and longest model token, in printable ASCII characters."""


class End(StrEnum):
    """Why a trajectory ends."""

    TERMINATED = "terminated"
    """The episode reached an end of its own; what follows is worth nothing by definition."""
    TRUNCATED = "truncated"
    """The episode was stopped from outside; the final observation has a value."""
    CUT = "cut"
    """Only the trajectory ends, for size; the next one continues the episode at `offset`."""


@dataclass(frozen=True, slots=True)
class WireLimits:
    """How large one trajectory entry may be; larger ones are refused unread.

    Attributes:
        max_entry_bytes: Field names and values of one entry together.
        max_steps: Steps of one trajectory.
        max_header_bytes: The JSON header alone, so that parsing it stays cheap.
    """

    max_entry_bytes: int = 8 << 20
    max_steps: int = 1 << 16
    max_header_bytes: int = 64 << 10
