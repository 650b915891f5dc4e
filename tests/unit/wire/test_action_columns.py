"""Actions of every kind on the wire: their columns, and the refusal of what the space has not."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import ArrayLike, NDArray

from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.wire.trajectory import (
    BehaviorRun,
    End,
    Trajectory,
    TrajectorySpec,
    decode_trajectory,
    encode_trajectory,
)

F = np.float32
OF_TWO = TrajectorySpec(3, ActionFormat.of(MultiDiscrete((3, 2))))
OF_BITS = TrajectorySpec(3, ActionFormat.of(MultiBinary(2)))
OF_BOX = TrajectorySpec(3, ActionFormat.of(Box((1, 2), -1, 1)))
OF_ONE = TrajectorySpec(3, ActionFormat.of(Discrete(4)))


def entry(
    actions: ArrayLike,
    dtype: type[np.int64 | np.float32] = np.int64,
    *,
    masks: NDArray[np.bool_] | None = None,
    log_probs: ArrayLike = -1.0,
) -> dict[bytes, bytes]:
    """A terminated trajectory with these actions."""
    taken: NDArray[Any] = np.array(actions, dtype)
    steps = len(taken)
    trajectory = Trajectory(
        observations=np.zeros((steps, 3), F),
        actions=taken,
        rewards=np.zeros(steps, F),
        log_probs=np.broadcast_to(np.asarray(log_probs, F), (steps,)),
        masks=masks,
        final_observation=None,
        end=End.TERMINATED,
        behavior=(BehaviorRun(1, "t", steps),),
        episode=0,
        offset=0,
        created_ms=0,
    )
    return dict(encode_trajectory(trajectory))


def column(fields: Mapping[bytes, bytes], name: str) -> object:
    """What the header declares of one column."""
    return orjson.loads(fields[b"h"])["cols"][name]


@pytest.mark.parametrize(
    ("spec", "actions", "dtype", "declared"),
    [
        (OF_ONE, [3, 0], np.int64, ["<i8", []]),
        (OF_TWO, [[2, 1], [0, 0]], np.int64, ["<i8", [2]]),
        (OF_BITS, [[1, 1], [0, 1]], np.int64, ["<i8", [2]]),
        (OF_BOX, [[0.5, -7.0], [0.0, 3e38]], np.float32, ["<f4", [2]]),
    ],
)
def test_each_kind_has_its_column(spec, actions, dtype, declared):
    """Little-endian and row-major, and back as it was; real vectors go beyond their bounds."""
    fields = entry(actions, dtype)
    assert column(fields, "action") == declared
    assert fields[b"action"] == np.array(actions, declared[0]).tobytes()
    decoded = decode_trajectory(fields, spec)
    assert decoded.actions.dtype == dtype
    assert decoded.actions.tolist() == np.array(actions, dtype).tolist()


def test_one_choice_of_several_is_a_column_of_one():
    """A MultiDiscrete of one element is no Discrete."""
    lone = TrajectorySpec(3, ActionFormat.of(MultiDiscrete((4,))))
    assert decode_trajectory(entry([[3]]), lone).actions.tolist() == [[3]]
    for fields, spec in ((entry([3]), lone), (entry([[3]]), OF_ONE)):
        with pytest.raises(WireFormatError, match="column 'action' is declared as"):
            decode_trajectory(fields, spec)


@pytest.mark.parametrize(
    ("fields", "spec", "words"),
    [
        (entry([[0.5, 0.5]], np.float32), OF_TWO, r"<f4 \[2\] a step.*<i8 \[2\]"),
        (entry([0.5], np.float32), OF_ONE, r"<f4 \[\] a step.*<i8 \[\]"),
        (entry([[0, 1]]), OF_BOX, r"<i8 \[2\] a step.*<f4 \[2\]"),
        (entry([1]), OF_BOX, r"<i8 \[\] a step.*<f4 \[2\]"),
        (entry([[0, 0, 0]]), OF_TWO, r"<i8 \[3\] a step.*<i8 \[2\]"),
        (entry([[0]]), OF_BITS, r"<i8 \[1\] a step.*<i8 \[2\]"),
        (entry([[0.0] * 3], np.float32), OF_BOX, r"<f4 \[3\] a step.*<f4 \[2\]"),
    ],
)
def test_a_column_of_another_type_or_width_is_refused_by_both_names(fields, spec, words):
    """Bytes of the one read as the other would be actions, too."""
    with pytest.raises(WireFormatError, match=words):
        decode_trajectory(fields, spec)


@pytest.mark.parametrize(
    ("spec", "action"),
    [
        (OF_TWO, [0, 2]),
        (OF_TWO, [3, 0]),
        (OF_TWO, [-1, 0]),
        (OF_TWO, [0, -1]),
        (OF_TWO, [0, 1 << 62]),
        (OF_BITS, [0, 2]),
    ],
)
def test_a_choice_outside_of_its_own_range_is_refused(spec, action):
    """In any step and element: the others' ranges do not count."""
    with pytest.raises(WireFormatError, match="outside of 0 to"):
        decode_trajectory(entry([[0, 0], action]), spec)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_real_action_that_is_not_finite_is_refused(bad):
    """One of them would poison every weight."""
    with pytest.raises(WireFormatError, match="'action' holds a value that is not finite"):
        decode_trajectory(entry([[0, 0], [0, bad]], np.float32), OF_BOX)


