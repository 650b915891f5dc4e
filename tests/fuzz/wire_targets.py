"""Targets: trajectories, weights, models' extras, checkpoints and statistics."""

import struct
from dataclasses import replace

import msgspec
import numpy as np
import xxhash

from rl4sys_stream.algorithms.base import AlgorithmState
from rl4sys_stream.algorithms.checkpoint import check_fits, decode_state, encode_state
from rl4sys_stream.algorithms.grid_chooser import GridState, ObservationPool
from rl4sys_stream.config import ClientSpec
from rl4sys_stream.errors import WireError, WireFormatError
from rl4sys_stream.policy.extras import BehaviorExtras, ObservationNormalization
from rl4sys_stream.spaces import Box, Discrete
from rl4sys_stream.wire.compact import encode_compact_diff, encode_compact_snapshot
from rl4sys_stream.wire.diff import encode_diff
from rl4sys_stream.wire.format import FLOAT32, INT64, UINT8
from rl4sys_stream.wire.frames import apply_any_diff, decode_any_snapshot
from rl4sys_stream.wire.grid import round_to_grid
from rl4sys_stream.wire.integers import pack_integers, unpack_integers
from rl4sys_stream.wire.planes import pack_planes, unpack_planes
from rl4sys_stream.wire.snapshot import TensorLayout, Weights, encode_snapshot
from rl4sys_stream.wire.tensor import decode_array
from rl4sys_stream.wire.trajectory import (
    BehaviorRun,
    End,
    EntryAddress,
    address_fields,
    decode_address,
    decode_trajectory,
    encode_trajectory,
)
from rl4sys_stream.worker.statistics import RolloutStatistics
from tests.fuzz.containers import pack, unpack
from tests.fuzz.mutations import zstd_bombs
from tests.fuzz.target import Target
from tests.unit.worker.entries import SPEC, trajectory

__all__ = ["WIRE_TARGETS"]

MAX_PARAMETERS = 20_000
PARAMETER_BYTES = 4 * 5
"""The words, one plane, and for a diff its steps and the result, a few at a time."""
_SNAPSHOT_HEADER = struct.Struct("<4sBBHIQQ")
_CHECKPOINT_PREFIX = struct.Struct("<4sBBHIQ")

BASE = Weights.from_tensors({
    "pi.0.weight": np.random.default_rng(0).normal(0, 0.1, (64, 20)).astype(np.float32),
    "pi.0.bias": np.zeros(64, np.float32),
    "scalar": np.full((), 3.0, np.float32),
})  # fmt: skip
NEW = Weights(BASE.layout, BASE.flat + np.float32(1e-3))
COUNT = BASE.layout.size
GRID_BASE = round_to_grid(BASE, [-9, -9, -9])
GRID_NEW = round_to_grid(NEW, [-10, -9, -3])
_COMPACT_HEADER = 48
CLIENT = ClientSpec(
    observation_space=Box((SPEC.obs_dim,)), action_space=Discrete(SPEC.actions.choices)
)
STATE = AlgorithmState(
    "PPO",
    {"num_timesteps": 2048, "rate": 3e-4},
    {
        "pi": np.arange(6, dtype=np.float32).reshape(2, 3),
        "mean": np.zeros(3),
        "steps": np.array(7, np.int64),
        "rng": np.frombuffer(b"0123456789abcdef", np.uint8),
    },
)


# -- trajectories --------------------------------------------------------------------------------


def _decode_entry(data: bytes) -> None:
    fields = dict(unpack(data))
    found = decode_trajectory(fields, SPEC)
    # What decodes is what an agent may have sent, so it can be sent again.
    decode_trajectory(dict(encode_trajectory(found)), SPEC)
    if sum(run.steps for run in found.behavior) != len(found.actions):
        raise AssertionError("the runs do not cover the steps")


def _decode_address(data: bytes) -> None:
    address = decode_address(dict(unpack(data)))
    if decode_address(dict(address_fields(address))) != address:
        raise AssertionError("an address does not survive its own encoding")


def _entries() -> tuple[bytes, ...]:
    plain = trajectory(12, behavior=((0, ""), (3, "1:ab")))
    cut = trajectory(5, end=End.CUT, episode=7)
    masked = replace(cut, masks=np.ones((5, SPEC.actions.choices), np.bool_))
    going_on = replace(masked, final_mask=np.ones(SPEC.actions.choices, np.bool_))
    guided = replace(masked, priors=np.full((5, SPEC.actions.choices), -1e3, np.float32))
    fallback = replace(plain, behavior=(BehaviorRun(0, "fallback", 12),))
    entries = (plain, cut, masked, going_on, guided, fallback)
    return tuple(pack(encode_trajectory(each)) for each in entries)


def _decode_message(data: bytes) -> None:
    found = decode_trajectory({b"pb": data}, SPEC)
    decode_trajectory(dict(encode_trajectory(found, "protobuf")), SPEC)


