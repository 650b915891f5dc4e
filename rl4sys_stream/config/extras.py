"""Optional dependencies that a setting may ask for."""

import importlib
from typing import Final

from rl4sys_stream.errors import MissingExtraError

__all__ = ["require_protobuf"]

OLDEST_PROTOBUF: Final = (7, 35, 1)
"""What the generated code was made for; as `[project.optional-dependencies]` says."""


def require_protobuf(asked_by: str) -> None:
    """Nothing, if the library of Protocol Buffers is installed and new enough.

    Args:
        asked_by: What needs it, for the message.

    Raises:
        MissingExtraError: If it is not; names the extra that brings it.
    """
    oldest = ".".join(map(str, OLDEST_PROTOBUF))
    try:
        version = str(importlib.import_module("google.protobuf").__version__)
    except ImportError:
        version = "0"
    numbers = [int(part) for part in version.split(".")[:3] if part.isdigit()]
    if tuple(numbers) < OLDEST_PROTOBUF:
        raise MissingExtraError(f"protobuf {oldest} or newer, which {asked_by} needs,", "protobuf")
