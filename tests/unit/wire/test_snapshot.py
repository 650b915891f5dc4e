"""Layouts, weights and snapshot frames."""

import struct
import threading

import msgspec
import numpy as np
import pytest
import xxhash
import zstandard
from hypothesis import given, settings

from rl4sys_stream.errors import DigestError, WireFormatError, WireLimitError
from rl4sys_stream.wire.snapshot import (
    TensorLayout,
    Weights,
    decode_snapshot,
    encode_snapshot,
)
from tests.unit.wire.strategies import weights_pairs

HEADER = struct.Struct("<4sBBHIQQ")


def make(seed: int = 0, width: int = 64) -> Weights:
    """Weights of a small actor."""
    rng = np.random.default_rng(seed)
    return Weights.from_tensors({
        "pi.0.weight": rng.normal(0, 0.1, (8, width)).astype(np.float32),
        "pi.0.bias": np.zeros(width, np.float32),
    })  # fmt: skip


def frame(layout: bytes, count: int, planes: bytes, digest: int = 0) -> bytes:
    """A hand-made snapshot frame."""
    return HEADER.pack(b"RL4W", 1, 0, 0, len(layout), count, digest) + layout + planes


def plane(data: bytes) -> bytes:
    """One section of a hand-made frame."""
    return struct.pack("<I", len(data)) + data


@settings(max_examples=200, deadline=None)
@given(weights_pairs())
def test_every_snapshot_comes_back_bit_for_bit(pair):
    """NaN payloads, -0.0 and subnormals included."""
    weights, _ = pair
    decoded = decode_snapshot(encode_snapshot(weights), max_parameters=weights.layout.size)
    assert decoded.layout == weights.layout
    assert decoded.flat.tobytes() == weights.flat.tobytes()
    assert decoded.digest(b"x") == weights.digest(b"x")
    assert not decoded.flat.flags.writeable


