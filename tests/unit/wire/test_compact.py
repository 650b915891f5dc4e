"""Compact frames: bit for bit over every change of the grid, only on their own base, and small."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl4sys_stream.errors import DigestError, WireError, WireFormatError, WireLimitError
from rl4sys_stream.wire.compact import (
    apply_compact_diff,
    decode_compact_snapshot,
    encode_compact_diff,
    encode_compact_snapshot,
)
from rl4sys_stream.wire.diff import encode_diff
from rl4sys_stream.wire.frames import apply_any_diff, decode_any_snapshot
from rl4sys_stream.wire.grid import GridWeights, round_to_grid
from rl4sys_stream.wire.snapshot import Weights, encode_snapshot
from tests.unit.wire.strategies import damaged, grid_pairs

DIFF_HEADER = 48


def make(seed: int = 0, scale: float = 0.15, size: int = 4996) -> Weights:
    """Weights as large as a 64×64 actor for LunarLander."""
    rng = np.random.default_rng(seed)
    return Weights.from_tensors({"w": rng.normal(0, scale, size).astype(np.float32)})


def stepped(base: Weights, relative: float, seed: int = 99) -> Weights:
    """`base` after an update that moved every weight by about `relative` of the common scale."""
    rng = np.random.default_rng(seed)
    scale = relative * float(base.flat.std())
    return Weights(base.layout, base.flat + rng.normal(0, scale, base.flat.shape).astype("f4"))


@settings(max_examples=400, deadline=None)
@given(grid_pairs())
def test_every_compact_diff_leads_to_the_published_bits(pair):
    """Finer, coarser, the same grid; and the base is left as it was."""
    base, new = pair
    before = base.weights.flat.tobytes()
    data = encode_compact_diff(base, new)
    if data is None:
        return  # too far apart for a diff; a snapshot is published
    result = apply_compact_diff(base.weights, data)
    assert result.flat.tobytes() == new.weights.flat.tobytes()
    assert result.layout == new.weights.layout
    assert not result.flat.flags.writeable
    assert base.weights.flat.tobytes() == before


@settings(max_examples=200, deadline=None)
@given(grid_pairs())
def test_every_compact_snapshot_holds_the_published_bits(pair):
    """Whatever the grid."""
    _, new = pair
    found = decode_compact_snapshot(encode_compact_snapshot(new), max_parameters=10_000)
    assert found.flat.tobytes() == new.weights.flat.tobytes()
    assert found.layout == new.weights.layout


def test_a_thousand_chained_diffs_with_regrids_do_not_drift():
    """Nothing is rounded but what everybody rounds alike, so nothing accumulates."""
    rng = np.random.default_rng(7)
    master = make(size=300)
    base = round_to_grid(master, [-8])
    agent = base.weights
    for version in range(1000):
        master = stepped(master, 0.02, seed=version)
        new = round_to_grid(master, [int(rng.integers(-12, -3))])
        data = encode_compact_diff(base, new)
        assert data is not None
        agent, base = apply_compact_diff(agent, data), new
    assert agent.digest() == base.weights.digest()


def test_a_diff_between_distant_versions_is_like_any_other():
    """So an agent that slept needs one frame."""
    base = round_to_grid(make(), [-8])
    new = round_to_grid(stepped(make(), 0.5), [-6])
    data = encode_compact_diff(base, new)
    assert data is not None
    assert apply_compact_diff(base.weights, data).digest() == new.weights.digest()


def test_a_typical_update_costs_a_fraction_of_the_exact_diff():
    """Updates of 2.3 % on the grid that a KL divergence of 1e-4 allows."""
    base, new = make(), stepped(make(), 0.023)
    data = encode_compact_diff(round_to_grid(base, [-7]), round_to_grid(new, [-7]))
    assert data is not None
    assert len(data) < 0.06 * base.flat.nbytes


def test_there_is_no_diff_between_layouts_or_over_too_many_steps():
    """Then a snapshot is published; a diff that is not exact never is."""
    base = round_to_grid(make(), [-8])
    other = round_to_grid(Weights.from_tensors({"v": base.weights.flat}), [-8])
    assert encode_compact_diff(base, other) is None
    large = round_to_grid(Weights.from_tensors({"w": np.full(4, 1e6, np.float32)}), [0])
    small = round_to_grid(Weights.from_tensors({"w": np.full(4, 1e-6, np.float32)}), [-24])
    assert encode_compact_diff(large, small) is None


def test_a_compact_diff_is_refused_on_any_other_base():
    """Other weights, other names, other shapes; even where the rest is garbage."""
    base = round_to_grid(make(), [-8])
    data = encode_compact_diff(base, round_to_grid(stepped(make(), 0.02), [-8]))
    assert data is not None
    flat = base.weights.flat.copy()
    flat[17] += 0.5
    for broken in (data, data[:DIFF_HEADER]):
        with pytest.raises(DigestError, match="starts from other weights"):
            apply_compact_diff(Weights(base.weights.layout, flat), broken)
    for tensors in ({"v": flat}, {"w": flat.reshape(2, -1)}, {"w": flat[:-1]}):
        with pytest.raises(DigestError, match="another layout"):
            apply_compact_diff(Weights.from_tensors(tensors), data)


def test_a_result_that_was_not_published_is_refused():
    """An exponent that was forged leads elsewhere, and overflow on the way is no warning."""
    base = round_to_grid(make(), [-8])
    data = encode_compact_diff(base, round_to_grid(stepped(make(), 0.02), [-8]))
    assert data is not None
    for code in (0, 15, 127, 128, 255):
        forged = bytearray(data)
        forged[DIFF_HEADER] = code
        with np.errstate(all="raise"), pytest.raises(DigestError, match="fetch the keyframe"):
            apply_compact_diff(base.weights, bytes(forged))
    whole = encode_compact_snapshot(base)
    for place in (25, 33, whole.index(b'"w"') + 1):  # both digests, and the tensor's name
        snapshot = bytearray(whole)
        snapshot[place] ^= 1
        with pytest.raises(DigestError, match="fetch it again"):
            decode_compact_snapshot(bytes(snapshot), max_parameters=10_000)


@pytest.mark.parametrize(("index", "value"), [(0, 0), (4, 2), (5, 7)])
def test_another_magic_format_or_kind_is_refused(index, value):
    """An old reader does not guess at a new frame."""
    base = round_to_grid(make(), [-8])
    diff = encode_compact_diff(base, base)
    assert diff is not None
    snapshot = encode_compact_snapshot(base)
    forged_diff, forged_snapshot = bytearray(diff), bytearray(snapshot)
    forged_diff[index] = forged_snapshot[index] = value
    with pytest.raises(WireFormatError):
        apply_any_diff(base.weights, bytes(forged_diff))
    with pytest.raises(WireFormatError):
        decode_any_snapshot(bytes(forged_snapshot), max_parameters=9999)


def test_the_frame_says_which_kind_it_is():
    """A reader follows a publisher that changes from one mode to the other."""
    base, new = round_to_grid(make(), [-8]), round_to_grid(stepped(make(), 0.02), [-8])
    compact = encode_compact_diff(base, new)
    assert compact is not None
    for data in (compact, encode_diff(base.weights, new.weights)):
        assert apply_any_diff(base.weights, data).digest() == new.weights.digest()
    for data in (encode_compact_snapshot(new), encode_snapshot(new.weights)):
        assert decode_any_snapshot(data, max_parameters=4996).digest() == new.weights.digest()


def test_a_snapshot_that_contradicts_itself_is_refused_before_it_is_decoded():
    """Sizes, exponents and integers that no publisher writes."""
    model = round_to_grid(make(size=40), [-8])
    data = encode_compact_snapshot(model)
    (layout_size,) = struct.unpack_from("<I", data, 8)
    code = 44 + layout_size

    def forged(offset: int, raw: bytes) -> bytes:
        return data[:offset] + raw + data[offset + len(raw) :]

    def decode(frame: bytes, limit: int = 40) -> Weights:
        return decode_compact_snapshot(frame, max_parameters=limit)

    with pytest.raises(WireLimitError, match="40 parameters of 39"):
        decode(data, 39)
    for frame, message in (
        (data[:30], "no compact snapshot"),
        (data[: code - 4], "ends within"),
        (forged(6, b"\2\0"), "in 1 tensors, the header says 40 in 2"),
        (forged(12, struct.pack("<Q", 39)), "the header says 39"),
        (forged(code, b"\xff"), "coarser"),
        (data[:-1], "byte plane"),
    ):
        with pytest.raises(WireFormatError, match=message):
            decode(frame)


@settings(max_examples=200, deadline=None)
@given(st.data(), grid_pairs())
def test_a_damaged_frame_never_becomes_other_weights(data, pair):
    """Either the published bits or a named error."""
    base, new = pair
    frame = encode_compact_diff(base, new)
    if frame is not None:
        _check(data, frame, new, lambda found: apply_any_diff(base.weights, found))
    snapshot = encode_compact_snapshot(new)
    _check(data, snapshot, new, lambda found: decode_any_snapshot(found, max_parameters=10_000))


def _check(
    data: st.DataObject, frame: bytes, new: GridWeights, decode: Callable[[bytes], Weights]
) -> None:
    try:
        found = decode(data.draw(damaged(frame)))
    except WireError:
        return
    assert found.flat.tobytes() == new.weights.flat.tobytes()
