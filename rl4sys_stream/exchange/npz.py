"""NumPy's own archive: an array for each tensor, and the description as bytes.

`numpy.load(path)["pi.0.weight"]` is float32 [in, out], as everywhere in this package. Nothing in it
is pickled, and nothing that is would be read.
"""

import io
import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import WireError, WireFormatError, WireLimitError
from rl4sys_stream.exchange.package import ModelPackage

__all__ = ["decode_npz", "encode_npz", "read_npz"]

DESCRIPTION: Final = "rl4sys_stream"
"""Name of the array that holds the description; no tensor is called so."""
MAX_FILE_BYTES: Final = (1 << 30) + (64 << 20)
"""As large a model as agents take in, and its description."""
MAX_ARRAYS: Final = 4097
_DAMAGE: Final = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile and numpy raise for archives that are none."""


def encode_npz(package: ModelPackage) -> bytes:
    """The archive as bytes."""
    buffer = io.BytesIO()
    description = np.frombuffer(package.describe(), np.uint8)
    np.savez(buffer, **{DESCRIPTION: description}, **package.weights.tensors())  # type: ignore[arg-type]
    return buffer.getvalue()


def read_npz(path: Path) -> ModelPackage:
    """The package in the archive at `path`; see `decode_npz`."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise WireLimitError(f"{path} is larger than the {MAX_FILE_BYTES} bytes of any model")
    return decode_npz(path.read_bytes())


def decode_npz(data: bytes) -> ModelPackage:
    """The package in an archive of `encode_npz`.

    Raises:
        WireFormatError: If it is no such archive.
        WireLimitError: If it holds more than any model has.
        DigestError: If it is not what was exported.
        ConfigError: If the spec is none that this version knows.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            # Before anything is read: compressed, or one over the other, a few kilobytes can be
            # terabytes of zeros.
            size = sum(member.file_size for member in members)
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            if not stored or len(members) > MAX_ARRAYS or size > len(data):
                raise WireLimitError(
                    f"an archive of {len(data)} bytes holds {len(members)} arrays of {size} bytes; "
                    f"uncompressed ones are read, up to {MAX_ARRAYS}"
                )
            found = {
                member.filename.removesuffix(".npy"): _read_array(archive, member)
                for member in members
            }
    except _DAMAGE as error:
        if isinstance(error, WireError):
            raise
        raise WireFormatError(f"this is no archive of a model: {error}") from error
    description = found.pop(DESCRIPTION, None)
    if description is None:
        raise WireFormatError(
            f"the archive has no description {DESCRIPTION!r}: it was not written by "
            "`rl4sys-stream models export`"
        )
    return ModelPackage.from_parts(description.tobytes(), found)


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[np.float32]:
    """One array, float32 but for the description; its header is believed once it adds up."""
    with archive.open(member) as file:
        major, _ = np.lib.format.read_magic(file)
        if major != 1:
            raise WireFormatError(f"{member.filename} is of format {major}; 1 is known")
        shape, column_major, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype not in {np.dtype("<f4"), np.dtype("|u1")} or column_major:
            raise WireFormatError(f"{member.filename} holds {dtype}, not row-major float32")
        if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise WireFormatError(f"{member.filename} declares {shape}, which is not its size")
        array = np.frombuffer(file.read(), dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)