def test_a_layout_knows_offsets_views_json_and_digest():
    """The JSON is canonical and documented, so its digest is too."""
    layout = TensorLayout(("a", "b", "c"), ((2, 3), (), (4,)))
    assert (layout.size, layout.offsets) == (11, (0, 6, 7))
    flat = np.arange(11, dtype=np.float32)
    views = layout.split(flat)
    assert views["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (views["b"].item(), views["c"].tolist()) == (6, [7, 8, 9, 10])
    assert np.shares_memory(views["c"], flat)
    text = (
        b'[{"name":"a","dtype":"<f4","shape":[2,3]},{"name":"b","dtype":"<f4","shape":[]},'
        b'{"name":"c","dtype":"<f4","shape":[4]}]'
    )
    assert layout.to_json() == text
    assert layout.digest == xxhash.xxh3_64_hexdigest(text)
    assert TensorLayout.from_json(text) == layout
    with pytest.raises(WireFormatError, match="11 parameters"):
        layout.split(flat[:10])


@pytest.mark.parametrize(
    ("names", "shapes"),
    [
        ((), ()),
        (("a",), ()),
        (("a", "a"), ((1,), (1,))),
        (("",), ((1,),)),
        (("a" * 257,), ((1,),)),
        (("a",), ((0,),)),
        (("a",), ((-1,),)),
        (("a",), ((1,) * 9,)),
    ],
)
def test_impossible_layouts_are_refused(names, shapes):
    """Empty, ambiguous or absurd."""
    with pytest.raises(WireFormatError):
        TensorLayout(names, shapes)


def test_the_digest_is_xxh3_128_of_the_little_endian_bytes_and_the_extras():
    """Any language can recompute it."""
    weights = make()
    data = weights.flat.astype("<f4").tobytes()
    assert weights.digest() == xxhash.xxh3_128_hexdigest(data)
    assert weights.digest(b"extras") == xxhash.xxh3_128_hexdigest(data + b"extras")


def test_weights_cannot_be_changed_by_anyone():
    """Neither through the object nor through the array that they were made of."""
    source = np.zeros(2, np.float32)
    weights = Weights(TensorLayout(("a",), ((2,),)), source)
    source[0] = 1
    assert weights.flat.tolist() == [0, 0]
    with pytest.raises(ValueError, match="read-only"):
        weights.flat[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        weights.tensors()["a"][0] = 1
    assert source.flags.writeable


def test_weights_of_another_type_or_size_are_refused():
    """Nothing is converted silently."""
    layout = TensorLayout(("a",), ((2,),))
    for flat in (np.zeros(2), np.zeros(3, np.float32), np.zeros((2, 1), np.float32)):
        with pytest.raises(WireFormatError):
            Weights(layout, flat)  # type: ignore[arg-type]
    with pytest.raises(WireFormatError, match="float64"):
        Weights.from_tensors({"a": np.zeros(2)})  # type: ignore[dict-item]
    with pytest.raises(WireFormatError):
        Weights.from_tensors({})


def test_strided_tensors_are_flattened_row_major():
    """A transposed view (what a torch export is) keeps its own element order."""
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert Weights.from_tensors({"w": matrix.T}).flat.tolist() == [0, 2, 4, 1, 3, 5]


def test_a_snapshot_is_smaller_than_raw():
    """Exponent bytes compress even where mantissas do not."""
    weights = make(width=512)
    assert len(encode_snapshot(weights)) < 0.93 * weights.flat.nbytes


def test_a_snapshot_larger_than_allowed_is_refused_unread():
    """Before the layout is parsed or anything is allocated."""
    weights = make()
    size = weights.layout.size
    with pytest.raises(WireLimitError, match=str(size)):
        decode_snapshot(encode_snapshot(weights), max_parameters=size - 1)
    with pytest.raises(WireLimitError):
        decode_snapshot(frame(b"", (1 << 64) - 1, b""), max_parameters=size)


def test_the_layout_and_the_header_must_agree_on_the_size():
    """Otherwise the layout's product, however large, would decide what is allocated."""
    for shape in ([3], [1 << 40] * 8):
        layout = msgspec.json.encode([{"name": "a", "dtype": "<f4", "shape": shape}])
        with pytest.raises(WireFormatError, match="the header says 2"):
            decode_snapshot(frame(layout, 2, b""), max_parameters=10)


@pytest.mark.parametrize(
    "layout",
    [
        b"",
        b"{}",
        b"[]",
        b"[" * 100_000,
        b"\xff",
        b'[{"name":"a","dtype":"<f8","shape":[2]}]',
        b'[{"name":"a","dtype":"<f4","shape":[2,-1]}]',
        b'[{"name":"a","dtype":"<f4","shape":[2],"x":1}]',
        b'[{"name":"a","dtype":"<f4"}]',
        b'[{"name":"a","dtype":"<f4","shape":[%s]}]' % (b"9" * 5000),
    ],
)
def test_a_malformed_layout_is_refused(layout):
    """By name, whatever it is."""
    with pytest.raises(WireFormatError):
        decode_snapshot(frame(layout, 2, b""), max_parameters=1 << 50)


def test_an_endless_layout_is_refused_unparsed():
    """More than a mebibyte of names is no layout."""
    with pytest.raises(WireLimitError, match="layout"):
        decode_snapshot(frame(b" " * ((1 << 20) + 1), 2, b""), max_parameters=2)


LAYOUT = TensorLayout(("a",), ((1000,),)).to_json()
RAW = plane(bytes(1000))


def test_a_zstd_bomb_is_refused_by_its_declared_size():
    """A kilobyte that would become a gibibyte is never decompressed."""
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(64 << 20))
    assert len(bomb) > 1000  # so it cannot even be mistaken for a section of 1000 words
    small_bomb = zstandard.ZstdCompressor().compress(bytes(1001))
    for data in (small_bomb, bomb[:900]):
        with pytest.raises(WireFormatError, match="declares"):
            decode_snapshot(frame(LAYOUT, 1000, plane(data) + RAW * 3), max_parameters=1000)


def test_a_zstd_frame_that_hides_its_size_or_lies_is_refused():
    """Unknown size, extra data, cut, empty, several frames, no frame at all."""
    packed = zstandard.ZstdCompressor(level=1).compress(bytes(1000))
    unknown = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    for data in (unknown, packed + b"\0", packed[:-1], b"", b"x" * 20, packed + packed):
        with pytest.raises(WireFormatError, match="byte plane"):
            decode_snapshot(frame(LAYOUT, 1000, plane(data) + RAW * 3), max_parameters=1000)


@pytest.mark.parametrize(("window_log", "accepted"), [(10, True), (20, True), (21, False)])
def test_a_zstd_frame_with_a_window_far_above_its_content_is_refused(window_log, accepted):
    """The window is what a decoder buffers, whatever the content is."""
    head = struct.pack("<IBBH", 0xFD2FB528, 0x40, (window_log - 10) << 3, 1000 - 256)
    one_run = struct.pack("<I", 1000 << 3 | 0b011)[:3] + b"\0"  # the last block, run-length
    planes = plane(head + one_run) + RAW * 3
    data = frame(LAYOUT, 1000, planes, xxhash.xxh3_64_intdigest(bytes(4000)))
    if accepted:
        decode_snapshot(data, max_parameters=1000)
    else:
        with pytest.raises(WireFormatError, match="window"):
            decode_snapshot(data, max_parameters=1000)


def test_sections_must_fill_the_frame_exactly():
    """Neither cut nor followed by anything."""
    digest = xxhash.xxh3_64_intdigest(bytes(4000))
    good = frame(LAYOUT, 1000, RAW * 4, digest)
    assert decode_snapshot(good, max_parameters=1000).flat.tolist() == [0.0] * 1000
    for bad in (good + b"\0", good[:-1], good[: -len(RAW)], good[: -len(RAW) + 2]):
        with pytest.raises(WireFormatError):
            decode_snapshot(bad, max_parameters=1000)
    with pytest.raises(WireFormatError, match="claims 1001"):
        decode_snapshot(frame(LAYOUT, 1000, plane(bytes(1001)) + RAW * 3), max_parameters=1000)


@pytest.mark.parametrize(("index", "value"), [(0, 0), (4, 2), (5, 1), (6, 1)])
def test_another_magic_format_or_kind_is_refused(index, value):
    """An old reader does not guess at a new frame."""
    data = bytearray(encode_snapshot(make()))
    data[index] = value
    with pytest.raises(WireFormatError):
        decode_snapshot(bytes(data), max_parameters=10_000)


def test_a_changed_weight_is_caught_by_the_digest():
    """One bit in a raw plane."""
    data = bytearray(frame(LAYOUT, 1000, RAW * 4, xxhash.xxh3_64_intdigest(bytes(4000))))
    data[-1] ^= 1
    with pytest.raises(DigestError, match="fetch it again"):
        decode_snapshot(bytes(data), max_parameters=1000)


def test_snapshots_encode_and_decode_in_many_threads_at_once():
    """No compressor is shared."""
    failures: list[object] = []

    def work(seed: int) -> None:
        weights = make(seed)
        for _ in range(50):
            decoded = decode_snapshot(encode_snapshot(weights), max_parameters=10_000)
            if decoded.digest() != weights.digest():
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
