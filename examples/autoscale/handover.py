"""From the twin to the live pool: one client's model version, served under another's name.

As a person would, by `rl4sys-stream models export` and `models import --pin`.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from rl4sys_stream.errors import StreamError

__all__ = ["export_model", "import_model"]

URL_ENV: Final = "RL4SYS_STREAM_REDIS_URL"
TIMEOUT_S: Final = 60.0


def export_model(version: int, *, client: str, url: str, file: Path) -> None:
    """Write a version that a client has trained to a file.

    Args:
        version: Of the model.
        client: Who trained it.
        url: Of the broker; may hold a password.
        file: Where it goes, as .npz.

    Raises:
        StreamError: With what the command said.
    """
    _models(url, "export", str(version), "--client", client, "--out", str(file))


def import_model(file: Path, *, client: str, url: str) -> None:
    """Let another client serve the model in a file: its agents are held at it.

    The client learns nothing of this, and needs no worker.

    Args:
        file: What `export_model` wrote.
        client: Who is to serve it.
        url: Of the broker; may hold a password.

    Raises:
        StreamError: With what the command said.
    """
    reason = "the best version on validation weeks"
    _models(url, "import", str(file), "--client", client, "--pin", "--reason", reason)


def _models(url: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "rl4sys_stream", "models", *arguments]
    done = subprocess.run(
        command,
        env={**os.environ, URL_ENV: url},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise StreamError(f"models {arguments[0]} failed: {done.stderr.strip()}")
