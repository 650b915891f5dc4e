"""Worker processes for the fault tests."""

import pytest

from tests.integration.worker.world import worlds
from tests.integration.worker.zygote import shared_zygote


@pytest.fixture
def make_world(tmp_path):
    """Makes clients, on any broker."""
    yield from worlds(tmp_path, shared_zygote())


@pytest.fixture
def world(make_world, redis_url, client_name):
    """A fresh client on the shared broker."""
    return make_world(redis_url, client_name)
