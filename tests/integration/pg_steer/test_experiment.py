"""The experiment on a database and queries of one's own."""

import secrets
from pathlib import Path

import psycopg
import pytest

from examples.pg_steer.experiment import PgSteerOptions, measure_judges, open_database
from examples.pg_steer.workload import FileWorkload
from rl4sys_stream.cli.demo.systems import ProgressLine, SystemOptions
from rl4sys_stream.clock import SystemClock
from rl4sys_stream.errors import ConfigError

pytestmark = pytest.mark.integration


@pytest.fixture
def own_url(postgres_url):
    """A database with one table of somebody's."""
    name = f"own_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    url = postgres_url.replace("///postgres?", f"///{name}?")
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("CREATE TABLE orders AS SELECT n AS id FROM generate_series(1, 2000) n")
    return url


def options_for(url: str, queries: Path) -> PgSteerOptions:
    """Few runs of each query."""
    return PgSteerOptions(
        system=SystemOptions(seed=1, out=queries.parent),
        postgres_url=url,
        queries=queries,
        repeats=1,
        static=4,
    )


def judge(options: PgSteerOptions):
    """What an agent would be compared with, and the tables that it would see."""
    line = ProgressLine(SystemClock(), plain=True)
    assert options.queries is not None
    with open_database(options, line) as database:
        judges = measure_judges(options, database, FileWorkload(options.queries), line)
        return judges, database.relations


def test_own_queries_run_on_own_tables_and_nothing_is_loaded(own_url, tmp_path):
    """A held-out query that the database refuses is left out."""
    path = tmp_path / "orders.sql"
    good = [f"SELECT count(*) FROM orders WHERE id < {number}" for number in range(39)]
    path.write_text("\n".join([*good, "SELECT nonsense"]))
    judges, relations = judge(options_for(own_url, path))
    assert relations == ("orders",)
    assert len(judges.held_out.queries) in {9, 10}
    assert (judges.held_out.costs > 0).all()
    with psycopg.connect(own_url) as owner:
        found = owner.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'nycflights13'")
        assert found.fetchone() == (0,)


def test_queries_of_another_database_are_an_error(own_url, tmp_path):
    """Instead of a training on nothing."""
    path = tmp_path / "elsewhere.sql"
    path.write_text("\n".join(f"SELECT {number} FROM elsewhere" for number in range(8)))
    with pytest.raises(ConfigError, match="refuses every query"):
        judge(options_for(own_url, path))
