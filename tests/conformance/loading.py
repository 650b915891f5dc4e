"""Vectors as the files of clients/conformance/v1 describe them."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

__all__ = ["FOLDER", "blob", "each", "entry_of", "flat_of", "same_bits"]

FOLDER: Final = Path(__file__).resolve().parents[2] / "clients" / "conformance" / "v1"


def each(name: str) -> pytest.MarkDecorator:
    """A test for each vector of a JSON file, as its argument `vector`."""
    vectors = json.loads((FOLDER / name).read_bytes())
    return pytest.mark.parametrize("vector", vectors, ids=[vector["name"] for vector in vectors])


def blob(name: str) -> bytes:
    """A binary file."""
    return (FOLDER / name).read_bytes()


def entry_of(vector: dict[str, Any]) -> dict[bytes, bytes]:
    """The fields of a stream entry."""
    data, at, fields = blob(vector["values"]), 0, {}
    for name, size in vector["fields"]:
        fields[name.encode()] = data[at : at + size]
        at += size
    assert at == len(data)
    return fields


def flat_of(described: dict[str, Any]) -> NDArray[np.float32]:
    """The flat vector of some weights, read-only."""
    return np.frombuffer(blob(described["flat"]), "<f4")


def same_bits(left: NDArray[Any], right: NDArray[Any]) -> bool:
    """Whether two arrays are equal in every bit, NaN and the signs of zeros included."""
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()
