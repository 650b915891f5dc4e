"""Entry ids are numbers, not text."""

from hypothesis import given
from hypothesis import strategies as st

from rl4sys_stream.broker.commit import sort_ids
from rl4sys_stream.broker.lease import token_epoch


def test_ids_sort_by_number():
    """Text order would put 10 before 9."""
    assert sort_ids(["10-0", "9-11", "9-2", "9-0"]) == ["9-0", "9-2", "9-11", "10-0"]


@given(st.lists(st.tuples(st.integers(0, 1 << 63), st.integers(0, 1 << 63))))
def test_ids_sort_as_the_stream_does(ids):
    """Whatever their size."""
    texts = [f"{ms}-{n}" for ms, n in ids]
    assert sort_ids(texts) == [f"{ms}-{n}" for ms, n in sorted(ids)]


def test_the_epoch_of_a_token_is_its_number():
    """Anything else than a token is older than every lineage."""
    assert token_epoch("12:ab") == 12
    assert [token_epoch(text) for text in ("", "fallback", ":", "-1:x", "²:x")] == [0, 0, 0, 0, 0]
