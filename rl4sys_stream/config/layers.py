"""One source of settings (file, environment, arguments) as canonical paths with their origins."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rl4sys_stream.config.schema import Location, message_of
from rl4sys_stream.errors import ConfigError

__all__ = ["Layer", "expect_object"]


@dataclass(slots=True)
class Layer:
    """Values under this package's own dotted paths, and where the user wrote each of them.

    Attributes:
        source: What to look into when something is wrong: a file, a variable; "" is plain.
        trusted: Whether a password may stand here (not in a file that is shared).
        values: Canonical path to value: `algorithm_parameters.clip_range` to 0.2.
        locations: Canonical path to where it was written: `algorithm_parameters.clip_ratio`.
        notices: In words, what was read under another name, and what has no meaning here.
    """

    source: str = ""
    trusted: bool = False
    values: dict[str, object] = field(default_factory=dict)
    locations: dict[str, Location] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def put(self, path: str, value: object, *, written: str) -> None:
        """Set the canonical `path`, which the user wrote as `written`.

        Raises:
            ConfigError: If this source has said it before, under whatever name.
        """
        if path in self.locations:
            earlier = self.locations[path]
            # Within one file its name tells nothing; each environment variable is its own source.
            place = earlier.path if earlier.source == self.source else earlier.source
            raise ConfigError(f"says the same as {place}; keep one of them", path=written)
        self.values[path] = value
        self.locations[path] = Location(written, self.source)
        if written.rpartition(".")[2] != path.rpartition(".")[2]:
            self.notices.append(f"{written} is read as {path}")

    def not_applicable(self, written: str, why: str) -> None:
        """Note that the known setting `written` has no meaning here, and why."""
        self.notices.append(f"{written}: not applicable: {why}")

    def override(self, later: "Layer") -> None:
        """Let what `later` says take the place of what was said before."""
        self.values.update(later.values)
        self.locations.update(later.locations)
        self.notices += later.notices

    def locate(self, path: str) -> Location:
        """Where the user wrote the canonical `path`; itself if it is a default."""
        return self.locations.get(path, Location(path))

    def section(self, name: str) -> dict[str, object]:
        """The values below `name`, by the rest of their paths."""
        prefix = f"{name}."
        return {
            path.removeprefix(prefix): value
            for path, value in self.values.items()
            if path.startswith(prefix)
        }

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Add `source` to the configuration errors that the body raises."""
        try:
            yield
        except ConfigError as error:
            raise Location(error.path, self.source).error(message_of(error)) from None


def expect_object(value: object, *, path: str) -> Mapping[str, object]:
    """`value`, if it is a JSON object.

    Raises:
        ConfigError: If it is not.
    """
    if isinstance(value, Mapping):
        return value
    kind = "a list" if isinstance(value, list) else type(value).__name__
    raise ConfigError(f"expected an object {{...}}, not {kind}", path=path)
