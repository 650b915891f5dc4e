"""The queries: ten parametric templates over nycflights13, or the lines of a file.

Queries that an agent is judged by never occur in its training: held-out ones come from a generator
of their own, and a training query that happens to read the same is drawn again.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from examples.pg_steer.templates import TEMPLATES, Query, Template
from rl4sys_stream.errors import ConfigError

__all__ = ["FileWorkload", "TemplateWorkload", "Workload"]

HELD_OUT_SEED: Final = "held out"
"""The same for every training seed, so that all are judged by the same queries."""
MIN_FILE_QUERIES: Final = 4


class Workload(Protocol):
    """Queries to train on, and others to be judged by."""

    def training(self, seed: int) -> Iterator[Query]:
        """Training queries without end; the same for the same seed."""
        ...

    def held_out(self, count: int) -> tuple[Query, ...]:
        """The first `count` queries that no training draws, or as many as there are."""
        ...


class TemplateWorkload:
    """Queries from templates, each as often as any other.

    Args:
        held_out_count: Held-out queries that training avoids.
        templates: What to ask; a test takes fewer.
    """

    def __init__(self, held_out_count: int, templates: tuple[Template, ...] = TEMPLATES) -> None:
        self._templates = templates
        rng = random.Random(HELD_OUT_SEED)  # noqa: S311 - a workload, no secret
        self._held_out = tuple(rng.choice(templates).draw(rng) for _ in range(held_out_count))

    def held_out(self, count: int) -> tuple[Query, ...]:
        """See `Workload.held_out`."""
        return self._held_out[:count]

    def training(self, seed: int) -> Iterator[Query]:
        """See `Workload.training`."""
        avoided = {query.sql for query in self._held_out}
        rng = random.Random(f"training {seed}")  # noqa: S311 - a workload, no secret
        while True:
            query = rng.choice(self._templates).draw(rng)
            if query.sql not in avoided:
                yield query


class FileWorkload:
    """Queries of your own: one SQL statement a line; every fourth, after shuffling, is held out.

    Args:
        path: UTF-8 text; empty lines and those that begin with `--` are left out.

    Raises:
        ConfigError: If the file cannot be read, or has too few different queries.
    """

    def __init__(self, path: Path) -> None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the queries in {path}: {error}") from error
        stripped = (line.strip().rstrip(";") for line in lines)
        unique = dict.fromkeys(sql for sql in stripped if sql and not sql.startswith("--"))
        if len(unique) < MIN_FILE_QUERIES:
            raise ConfigError(
                f"{path} has {len(unique)} different queries, and learning needs "
                f"{MIN_FILE_QUERIES} at least, better hundreds: write one SQL statement a line"
            )
        queries = [Query(path.stem, sql) for sql in unique]
        random.Random(HELD_OUT_SEED).shuffle(queries)  # noqa: S311 - a workload, no secret
        quarter = len(queries) // MIN_FILE_QUERIES
        self._held_out, self._training = tuple(queries[:quarter]), queries[quarter:]

    def held_out(self, count: int) -> tuple[Query, ...]:
        """See `Workload.held_out`."""
        return self._held_out[:count]

    def training(self, seed: int) -> Iterator[Query]:
        """See `Workload.training`."""
        rng = random.Random(f"training {seed}")  # noqa: S311 - a workload, no secret
        while True:
            yield rng.choice(self._training)
