"""The fetched trace is the right one, or it is refused."""

import io
import tarfile
from pathlib import Path

import pytest

from examples.batch_sched.data import MEMBER, extract, gaia_trace
from rl4sys_stream.errors import ConfigError


def archive(path: Path, name: str, content: bytes) -> Path:
    """An archive with one file."""
    with tarfile.open(path, "w:gz") as files:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        files.addfile(member, io.BytesIO(content))
    return path


def test_a_kept_file_that_has_changed_is_named(tmp_path):
    """Nothing is fetched in its place unasked."""
    kept = tmp_path / "rl4sys-stream" / "UniLu-Gaia-2014-2.swf"
    kept.parent.mkdir()
    kept.write_text("; half of it\n")
    with pytest.raises(ConfigError, match=r"UniLu-Gaia-2014-2\.swf is not the trace.*delete it"):
        gaia_trace({"XDG_CACHE_HOME": str(tmp_path)})


@pytest.mark.parametrize("name", [MEMBER, "another.swf"])
def test_an_archive_with_another_trace_leaves_nothing_behind(tmp_path, name):
    """Neither the file nor a half of it."""
    path = archive(tmp_path / "package.tar.gz", name, b"; another trace\n")
    target = tmp_path / "cache" / "trace.swf"
    with pytest.raises(ConfigError, match=r"is not the trace|has no"):
        extract(path, target)
    assert not target.parent.exists() or not list(target.parent.iterdir())


def test_what_is_no_archive_is_refused(tmp_path):
    """An error page, for example."""
    path = tmp_path / "package.tar.gz"
    path.write_text("<html></html>")
    with pytest.raises(ConfigError, match=r"package\.tar\.gz has no"):
        extract(path, tmp_path / "trace.swf")
