"""Discrete observations: one-hot, or a named error whatever the application gives."""

import numpy as np
import pytest

from rl4sys_stream.errors import ObservationError
from rl4sys_stream.spaces import Discrete, flatten


@pytest.mark.parametrize(
    "bad", [float("nan"), float("inf"), "abc", None, 1.5, -1, 3, True, 1j, [0, 1]]
)
def test_what_is_no_state_is_an_observation_error(bad):
    """Never a bare ValueError, TypeError or OverflowError of numpy's or Python's."""
    with pytest.raises(ObservationError):
        flatten(Discrete(3), bad)


def test_a_state_becomes_one_hot():
    """Also from a numpy scalar or a one-element array."""
    for state in (2, 2.0, np.int64(2), np.array([2])):
        assert flatten(Discrete(3), state).tolist() == [0.0, 0.0, 1.0]
