"""The column of prior logits: optional, bounded, and refused where nothing could use it."""

from dataclasses import replace

import numpy as np
import orjson
import pytest

from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.spaces import Box
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.wire.format import MAX_PRIOR
from rl4sys_stream.wire.trajectory import (
    Trajectory,
    TrajectorySpec,
    decode_trajectory,
    encode_trajectory,
)
from tests.unit.wire.test_trajectory import SPEC, make

GUIDED = replace(SPEC, priors=True)


def priors(value: float = 0.5) -> np.ndarray:
    """Float32 [5, 4], one element of them `value`."""
    found = np.zeros((5, 4), np.float32)
    found[3, 2] = value
    return found


def entry(trajectory: Trajectory) -> dict[bytes, bytes]:
    """The fields of `trajectory`."""
    return dict(encode_trajectory(trajectory))


def test_priors_are_a_column_beside_the_mask():
    """Little-endian float32, one logit for each choice."""
    fields = entry(make(priors=priors()))
    assert orjson.loads(fields[b"h"])["cols"]["prior"] == ["<f4", [4]]
    assert fields[b"prior"] == priors().astype("<f4").tobytes()
    decoded = decode_trajectory(fields, GUIDED).priors
    assert decoded is not None
    assert decoded.tolist() == priors().tolist()


def test_entries_without_priors_are_as_they_always_were():
    """Agents of before there was the column, and steps without one."""
    fields = entry(make())
    assert b"prior" not in fields
    assert "prior" not in orjson.loads(fields[b"h"])["cols"]
    assert decode_trajectory(fields, GUIDED).priors is None


def test_a_learner_that_cannot_use_priors_refuses_them():
    """Trained on without them, every probability would be another one."""
    with pytest.raises(WireFormatError, match="column 'prior' is unknown"):
        decode_trajectory(entry(make(priors=priors())), SPEC)
    box = TrajectorySpec(3, ActionFormat.of(Box((4,))), priors=True)
    vectors = make(actions=np.zeros((5, 4), np.float32), masks=None, priors=priors())
    with pytest.raises(WireFormatError, match="column 'prior' is unknown"):
        decode_trajectory(entry(vectors), box)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, MAX_PRIOR + 1, -3e38])
def test_a_prior_beyond_its_range_is_refused(bad):
    """It would poison the update, or drown what the network says."""
    edge = entry(make(priors=priors(-MAX_PRIOR)))
    assert decode_trajectory(edge, GUIDED).priors is not None
    with pytest.raises(WireFormatError, match="'prior' holds a logit beyond ±1000"):
        decode_trajectory(entry(make(priors=priors(bad))), GUIDED)


def test_a_column_of_another_width_or_length_is_refused_on_both_sides():
    """One logit for each choice, one row for each step."""
    with pytest.raises(WireFormatError, match=r"'prior' is declared as <f4 \[3\] a step"):
        decode_trajectory(entry(make(priors=priors()[:, :3].copy())), GUIDED)
    with pytest.raises(WireFormatError, match=r"priors of shape \(4, 4\) for 5 steps"):
        encode_trajectory(make(priors=priors()[:4]))
    cut = entry(make(priors=priors()))
    cut[b"prior"] = cut[b"prior"][:-4]
    with pytest.raises(WireFormatError, match="'prior' has 76 bytes"):
        decode_trajectory(cut, GUIDED)
