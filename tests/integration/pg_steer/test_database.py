"""Explaining and running queries on a real server; what fails leaves the connection as it was."""

import secrets
from itertools import islice

import psycopg
import pytest

from examples.pg_steer.data import SCHEMA, load_flights
from examples.pg_steer.database import (
    FAILED_BLOCKS,
    Cost,
    Database,
    DatabaseError,
    QueryError,
)
from examples.pg_steer.features import observe
from examples.pg_steer.hints import HINTS
from examples.pg_steer.workload import TemplateWorkload
from rl4sys_stream.errors import UsageError
from tests.integration.pg_steer.conftest import MONTHS

pytestmark = pytest.mark.integration

COUNT = "SELECT count(*) FROM flights WHERE month = 1"
ENDLESS = "SELECT count(*) FROM generate_series(1, 1000000000)"
BROKEN_LATE = "SELECT 1 / (count(*) - count(*)) FROM flights"


@pytest.fixture
def database(postgres_url):
    """A connection that gives up after 0.3 s."""
    with Database(postgres_url, schema=SCHEMA, timeout_s=0.3) as opened:
        yield opened


@pytest.fixture
def patient(postgres_url):
    """One whose queries end, however busy the machine is."""
    with Database(postgres_url, schema=SCHEMA, timeout_s=60.0) as opened:
        yield opened


@pytest.fixture
def counting(postgres_url):
    """One that counts blocks."""
    with Database(postgres_url, schema=SCHEMA, cost=Cost.BLOCKS) as opened:
        yield opened


def test_the_tables_are_loaded_once(postgres_url, patient):
    """27,004 flights in January; loading again changes nothing."""
    load_flights(postgres_url, months=MONTHS)
    assert patient.run(COUNT, HINTS[0]).rows == ((27_004,),)
    assert patient.relations == ("airlines", "airports", "flights", "planes", "weather")


def test_a_schema_with_other_flights_is_refused_and_says_what_to_do(postgres_url):
    """Two months would pass for twelve, and their figures with them."""
    with pytest.raises(DatabaseError, match="holds 2 months of flights, not 12 months: `DROP SCH"):
        load_flights(postgres_url, months=12)


def test_a_schema_of_that_name_without_flights_is_refused(postgres_url):
    """Instead of a run whose every query fails."""
    name = f"empty_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    url = postgres_url.replace("///postgres?", f"///{name}?")
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(f"CREATE SCHEMA {SCHEMA}".encode())
    with pytest.raises(DatabaseError, match="holds no flights"):
        load_flights(url, months=MONTHS)


@pytest.mark.parametrize("url", ["postgres//me:sekret@h/x", "host=h passwort=sekret"])
def test_what_is_no_url_is_refused_without_a_word_of_it(url):
    """It may hold a password, and what libpq says of it repeats it."""
    with pytest.raises(UsageError, match="write postgresql://") as refused:
        Database(url)
    assert "sekret" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_a_password_that_is_wrong_is_not_shown(postgres_url):
    """Nor is one that nobody asks for because nothing listens."""
    with pytest.raises(DatabaseError, match="cannot reach PostgreSQL") as refused:
        Database("postgresql://me:sekret@127.0.0.1:1/x")
    assert "sekret" not in str(refused.value)


def test_read_only_nothing_is_changed(postgres_url):
    """Somebody's file of queries is run many times over; a second statement in a line counts."""
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute("CREATE TABLE precious AS SELECT 1 AS id")
    with Database(postgres_url, read_only=True) as careful:
        with pytest.raises(QueryError, match="read-only"):
            careful.explain("SELECT 1; DROP TABLE precious")
        outcome = careful.run("DELETE FROM precious", HINTS[0])
        assert (outcome.cost, outcome.rows) == (careful.worst, ())
        assert "read-only" in outcome.error
        assert careful.run("SELECT count(*) FROM precious", HINTS[0]).rows == ((1,),)


def test_every_template_can_be_explained_and_seen(database):
    """Under every hint, in one go."""
    for query in islice(TemplateWorkload(0).training(1), 60):
        explained = database.explain(query.sql)
        assert len(explained.costs) == len(HINTS)
        assert explained.costs[0] == explained.plan.total_cost
        assert observe(explained, database.relations).shape == (66,)


def test_a_hint_changes_the_plan_and_not_the_answer(patient, counting):
    """The index on the distance is a detour, and a hint avoids it."""
    sql = "SELECT max(distance) FROM flights WHERE dest = 'BOS'"
    assert len({patient.run(sql, hint).rows for hint in HINTS}) == 1
    assert len({counting.run(sql, hint).cost for hint in HINTS}) > 1


def test_the_blocks_of_a_query_are_the_same_every_time(counting):
    """Which makes a test of learning possible; the first time a connection reads catalogs, too."""
    for query in islice(TemplateWorkload(0).training(2), 10):
        for hint in HINTS:
            counting.run(query.sql, hint)
            first, again = (counting.run(query.sql, hint).cost for _ in range(2))
            assert first == again > 0


def test_a_hint_ends_with_its_query(database):
    """Nothing of it is left in the connection, not after a failure either."""
    for sql in (COUNT, BROKEN_LATE, ENDLESS):
        database.run(sql, HINTS[1])
        assert database.run("SHOW enable_nestloop", HINTS[0]).rows == (("on",),)


def test_a_query_out_of_time_costs_the_whole_timeout_and_the_connection_lives(database):
    """The reward is defined, and the next query is answered."""
    outcome = database.run(ENDLESS, HINTS[0])
    assert "timeout" in outcome.error
    assert outcome.cost == database.worst == 300.0
    assert database.run(COUNT, HINTS[0]).error == ""


def test_a_query_that_fails_on_the_way_costs_as_much(database, counting):
    """It had no answer for the user either."""
    outcome = database.run(BROKEN_LATE, HINTS[0])
    assert outcome.error == "division by zero"
    assert outcome.cost == database.worst
    assert counting.run(BROKEN_LATE, HINTS[0]).cost == FAILED_BLOCKS


def test_a_query_that_nobody_can_plan_is_the_users_error(database):
    """Nothing is decided, so nothing is learned; the connection lives."""
    with pytest.raises(QueryError, match="no_such_table"):
        database.explain("SELECT * FROM no_such_table")
    assert database.run("SHOW enable_seqscan", HINTS[0]).rows == (("on",),)


def test_a_connection_that_the_server_ends_is_made_again(postgres_url, database):
    """The query that it hits fails and has a cost; the next one is answered."""
    (pid,) = database.run("SELECT pg_backend_pid()", HINTS[0]).rows[0]
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    assert database.run(COUNT, HINTS[0]).cost == database.worst
    assert database.run(COUNT, HINTS[0]).rows == ((27_004,),)


def test_the_cpu_of_a_query_is_counted(postgres_url):
    """More rows, more of it."""
    with Database(postgres_url, schema=SCHEMA, cost=Cost.CPU, timeout_s=30) as computing:
        small = computing.run("SELECT sum(n) FROM generate_series(1, 1000) n", HINTS[0])
        large = computing.run("SELECT sum(n) FROM generate_series(1, 300000) n", HINTS[0])
    assert 0.0 < small.cost < large.cost


def test_a_server_that_is_not_there_is_named():
    """Before anything else is started."""
    with pytest.raises(DatabaseError, match="cannot reach PostgreSQL"):
        Database("postgresql://127.0.0.1:1/none")
