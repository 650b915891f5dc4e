"""The extras of a model: exact, covered by its digest, and safe to read from anyone."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.policy.extras import BehaviorExtras, ObservationNormalization
from tests.unit.wire.strategies import damaged, finite


def make(seed: int = 0, size: int = 3) -> BehaviorExtras:
    """Extras with a normalisation of any finite floats."""
    rng = np.random.default_rng(seed)
    scale = np.maximum(np.abs(finite(rng, (size,))), np.float32(1e-45))
    return BehaviorExtras(
        ObservationNormalization(finite(rng, (size,)), scale, 0.1), 0.05, "epsilon_greedy"
    )


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 20))
def test_extras_come_back_bit_for_bit(seed, size):
    """Or the digest of the model would not hold."""
    extras = make(seed, size)
    again = BehaviorExtras.from_bytes(extras.to_bytes())
    assert extras.normalization is not None
    assert again.normalization is not None
    assert again.normalization.mean.tobytes() == extras.normalization.mean.tobytes()
    assert again.normalization.scale.tobytes() == extras.normalization.scale.tobytes()
    assert (again.normalization.clip, again.epsilon) == (0.1, 0.05)
    assert again.to_bytes() == extras.to_bytes()


def test_empty_extras_are_the_documented_json():
    """A model without a normalisation."""
    data = BehaviorExtras().to_bytes()
    assert data == b'{"v":2,"head":"categorical","normalization":null,"epsilon":null}'
    again = BehaviorExtras.from_bytes(data)
    assert (again.normalization, again.epsilon) == (None, None)


def test_a_normalization_is_a_read_only_copy():
    """The learner goes on updating its own."""
    mean = np.zeros(2, np.float32)
    norm = ObservationNormalization(mean, np.ones(2, np.float32), 10.0)
    mean[0] = 1
    assert norm.mean.tolist() == [0, 0]
    with pytest.raises(ValueError, match="read-only"):
        norm.scale[0] = 2


F = np.float32


@pytest.mark.parametrize(
    ("mean", "scale", "clip"),
    [
        (np.zeros(2), np.ones(2, F), 1.0),
        (np.zeros((2, 1), F), np.ones((2, 1), F), 1.0),
        (np.zeros(2, F), np.ones(3, F), 1.0),
        (np.zeros(0, F), np.ones(0, F), 1.0),
        (np.array([np.nan, 0], F), np.ones(2, F), 1.0),
        (np.zeros(2, F), np.array([np.inf, 1], F), 1.0),
        (np.zeros(2, F), np.array([0, 1], F), 1.0),
        (np.zeros(2, F), np.array([-1, 1], F), 1.0),
        (np.zeros(2, F), np.ones(2, F), 0.0),
        (np.zeros(2, F), np.ones(2, F), np.nan),
        (np.zeros(2, F), np.ones(2, F), np.inf),
    ],
)
def test_what_cannot_normalise_is_refused(mean, scale, clip):
    """On the learner's side and on the agent's alike."""
    with pytest.raises(WireFormatError):
        ObservationNormalization(mean, scale, clip)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[" * 50_000,
        b"\xff",
        b'{"v":1,"normalization":null,"epsilon":null}',
        b'{"v":3,"head":"categorical","normalization":null,"epsilon":null}',
        b'{"v":2,"head":"dice","normalization":null,"epsilon":null}',
        b'{"v":2,"head":"categorical","normalization":null,"epsilon":0.1}',
        b'{"v":2,"head":"epsilon_greedy","normalization":null,"epsilon":null}',
        b'{"v":2,"head":"epsilon_greedy","normalization":null,"epsilon":1.5}',
        b'{"v":2,"head":"epsilon_greedy","normalization":null,"epsilon":-0.1}',
        b'{"v":2,"head":"categorical","normalization":null,"epsilon":null,"temperature":2}',
        b'{"v":1,"normalization":null}',
        (
            b'{"v":2,"head":"categorical","normalization":{"mean":"AAA=","scale":"AAA=","clip":1},'
            b'"epsilon":null}'
        ),
        (
            b'{"v":2,"head":"categorical","normalization":{"mean":"?","scale":"?","clip":1},'
            b'"epsilon":null}'
        ),
    ],
)
def test_malformed_extras_are_refused(data):
    """Unknown keys too: a key that changes how to act must not be ignored."""
    with pytest.raises(WireFormatError):
        BehaviorExtras.from_bytes(data)


ANY = st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers())


@settings(max_examples=500, deadline=None)
@given(
    damaged(make().to_bytes()) | st.binary(max_size=80),
    st.sampled_from(["mean", "scale", "clip"]),
    ANY,
)
def test_no_bytes_end_in_another_error(data, key, value):
    """Damaged, random, or well-formed JSON of the wrong meaning."""
    document = json.loads(make().to_bytes())
    document["normalization"][key] = value
    for candidate in (data, json.dumps(document).encode()):
        with contextlib.suppress(WireFormatError):
            BehaviorExtras.from_bytes(candidate)
