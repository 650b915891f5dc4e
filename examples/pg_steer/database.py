"""PostgreSQL as the application uses it: explain a query, run it under a hint, never lose the line.

The only module that talks to PostgreSQL's driver. Queries that fail or take too long are an
outcome here, not an exception: whoever learns from them needs a cost for them.
"""

import math
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

import msgspec
import psycopg
from psycopg.abc import Query as Sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_loads

from examples.pg_steer.features import RELATIONS, Explained, PlanNode
from examples.pg_steer.hints import DEFAULT, HINTS, Hint
from rl4sys_stream.errors import ExitCode, StreamError, UsageError

__all__ = [
    "Cost",
    "Database",
    "DatabaseError",
    "Outcome",
    "QueryError",
    "backend_cpu_ms",
    "check_url",
    "first_line",
]

TIMEOUT_S: Final = 3.0
FAILED_BLOCKS: Final = 1e6
"""What a query costs in blocks that did not end: more than any that does within the timeout."""

_LARGEST: Final = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname = ANY (current_schemas(false))
ORDER BY pg_relation_size(c.oid) DESC, c.relname LIMIT %s
"""


class DatabaseError(StreamError):
    """PostgreSQL cannot be reached, or not be used as it is. Trying again later may help."""

    exit_code: ClassVar[ExitCode] = ExitCode.UNAVAILABLE


class QueryError(UsageError):
    """A query that PostgreSQL refuses to plan, whatever the hint."""


def check_url(url: str) -> str:
    """`url`, if it is one of PostgreSQL's.

    Raises:
        UsageError: If it is not; does not repeat it, because it may hold a password.
    """
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise UsageError(
            "that is no URL of PostgreSQL: write postgresql://user@host:port/database (a password "
            "goes into PGPASSWORD or ~/.pgpass)"
        ) from None
    return url


class Cost(StrEnum):
    """What a query costs.

    Attributes:
        TIME: Milliseconds from asking to the last row, as whoever asks has to wait.
        CPU: Milliseconds that the server computes for it, as Linux counts them: what TIME would be
            on an idle machine with everything in memory, for those that are busy with something
            else. The server has to run on this machine.
        BLOCKS: 8 KiB blocks that it touches: read from cache or disk, and temporary ones written
            and read. The same every time on any machine, however busy, but for a few blocks of the
            catalogs when a connection is new: for tests.
    """

    TIME = "time"
    CPU = "cpu"
    BLOCKS = "blocks"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a query.

    Attributes:
        cost: In the database's unit; of a failed query the most that one can cost.
        rows: The answer; empty if it failed, or if blocks are counted.
        error: Why it failed, "" if it did not.
    """

    cost: float
    rows: tuple[TupleRow, ...] = ()
    error: str = ""


