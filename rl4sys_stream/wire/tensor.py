"""One array as the raw little-endian bytes of one column."""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.wire.format import FLOAT32, INT64, UINT8

__all__ = ["Column", "decode_array", "encode_array"]

Column = tuple[str, tuple[int, ...]]
"""Element type and shape of one column, as a header declares them."""

_DTYPES: Final = {name: np.dtype(name) for name in (FLOAT32, INT64, UINT8)}


def encode_array(array: NDArray[Any], dtype: str) -> bytes:
    """The elements of `array` in row-major order as `dtype`, one of the format's three."""
    return array.astype(_DTYPES[dtype], copy=False).tobytes()


def decode_array(name: str, data: bytes, column: Column) -> NDArray[Any]:
    """The array in `data`; a read-only view of it, so nothing is allocated.

    Args:
        name: Of the column, for the message.
        data: The column's bytes.
        column: What they must hold; never a declaration from the wire that was not checked.

    Returns:
        Shape and element type of `column`, in native byte order.

    Raises:
        WireFormatError: If `data` has another length.
    """
    dtype, shape = column
    size = math.prod(shape) * _DTYPES[dtype].itemsize
    if len(data) != size:
        raise WireFormatError(
            f"column {name!r} has {len(data)} bytes; {dtype} {list(shape)} is {size}"
        )
    array: NDArray[Any] = np.frombuffer(data, _DTYPES[dtype]).reshape(shape)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
