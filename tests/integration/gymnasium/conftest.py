"""A client of one's own at the shared server."""

from collections.abc import Iterator

import pytest

from tests.integration.agent.world import World


@pytest.fixture
def world(redis_url: str, client_name: str) -> Iterator[World]:
    """A client that no other test uses."""
    made = World(redis_url, client_name)
    yield made
    made.close()
