"""The run folder: what a demo leaves behind."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rl4sys_stream.errors import UsageError

__all__ = ["RunFolder", "make_run_folder"]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A folder of its own for each run.

    Attributes:
        path: `<client>-<UTC time>-seed<seed>`, absolute.
        client: Name of the client.
        film_name: What the film is called.
    """

    path: Path
    client: str
    film_name: str = "film.gif"

    @property
    def definitions(self) -> Path:
        """Folder with the definition of the client as this run uses it."""
        return self.path / "definition"

    @property
    def definition(self) -> Path:
        """That definition."""
        return self.definitions / f"{self.client}.json"

    @property
    def learning_curve(self) -> Path:
        """Returns and versions over environment steps."""
        return self.path / "learning_curve.png"

    @property
    def film(self) -> Path:
        """The trained policy, filmed."""
        return self.path / self.film_name

    @property
    def tensorboard(self) -> Path:
        """Folder for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def summary(self) -> Path:
        """Everything in numbers."""
        return self.path / "summary.json"

    @property
    def episodes(self) -> Path:
        """The training episodes, one list a column."""
        return self.path / "episodes.json"

    def application_log(self, number: int) -> Path:
        """Log of one application."""
        return self.path / ("application.log" if number == 0 else f"application-{number}.log")


def make_run_folder(
    out: Path,
    client: str,
    definition: Mapping[str, object],
    *,
    seed: int,
    wall_ms: int,
    film_name: str = "film.gif",
) -> RunFolder:
    """A new folder in `out`, with the definition that worker and agents read.

    Args:
        out: Folder of all runs.
        client: Name of the client.
        definition: Its whole definition, as JSON-ready data.
        seed: For the folder's name.
        wall_ms: Time of the run's begin, likewise.
        film_name: What the film is called, if there is to be one.

    Raises:
        UsageError: If nothing can be written there.
    """
    stamp = datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%Y%m%d-%H%M%S")
    try:
        path = _new_folder(out, f"{client}-{stamp}-seed{seed}")
        folder = RunFolder(path, client, film_name)
        folder.definitions.mkdir()
        folder.definition.write_text(json.dumps(definition, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot make a run folder in {out}: {error.strerror}; choose another one with --out"
        ) from error
    return folder


def _new_folder(out: Path, name: str) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = (out / (name if number == 1 else f"{name}-{number}")).absolute()
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path
