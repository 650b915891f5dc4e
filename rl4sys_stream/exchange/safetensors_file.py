"""The safetensors format: tensors that a program in another language maps into memory.

They are float32 [in, out], as everywhere in this package; the description is in the metadata of the
header. The format runs no code.
"""

from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rl4sys_stream.errors import WireFormatError, WireLimitError
from rl4sys_stream.exchange.package import ModelPackage

__all__ = ["encode_safetensors", "read_safetensors"]

DESCRIPTION: Final = "rl4sys_stream"
"""Key of the description in the metadata."""
MAX_FILE_BYTES: Final = (1 << 30) + (64 << 20)


def encode_safetensors(package: ModelPackage) -> bytes:
    """The file as bytes."""
    return save(package.weights.tensors(), {DESCRIPTION: package.describe().decode()})


def read_safetensors(path: Path) -> ModelPackage:
    """The package in the file at `path`.

    Raises:
        WireFormatError: If it is no such file, or was not written by `encode_safetensors`.
        WireLimitError: If it is larger than any model.
        DigestError: If it is not what was exported.
        ConfigError: If the spec is none that this version knows.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise WireLimitError(f"{path} is larger than the {MAX_FILE_BYTES} bytes of any model")
    try:
        with safe_open(path, framework="numpy") as file:
            description = (file.metadata() or {}).get(DESCRIPTION)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no dict
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise WireFormatError(f"{path} is no safetensors file: {error}") from error
    if description is None:
        raise WireFormatError(
            f"{path} has no {DESCRIPTION!r} in its metadata: it was not written by "
            "`rl4sys-stream models export`"
        )
    return ModelPackage.from_parts(description.encode(), tensors)
