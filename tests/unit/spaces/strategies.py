"""Any space, for property tests."""

from hypothesis import strategies as st

from rl4sys_stream.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

BOUNDS = st.none() | st.floats(-1e6, 1e6)


@st.composite
def boxes(draw):
    """Any, with bounds of all sorts."""
    shape = tuple(draw(st.lists(st.integers(1, 5), max_size=3)))
    low, high = draw(BOUNDS), draw(BOUNDS)
    if low is not None and high is not None and low >= high:
        low = None
    space = Box(shape, low, high)
    if low is not None and shape == (3,):
        return Box(shape, (low - 2.0, low - 1.0, low), high)
    return space


def spaces() -> st.SearchStrategy[Space]:
    """Any valid one, some levels deep."""
    leaves = (
        boxes()
        | st.builds(Discrete, st.integers(1, 1000))
        | st.builds(MultiDiscrete, st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple))
        | st.builds(MultiBinary, st.integers(1, 20))
    )
    keys = st.text("abcdefgh_ é[']", min_size=1, max_size=5)
    return st.recursive(
        leaves,
        lambda inner: (
            st.builds(Dict, st.dictionaries(keys, inner, min_size=1, max_size=3))
            | st.builds(Tuple, st.lists(inner, min_size=1, max_size=3).map(tuple))
        ),
        max_leaves=6,
    )
