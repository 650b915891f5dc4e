"""Trajectories and weights of all shapes, and ways to damage their bytes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from rl4sys_stream.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.wire.format import MAX_PRIOR
from rl4sys_stream.wire.grid import GridWeights, round_to_grid
from rl4sys_stream.wire.integers import LARGEST
from rl4sys_stream.wire.snapshot import Weights
from rl4sys_stream.wire.trajectory import BehaviorRun, End, Trajectory, TrajectorySpec

TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)
COUNTS = st.integers(0, (1 << 53) - 1)
SPECIAL_BITS = (
    0x00000000,  # 0.0
    0x80000000,  # -0.0
    0x00000001,  # the smallest subnormal
    0x807FFFFF,  # the largest negative subnormal
    0x7F7FFFFF,  # the largest finite number
    0x7F800000,  # infinity
    0xFF800000,
    0x7FC00000,  # a quiet NaN
    0xFFC12345,  # another, negative, with a payload
    0x7F800001,  # a signalling NaN
)


def finite(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Finite floats of every magnitude, subnormals and both zeros among them."""
    bits = rng.integers(0, 1 << 32, shape, np.uint32)
    values = bits.view(np.float32).copy()
    values[~np.isfinite(values)] = -0.0
    return values


@st.composite
def runs(draw: st.DrawFn, steps: int) -> tuple[BehaviorRun, ...]:
    """Behavior runs that add up to `steps`."""
    result = []
    while steps:
        length = draw(st.integers(1, steps))
        version = draw(COUNTS)
        result.append(BehaviorRun(version, draw(TOKENS) if version else "", length))
        steps -= length
    return tuple(result)


def formats() -> st.SearchStrategy[ActionFormat]:
    """Actions of every kind."""
    spaces: st.SearchStrategy[Space] = st.one_of(
        st.builds(Discrete, st.integers(1, 6)),
        st.builds(MultiDiscrete, st.lists(st.integers(1, 4), min_size=1, max_size=3)),
        st.builds(MultiBinary, st.integers(1, 4)),
        st.builds(Box, st.lists(st.integers(1, 3), max_size=2).map(tuple)),
    )
    return spaces.map(ActionFormat.of)


def _actions(
    rng: np.random.Generator, actions: ActionFormat, steps: int
) -> NDArray[np.int64] | NDArray[np.float32]:
    if actions.continuous:
        return finite(rng, (steps, actions.dim))
    drawn = rng.integers(0, actions.nvec, (steps, actions.dim))
    return drawn[:, 0] if actions.single else drawn


def _masks(
    rng: np.random.Generator, actions: ActionFormat, taken: NDArray[Any]
) -> NDArray[np.bool_]:
    masks = rng.random((len(taken), actions.choices)) < 0.5
    starts = np.cumsum(actions.nvec, dtype=np.int64) - np.array(actions.nvec)
    np.put_along_axis(masks, taken.reshape(-1, actions.dim) + starts, True, axis=1)
    return masks


@st.composite
def trajectories(draw: st.DrawFn) -> tuple[Trajectory, TrajectorySpec]:
    """A valid trajectory, and what its client's look like."""
    steps = draw(st.integers(1, 40))
    obs_dim, kind = draw(st.integers(1, 9)), draw(formats())
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    end = draw(st.sampled_from(End))
    actions = _actions(rng, kind, steps)
    masks = None
    if not kind.continuous and draw(st.booleans()):
        masks = _masks(rng, kind, actions)
    priors = None
    if not kind.continuous and draw(st.booleans()):
        priors = rng.uniform(-MAX_PRIOR, MAX_PRIOR, (steps, kind.choices)).astype(np.float32)
    has_final = end is not End.TERMINATED or draw(st.booleans())
    final_mask = None
    if has_final and not kind.continuous and draw(st.booleans()):
        final_mask = _masks(rng, kind, rng.integers(0, kind.nvec, (1, kind.dim)))[0]
    trajectory = Trajectory(
        observations=finite(rng, (steps, obs_dim)),
        actions=actions,
        rewards=finite(rng, (steps,)),
        log_probs=-np.abs(finite(rng, (steps,))),
        masks=masks,
        priors=priors,
        final_observation=finite(rng, (obs_dim,)) if has_final else None,
        final_mask=final_mask,
        end=end,
        behavior=draw(runs(steps)),
        episode=draw(COUNTS),
        offset=draw(COUNTS),
        created_ms=draw(COUNTS),
    )
    return trajectory, TrajectorySpec(obs_dim, kind, priors=True)


