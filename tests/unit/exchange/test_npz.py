"""Archives of models: bit for bit the same after reading, and nothing else is read."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl4sys_stream.errors import DigestError, StreamError, WireFormatError, WireLimitError
from rl4sys_stream.exchange.npz import decode_npz, encode_npz, read_npz
from rl4sys_stream.spaces import Box
from tests.unit.exchange.packages import package, same

BOX = Box((2,), low=-1.0, high=1.0)


@pytest.mark.parametrize(
    "made",
    [package(), package(action_space=BOX), package(action_space=BOX, algorithm="SAC")],
    ids=["categorical", "gaussian", "state_gaussian"],
)
def test_a_model_is_read_as_it_was_written(made, tmp_path):
    """With its spec, its extras, its definition and where it comes from."""
    path = tmp_path / "model.npz"
    path.write_bytes(encode_npz(made))
    found = read_npz(path)
    assert same(found, made)
    assert (found.spec, found.origin, found.definition) == (made.spec, made.origin, made.definition)


def test_numpy_alone_reads_the_tensors():
    """Without this package, and without unpickling."""
    made = package()
    with np.load(io.BytesIO(encode_npz(made)), allow_pickle=False) as arrays:
        assert arrays["pi.0.weight"].tobytes() == made.weights.tensors()["pi.0.weight"].tobytes()


def rewritten(**arrays: np.ndarray) -> bytes:
    """The archive of a model with other arrays in places."""
    with np.load(io.BytesIO(encode_npz(package()))) as found:
        members = {name: found[name] for name in found.files} | arrays
    buffer = io.BytesIO()
    np.savez(buffer, **members)
    return buffer.getvalue()


def test_a_changed_number_is_noticed():
    """The digest covers weights and extras."""
    with pytest.raises(DigestError, match="changed or cut"):
        decode_npz(rewritten(**{"pi.0.bias": np.zeros(8, np.float32)}))


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"pi.0.bias": np.zeros(8)}, "holds float64"),
        ({"pi.0.bias": np.array([{}], object)}, "holds object"),
        ({"more": np.zeros(2, np.float32)}, "holds the tensors"),
        ({"rl4sys_stream": np.frombuffer(b"{}", np.uint8)}, "does not decode"),
    ],
)
def test_arrays_that_are_no_model_are_refused(arrays, why):
    """Objects above all: they would be unpickled."""
    with pytest.raises(WireFormatError, match=why):
        decode_npz(rewritten(**arrays))


def test_an_archive_of_somebody_else_is_refused_by_name():
    """It says what makes one that is taken."""
    buffer = io.BytesIO()
    np.savez(buffer, w=np.zeros(3, np.float32))
    with pytest.raises(WireFormatError, match="rl4sys-stream models export"):
        decode_npz(buffer.getvalue())


def test_a_bomb_is_refused_before_it_is_unpacked():
    """Kilobytes of archive, megabytes of zeros: compressed, or the same bytes under many names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(8 << 20))
    with pytest.raises(WireLimitError, match="1 arrays of 8388608 bytes"):
        decode_npz(buffer.getvalue())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", bytes(1 << 20))
        archive.filelist += [archive.filelist[0]] * 100
    with pytest.raises(WireLimitError, match="101 arrays"):
        decode_npz(buffer.getvalue())


def test_a_header_that_declares_more_than_there_is_allocates_nothing():
    """The declared size is compared with the member's first."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(8))
    with pytest.raises(WireFormatError, match="not its size"):
        decode_npz(buffer.getvalue())


WHOLE = encode_npz(package())


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255), st.booleans())
def test_whatever_happens_to_the_bytes_is_a_named_error_or_the_same_model(place, flip, cut):
    """A flipped byte may lie where nobody looks; nothing else comes out, ever."""
    data = bytearray(WHOLE)
    data[place] ^= flip
    try:
        found = decode_npz(bytes(data[:place] if cut else data))
    except StreamError:
        return
    assert found.weights.flat.tobytes() == package().weights.flat.tobytes()
