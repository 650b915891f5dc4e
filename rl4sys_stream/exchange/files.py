"""Model files by their names: which ending is which format, and what reads and writes it."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from rl4sys_stream.errors import MissingExtraError, UsageError, WireFormatError
from rl4sys_stream.exchange.npz import encode_npz, read_npz
from rl4sys_stream.exchange.package import ModelPackage

__all__ = ["ENDINGS", "find_writer", "format_of", "read_model", "write_file"]

_FORMATS: Final = {"npz": "npz", "onnx": "onnx", "pt": "torch", "safetensors": "safetensors"}
"""Ending of a file -> name of its format."""
ENDINGS: Final = {kind: ending for ending, kind in _FORMATS.items()}
"""Name of a format -> ending of its files."""
_READ: Final = ("npz", "safetensors")
"""Formats that have all that makes a version."""


def format_of(path: Path) -> str:
    """The format that a file's ending says; npz if it says none."""
    return _FORMATS.get(path.suffix.removeprefix("."), "npz")


def find_writer(kind: str) -> Callable[[ModelPackage], bytes]:
    """What writes a format; imported here, because each needs a package of its own.

    Args:
        kind: One of `ENDINGS`.

    Raises:
        MissingExtraError: If that is not installed.
    """
    try:
        match kind:
            case "onnx":
                from rl4sys_stream.exchange.onnx_file import encode_onnx

                return encode_onnx
            case "safetensors":
                from rl4sys_stream.exchange.safetensors_file import encode_safetensors

                return encode_safetensors
            case "torch":
                from rl4sys_stream.exchange.torch_file import encode_torch

                return encode_torch
    except ModuleNotFoundError as error:
        raise _missing(kind) from error
    return encode_npz


def write_file(path: Path, data: bytes) -> None:
    """Write a model file.

    Raises:
        UsageError: If that is not possible there.
    """
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def read_model(path: Path) -> ModelPackage:
    """The version in a file; nothing in it is executed.

    Raises:
        WireError: If it is of another form, damaged, or does not match its digest.
        MissingExtraError: If the package that reads it is not installed.
    """
    kind = _FORMATS.get(path.suffix.removeprefix("."), "")
    if kind not in _READ:
        endings = " or ".join(f".{one}" for one in _READ)
        raise WireFormatError(
            f"{path} does not end in {endings}: only these forms have all that makes a version"
        )
    if kind == "npz":
        return read_npz(path)
    try:
        from rl4sys_stream.exchange.safetensors_file import read_safetensors
    except ModuleNotFoundError as error:
        raise _missing(kind) from error
    return read_safetensors(path)


def _missing(kind: str) -> MissingExtraError:
    extra = "worker" if kind == "torch" else kind
    return MissingExtraError(f"what the format {kind} needs", extra)
