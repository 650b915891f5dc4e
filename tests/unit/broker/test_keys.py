"""Key names: one slot a client, and no client in another's."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from rl4sys_stream.broker.keys import CLIENTS_KEY, ClientKeys
from rl4sys_stream.errors import ConfigError

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


def all_keys(keys: ClientKeys) -> list[str]:
    """Every key and channel of a client."""
    fixed = [value for name, value in vars(keys).items() if name not in {"client", "_base"}]
    return [*fixed, keys.model(3, "5:ab"), keys.checkpoint(3, "5:ab")]


@given(NAMES)
def test_all_keys_of_a_client_lie_in_one_cluster_slot(name):
    """Scripts and transactions over them work in a cluster."""
    keys = all_keys(ClientKeys(name))
    assert len(set(keys)) == len(keys) == 17
    assert {key_slot(key.encode()) for key in keys} == {key_slot(name.encode())}


@given(NAMES, NAMES)
def test_the_pattern_finds_a_clients_keys_and_no_others(one, other):
    """Deleting a client is a scan for its pattern."""
    pattern = ClientKeys(one).pattern.replace("[", "[[]")
    for key in all_keys(ClientKeys(one)):
        assert fnmatch.fnmatchcase(key, pattern)
    assert not fnmatch.fnmatchcase(CLIENTS_KEY, pattern)
    if one != other:
        assert not any(fnmatch.fnmatchcase(key, pattern) for key in all_keys(ClientKeys(other)))


@pytest.mark.parametrize("name", ["", "a b", "{a}", "a}b", "a*", "../a", "a:b", "ä", "a\n"])
def test_a_name_that_could_break_out_is_refused(name):
    """Braces would move the hash tag, stars would widen the pattern."""
    with pytest.raises(ConfigError, match="client_id"):
        ClientKeys(name)
