"""What a set of vectors is made of: files by name, and what each vector says of them."""

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Collection", "encoded"]


def encoded(data: bytes) -> str:
    """Small binary values inside of JSON."""
    return base64.b64encode(data).decode("ascii")


@dataclass(slots=True)
class Collection:
    """The files of one version of the vectors.

    Attributes:
        files: Name below the folder to content.
    """

    files: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, data: bytes) -> str:
        """A binary file; its name, for the JSON that speaks of it.

        Raises:
            ValueError: If another file has that name.
        """
        if self.files.setdefault(name, data) != data:
            raise ValueError(f"two files are called {name}")
        return name

    def describe(self, name: str, vectors: list[dict[str, Any]]) -> None:
        """The JSON file `name` about `vectors`, one to a line, so that differences can be read."""
        names = [vector["name"] for vector in vectors]
        if len(set(names)) != len(names):
            raise ValueError(f"two vectors of {name} have one name: {sorted(names)}")
        lines = (json.dumps(vector, allow_nan=False) for vector in vectors)
        self.files[name] = ("[\n" + ",\n".join(lines) + "\n]\n").encode()

    def write(self, folder: Path) -> None:
        """Put all files into `folder`, and take away what else is there."""
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.relative_to(folder).as_posix() not in self.files:
                path.unlink()
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
