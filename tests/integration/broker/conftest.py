"""A bench for every test of this folder."""

import pytest

from tests.integration.broker.bench import Bench


@pytest.fixture
def bench(broker, client_name):
    """A client with a lease and no head."""
    return Bench.of(broker, client_name)