def test_every_choice_must_be_allowed_by_its_own_part_of_the_mask():
    """Two steps, and a mask that forbids one choice at a time."""
    taken = [[2, 0], [1, 1]]
    rows = [[2, 3], [1, 4]]
    for step, row in enumerate(rows):
        masks = np.zeros((2, 5), np.bool_)
        for index, columns in enumerate(rows):
            masks[index, columns] = True
        assert decode_trajectory(entry(taken, masks=masks), OF_TWO).masks is not None
        for place in row:
            wrong = masks.copy()
            wrong[step, place] = False
            wrong[step, (place + 1) % 5] = True
            with pytest.raises(WireFormatError, match="mask forbids"):
                decode_trajectory(entry(taken, masks=wrong), OF_TWO)


def test_a_mask_has_a_column_for_every_choice():
    """One for each element would be a mask of something else."""
    with pytest.raises(WireFormatError, match=r"'mask' is declared as \|u1 \[2\]"):
        decode_trajectory(entry([[0, 0]], masks=np.ones((1, 2), np.bool_)), OF_TWO)


def test_real_vectors_have_no_mask_on_the_wire():
    """The learner has no use for one, so whoever sends it means something else."""
    fields = entry([[0.0, 0.0]], np.float32, masks=np.ones((1, 2), np.bool_))
    with pytest.raises(WireFormatError, match="column 'mask' is unknown"):
        decode_trajectory(fields, OF_BOX)


def test_only_a_density_may_be_above_one():
    """Of choices it is a probability, however many there are."""
    above = entry([[0.0, 0.0]], np.float32, log_probs=3.5)
    assert decode_trajectory(above, OF_BOX).log_probs.tolist() == [3.5]
    for spec in (OF_TWO, OF_BITS):
        with pytest.raises(WireFormatError, match="above 0"):
            decode_trajectory(entry([[0, 0]], log_probs=0.1), spec)
    with pytest.raises(WireFormatError, match="'log_prob' holds a value that is not finite"):
        decode_trajectory(entry([[0.0, 0.0]], np.float32, log_probs=np.inf), OF_BOX)


@pytest.mark.parametrize("space", [MultiDiscrete((3, 2)), MultiBinary(2), Box((2,))])
def test_actions_of_more_axes_are_not_encoded(space: Space):
    """The recorder's mistakes end at the recorder."""
    dtype = np.float32 if isinstance(space, Box) else np.int64
    with pytest.raises(WireFormatError, match="actions have shape"):
        entry(np.zeros((1, 1, 2)), dtype)