class Database:
    """One connection, which outlives whatever its queries do.

    Args:
        url: Of the server, as libpq takes it: `postgresql://user@host/database`.
        cost: What is measured.
        timeout_s: PostgreSQL gives up on a query after so long.
        schema: Where tables are looked for first; "" leaves that to the server.
        read_only: PostgreSQL refuses whatever would change something.

    Raises:
        UsageError: If the URL is none.
        DatabaseError: If there is no connection to be had.
    """

    def __init__(
        self,
        url: str,
        *,
        cost: Cost = Cost.TIME,
        timeout_s: float = TIMEOUT_S,
        schema: str = "",
        read_only: bool = False,
    ) -> None:
        self._url = check_url(url)
        self._read_only = read_only
        self.cost = cost
        self._timeout_s = timeout_s
        self._schema = schema
        self._connection = self._connect()
        self.relations = self._largest_relations()
        """Names of the largest tables, which observations tell apart; sorted."""

    @property
    def server_version(self) -> str:
        """PostgreSQL's version: "15.18"."""
        return self._connection.info.parameter_status("server_version") or "unknown"

    @property
    def worst(self) -> float:
        """What a failed query costs, in the unit of `Outcome.cost`."""
        return FAILED_BLOCKS if self.cost is Cost.BLOCKS else self._timeout_s * 1000.0

    def explain(self, sql: str) -> Explained:
        """What the planner expects of `sql` under each hint set; one round trip.

        Raises:
            QueryError: If PostgreSQL refuses the query.
            DatabaseError: If the connection is lost and cannot be made again.
        """
        message = "".join(
            f"{hint.prefix}EXPLAIN (FORMAT JSON) {sql}; {_reset(hint)}" for hint in HINTS
        )
        connection = self._live()
        began_ms = self._clock_ms()
        try:
            with connection.cursor() as cursor:
                set_json_loads(_read_plan, cursor)
                cursor.execute(_as_sql(message))
                plans = [cursor.fetchone()]
                while cursor.nextset():
                    if cursor.description is not None:
                        plans.append(cursor.fetchone())
        except psycopg.Error as error:
            if connection.closed:
                raise DatabaseError(f"PostgreSQL hung up: {first_line(error)}") from error
            raise QueryError(f"PostgreSQL refuses {sql!r}: {first_line(error)}") from error
        roots: list[PlanNode] = [row[0] for row in plans if row is not None]
        costs = tuple(root.total_cost for root in roots)
        return Explained(roots[DEFAULT], costs, self._clock_ms() - began_ms)

    def run(self, sql: str, hint: Hint) -> Outcome:
        """Answer `sql` with the planner under `hint`.

        Raises:
            DatabaseError: If the connection is lost and cannot be made again.
        """
        connection = self._live()
        counted = self.cost is Cost.BLOCKS
        wanted = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}" if counted else sql
        began_ms = self._clock_ms()
        try:
            with connection.cursor() as cursor:
                if counted:
                    set_json_loads(_read_plan, cursor)
                cursor.execute(_as_sql(hint.prefix + wanted))
                while cursor.description is None and cursor.nextset():
                    pass
                rows = cursor.fetchall() if cursor.description is not None else []
        except psycopg.Error as error:
            return Outcome(self.worst, error=first_line(error))
        took_ms = self._clock_ms() - began_ms
        if counted:
            return Outcome(min(_blocks(rows[0][0]), self.worst))
        return Outcome(min(took_ms, self.worst), tuple(rows))

    def close(self) -> None:
        """Hang up; safe to repeat."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _clock_ms(self) -> float:
        if self.cost is Cost.CPU:
            return backend_cpu_ms(self._connection.info.backend_pid)
        return time.perf_counter() * 1000.0

    def _live(self) -> psycopg.Connection[TupleRow]:
        """The connection, made anew if the server has ended it."""
        if self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> psycopg.Connection[TupleRow]:
        options = f"-c statement_timeout={math.ceil(self._timeout_s * 1000)}"
        if self._read_only:
            options += " -c default_transaction_read_only=on"
        if self._schema:
            options += f" -c search_path={self._schema},public"
        try:
            connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=10,
                options=options,
                application_name="pg_steer",
                prepare_threshold=None,  # several statements in one message cannot be prepared
            )
        except psycopg.Error as error:
            raise DatabaseError(
                f"cannot reach PostgreSQL: {first_line(error)}; is it running, and is the URL "
                "right?"
            ) from error
        return connection

    def _largest_relations(self) -> tuple[str, ...]:
        found = self._connection.execute(_LARGEST, (RELATIONS,)).fetchall()
        return tuple(sorted(str(name) for (name,) in found))


def backend_cpu_ms(pid: int) -> float:
    """Milliseconds that the process of a connection has computed so far.

    Args:
        pid: Its process id, on this machine.

    Raises:
        DatabaseError: If this is not Linux, or the server is elsewhere.
    """
    process = Path("/proc") / str(pid)
    try:
        # Linux counts what a process computes when it goes to sleep, a moment after it answered.
        while (process / "stat").read_text().rpartition(")")[2].split()[0] == "R":
            time.sleep(0)
        return int((process / "schedstat").read_text().split()[0]) / 1e6
    except (OSError, ValueError, IndexError) as error:
        raise DatabaseError(
            f"cannot read how much process {pid} computes: {error}; the cost `cpu` needs Linux and "
            "a server on this machine, `time` does not"
        ) from error


def _reset(hint: Hint) -> str:
    return "".join(f"SET LOCAL {setting} TO DEFAULT; " for setting in hint.disabled)


def _as_sql(text: str) -> Sql:
    """Queries are the application's own; psycopg wants literals, to keep strangers' text out."""
    return text.encode()


class _Explanation(msgspec.Struct, frozen=True):
    plan: PlanNode = msgspec.field(name="Plan")


def _read_plan(text: str | bytes) -> PlanNode:
    (explanation,) = msgspec.json.decode(text, type=tuple[_Explanation])
    return explanation.plan


def _blocks(plan: PlanNode) -> float:
    temporary = plan.temp_read_blocks + plan.temp_written_blocks
    return float(plan.shared_hit_blocks + plan.shared_read_blocks + temporary)


def first_line(error: psycopg.Error) -> str:
    """What PostgreSQL or its driver says, without the hints that follow."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