def _messages() -> tuple[bytes, ...]:
    """Honest ones, and some whose parts would be many times their size in memory."""
    entries = [decode_trajectory(dict(unpack(entry)), SPEC) for entry in _entries()]
    honest = [dict(encode_trajectory(each, "protobuf"))[b"pb"] for each in entries]
    header = (
        b"\x0a\xe8\xfb\x03\x08\x01\x10\x80\x80\x02\x20\x01"
        + b"\x1a\x00" * 32_496
        + b"\x2a\x80\x80\x08"
    )
    bombs = [
        header + bytes(4 << 15),  # as many runs as steps, all of them empty
        b"\x0a\x00" * 100_000,  # headers
        b"\xa8\x06\x01" * 50_000,  # fields that nobody knows
        b"\x0b" * 50_000,  # groups in one another
    ]
    return *honest, *bombs


# -- weights -------------------------------------------------------------------------------------


def _decode_snapshot(data: bytes) -> None:
    weights = decode_any_snapshot(data, max_parameters=MAX_PARAMETERS)
    if weights.layout.size > MAX_PARAMETERS:
        raise AssertionError("more parameters than allowed")
    weights.tensors()


def _decode_framed_snapshot(data: bytes) -> None:
    """A layout and planes inside a header that agrees with them, past the first checks."""
    fields = dict(unpack(data))
    layout, planes = fields.get(b"layout", b""), fields.get(b"planes", b"")
    codes = fields.get(b"codes", b"")  # of a compact one
    try:
        described = TensorLayout.from_json(layout)
        count, named = described.size, int(described.digest, 16)
    except WireError:
        count, named = COUNT, 0
    count = min(count, (1 << 64) - 1)
    kind, digest = (1, bytes(16)) if codes else (0, b"")
    header = _SNAPSHOT_HEADER.pack(
        b"RL4W", 1, kind, len(codes) % 65536, len(layout), count, named if codes else 0
    )
    _decode_snapshot(header + digest + layout + codes + planes)


def _decode_planes(data: bytes) -> None:
    words = unpack_planes(memoryview(data), COUNT)
    if words.shape != (COUNT,):
        raise AssertionError("another number of words")


def _planes() -> tuple[bytes, ...]:
    honest = pack_planes(BASE.flat.view(np.uint32))
    sections = [honest[4 : 4 + struct.unpack_from("<I", honest)[0]]] * 3
    return honest, *(
        b"".join(struct.pack("<I", len(part)) + part for part in (bomb, *sections))
        for bomb in zstd_bombs(COUNT)
    )


def _decode_tensor(data: bytes) -> None:
    dtype = (FLOAT32, INT64, UINT8)[data[0] % 3 if data else 0]
    shape = tuple(data[2 : 2 + (data[1] % 4 if len(data) > 1 else 0)])
    decode_array("column", data[6:], (dtype, shape))


def _snapshots() -> tuple[bytes, ...]:
    exact = tuple(encode_snapshot(weights) for weights in (BASE, NEW))
    return *exact, encode_compact_snapshot(GRID_NEW)


def _framed_snapshots() -> tuple[bytes, ...]:
    layout = BASE.layout.to_json()
    fields = [((b"layout", layout), (b"planes", planes)) for planes in _planes()]
    compact = [((b"codes", b"\x0f\x0f\x0f"), *each) for each in fields]
    return tuple(map(pack, (*fields, *compact)))


def _diffs() -> tuple[bytes, ...]:
    diff = encode_diff(BASE, NEW)
    return diff, encode_diff(BASE, BASE), *(diff[:40] + planes for planes in _planes())


def _integers() -> tuple[bytes, ...]:
    """Each layout, and attacks in the place of its sections."""
    rng = np.random.default_rng(3)
    dense = np.rint(rng.normal(0, 1, COUNT)).astype(np.float32)
    wide = dense * np.float32(40)
    wide[7] = 1 << 20
    honest = tuple(map(pack_integers, (dense, wide, dense * (rng.random(COUNT) < 0.02))))
    bombs = zstd_bombs(COUNT)
    sections = (struct.pack("<I", len(bomb)) + bomb + bytes(8) for bomb in bombs)
    heads = (b"\1", b"\2", b"\3" + struct.pack("<I", COUNT))
    return *honest, *(head + section for section in sections for head in heads)


def _decode_integers(data: bytes) -> None:
    changes = unpack_integers(memoryview(data), COUNT)
    values = np.zeros(COUNT, np.float32)
    values[slice(None) if changes.positions is None else changes.positions] = changes.values


def _compact_diffs() -> tuple[bytes, ...]:
    there, back = encode_compact_diff(GRID_BASE, GRID_NEW), encode_compact_diff(GRID_NEW, GRID_BASE)
    if there is None or back is None:
        raise AssertionError("these two have diffs")
    head = there[: _COMPACT_HEADER + len(GRID_BASE.exponents)]
    return there, *(head + integers for integers in _integers()), back


# -- what stands beside the weights ---------------------------------------------------------------


def _decode_extras(data: bytes) -> None:
    extras = BehaviorExtras.from_bytes(data)
    if BehaviorExtras.from_bytes(extras.to_bytes()).to_bytes() != extras.to_bytes():
        raise AssertionError("extras do not survive their own encoding")


