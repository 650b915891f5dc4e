"""A real PostgreSQL for each pytest process, from the wheel, with two months of flights."""

from collections.abc import Iterator

import pytest

from examples.pg_steer.data import load_flights
from examples.pg_steer.server import private_server, programs_of_the_wheel

MONTHS = 2


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Its URL. A missing wheel is a failure, as everywhere here."""
    with private_server(programs_of_the_wheel()) as url:
        load_flights(url, months=MONTHS)
        yield url
