"""The vectors are what they were: other implementations rely on them."""

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.conformance.loading import FOLDER

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "1fd28d7974f8868d50b30754fd044fa196b91a862d74ea221665b7a8b38d1db9"
MAX_BYTES = 300_000


def files() -> dict[str, bytes]:
    """Name to content of all files of the vectors."""
    paths = sorted(path for path in FOLDER.rglob("*") if path.is_file())
    return {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in paths}


def test_the_vectors_are_frozen():
    """A change of bytes that is meant goes into the next version's folder."""
    digest = hashlib.sha256()
    for name, data in files().items():
        digest.update(f"{name} {len(data)}\n".encode() + data)
    assert digest.hexdigest() == DIGEST


def test_the_vectors_are_small():
    """They travel with every implementation."""
    assert sum(map(len, files().values())) < MAX_BYTES


def test_the_generator_makes_the_vectors_that_are_there():
    """So that nobody wonders where one of them is from."""
    done = subprocess.run(
        [sys.executable, "-m", "clients.conformance.generate", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
