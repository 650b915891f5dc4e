"""From the twin to the live pool: one client's model version, served under another's name."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from rl4sys_stream.errors import StreamError

__all__ = ["hand_over"]

URL_ENV: Final = "RL4SYS_STREAM_REDIS_URL"
TIMEOUT_S: Final = 60.0


def hand_over(version: int, *, source: str, target: str, url: str, file: Path) -> None:
    """Export a version, import it as another client's newest one, and hold its agents at it.

    As a person would, by `rl4sys-stream models export` and `models import --pin`. The target learns
    nothing of this, and needs no worker.

    Args:
        version: Of the model.
        source: The client that trained it.
        target: The client that is to serve it.
        url: Of the broker of both; may hold a password.
        file: Where the model is kept, as .npz.

    Raises:
        StreamError: With what the command said.
    """
    _models(url, "export", str(version), "--client", source, "--out", str(file))
    reason = f"version {version} of {source}, the best on validation weeks"
    _models(url, "import", str(file), "--client", target, "--pin", "--reason", reason)


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