def _decode_checkpoint(data: bytes) -> None:
    check_fits(decode_state(data), STATE)


def _decode_sealed_checkpoint(data: bytes) -> None:
    """A header and a payload under a digest that is right: whoever can write can digest."""
    fields = dict(unpack(data))
    header, payload = fields.get(b"header", b""), fields.get(b"payload", b"")
    digest = xxhash.xxh3_64_intdigest(header + payload)
    prefix = _CHECKPOINT_PREFIX.pack(b"RL4C", 1, 0, 0, len(header), digest)
    _decode_checkpoint(prefix + header + payload)


def _sealed_checkpoints() -> tuple[bytes, ...]:
    data = encode_state(STATE)
    length = _CHECKPOINT_PREFIX.unpack_from(data)[4]
    body = data[_CHECKPOINT_PREFIX.size :]
    return (pack(((b"header", body[:length]), (b"payload", body[length:]))),)


def _decode_grid_state(data: bytes) -> None:
    state = GridState.from_bytes(data)
    state.pool.with_newest(CLIENT, [trajectory(3)])
    GridState.from_bytes(state.to_bytes())


def _grid_states() -> tuple[bytes, ...]:
    pool = ObservationPool().with_newest(CLIENT, [trajectory(12)])
    state = GridState(
        exponents=(-7, -9), sensitivities=(0.5, None), next_probe=1, excess=0.9, pool=pool
    )
    odd = msgspec.structs.replace(pool, observations=pool.observations[:-1])
    short = msgspec.structs.replace(pool, masks=b"\1")
    damaged = (msgspec.structs.replace(state, pool=each) for each in (odd, short))
    return GridState().to_bytes(), state.to_bytes(), *(each.to_bytes() for each in damaged)


def _decode_statistics(data: bytes) -> None:
    statistics = RolloutStatistics.from_bytes(data)
    statistics.add("a", trajectory(3, end=End.CUT))
    statistics.add("a", trajectory(3))
    statistics.metrics()
    RolloutStatistics.from_bytes(statistics.to_bytes())


def _statistics() -> tuple[bytes, ...]:
    statistics = RolloutStatistics()
    for number, end in enumerate((End.CUT, End.TERMINATED, End.TRUNCATED, End.CUT)):
        statistics.add("agent", trajectory(4, end=end, episode=number))
    return statistics.to_bytes(), RolloutStatistics().to_bytes()


def _extras() -> tuple[bytes, ...]:
    norm = ObservationNormalization(np.zeros(8, np.float32), np.ones(8, np.float32), 10.0)
    return tuple(
        extras.to_bytes()
        for extras in (
            BehaviorExtras(norm),
            BehaviorExtras(epsilon=0.5, head="epsilon_greedy"),
            BehaviorExtras(),
        )
    )


def _tensors() -> tuple[bytes, ...]:
    return b"\0\2\2\3.." + bytes(24), b"\1\1\2..." + bytes(16), b"\2\0...." + b"\1"


def _addresses() -> tuple[bytes, ...]:
    return tuple(
        pack(address_fields(address))
        for address in (EntryAddress("agent-1", 1, 1), EntryAddress("x" * 128, (1 << 53) - 1, 9))
    )


_WEIGHTS_BYTES = (1 << 20) + MAX_PARAMETERS * PARAMETER_BYTES

WIRE_TARGETS = (
    Target("trajectory", _decode_entry, WireError, _entries(), honest=5, fields=True),
    Target("trajectory_message", _decode_message, WireError, _messages(), honest=6),
    Target("address", _decode_address, WireError, _addresses(), fields=True),
    Target("tensor", _decode_tensor, WireError, _tensors(), honest=3),
    Target(
        "snapshot",
        _decode_snapshot,
        WireError,
        _snapshots(),
        honest=3,
        fixed_bytes=_WEIGHTS_BYTES,
    ),
    Target(
        "snapshot_framed",
        _decode_framed_snapshot,
        WireError,
        _framed_snapshots(),
        honest=0,  # nobody digests for it
        fields=True,
        fixed_bytes=_WEIGHTS_BYTES,
    ),
    Target("diff", lambda data: apply_any_diff(BASE, data), WireError, _diffs()),
    Target(
        "compact_diff",
        lambda data: apply_any_diff(GRID_BASE.weights, data),
        WireError,
        _compact_diffs(),
    ),
    Target("integers", _decode_integers, WireError, _integers(), honest=3),
    Target("planes", _decode_planes, WireError, _planes()),
    Target("extras", _decode_extras, WireFormatError, _extras()),
    Target("checkpoint", _decode_checkpoint, WireError, (encode_state(STATE),)),
    Target(
        "checkpoint_sealed",
        _decode_sealed_checkpoint,
        WireError,
        _sealed_checkpoints(),
        fields=True,
    ),
    Target("grid_state", _decode_grid_state, WireFormatError, _grid_states(), honest=2),
    Target("statistics", _decode_statistics, WireFormatError, _statistics()),
)