def assert_same_trajectory(left: Trajectory, right: Trajectory) -> None:
    """Equal in every bit, type and shape."""
    for name in Trajectory.__slots__:
        a, b = getattr(left, name), getattr(right, name)
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), name
        else:
            assert a == b, name


@st.composite
def weights_pairs(draw: st.DrawFn) -> tuple[Weights, Weights]:
    """Two sets of weights of one layout: any bits at all, or a small step apart."""
    shapes = draw(st.lists(st.lists(st.integers(1, 5), max_size=3), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    small_step = draw(st.booleans())
    base: dict[str, Any] = {}
    new: dict[str, Any] = {}
    for index, shape in enumerate(shapes):
        base[f"t{index}"] = any_bits(rng, shape)
        step = rng.integers(-3, 4, shape).astype(np.uint32)  # wraps
        bits = base[f"t{index}"].view(np.uint32) + step
        new[f"t{index}"] = bits.view(np.float32) if small_step else any_bits(rng, shape)
    return Weights.from_tensors(base), Weights.from_tensors(new)


def any_bits(rng: np.random.Generator, shape: list[int]) -> NDArray[np.float32]:
    """Any 32 bits as floats, every third one from `SPECIAL_BITS`."""
    bits = rng.integers(0, 1 << 32, shape, np.uint32)
    special = rng.choice(np.array(SPECIAL_BITS, np.uint32), shape)
    return np.asarray(np.where(rng.random(shape) < 0.3, special, bits), np.uint32).view(np.float32)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with a few bytes changed, removed or inserted, or cut; or other bytes altogether."""
    result = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(result) - 1, 0)))
        match draw(st.sampled_from(["set", "set", "delete", "insert", "cut"])):
            case "set" if result:
                result[place] = draw(st.integers(0, 255))
            case "delete":
                del result[place : place + draw(st.integers(1, 8))]
            case "insert":
                result[place:place] = draw(st.binary(min_size=1, max_size=8))
            case "cut":
                del result[place:]
            case _:
                pass
    return bytes(result)


def with_field(fields: Mapping[bytes, bytes], name: bytes, data: bytes) -> dict[bytes, bytes]:
    """A copy of `fields` in which `name` holds `data`."""
    return {**fields, name: data}


@st.composite
def grid_pairs(draw: st.DrawFn) -> tuple[GridWeights, GridWeights]:
    """Two sets of grid weights of one layout, near or far apart, each on grids of its own."""
    shapes = draw(st.lists(st.lists(st.integers(1, 9), max_size=3), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    magnitude = 2.0 ** draw(st.integers(-30, 20))
    step = draw(st.sampled_from([0.0, 1e-6, 1e-2, 1.0, 300.0]))
    start = {
        f"t{index}": np.asarray(magnitude * rng.standard_normal(shape), np.float32)
        for index, shape in enumerate(shapes)
    }
    moved = {
        name: np.asarray(
            tensor + step * magnitude * rng.standard_normal(tensor.shape) ** 3, np.float32
        )
        for name, tensor in start.items()
    }
    exponents = st.lists(st.integers(-40, 20), min_size=len(shapes), max_size=len(shapes))
    old = draw(exponents)
    new = old if draw(st.booleans()) else draw(exponents)
    return (
        round_to_grid(Weights.from_tensors(start), old),
        round_to_grid(Weights.from_tensors(moved), new),
    )


@st.composite
def whole_numbers(draw: st.DrawFn) -> NDArray[np.float32]:
    """Whole numbers of every size and density that a diff may hold."""
    count = draw(st.integers(1, 700))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    limit = draw(st.sampled_from([0, 1, 7, 8, 127, 128, LARGEST]))
    density = draw(st.sampled_from([0.002, 0.05, 0.5, 1.0]))
    values = rng.integers(-limit, limit + 1, count) * (rng.random(count) < density)
    if draw(st.booleans()):
        values[draw(st.integers(0, count - 1))] = draw(st.sampled_from([-LARGEST, LARGEST, 128]))
    return values.astype(np.float32)
