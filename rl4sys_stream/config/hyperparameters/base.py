"""What the hyperparameters of every learner have in common."""

from collections.abc import Mapping
from typing import Annotated, Self

import msgspec

from rl4sys_stream.config.schema import different_paths, read_struct

__all__ = ["Count", "Fraction", "Hyperparameters", "NonNegative", "Positive", "Seed"]

Positive = Annotated[float, msgspec.Meta(gt=0)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a learner trains; each algorithm adds its own fields.

    Attributes:
        learning_rate: Step size of the optimizer.
        gamma: Discount factor.
        seed: Of the learner's initial weights and of its draws; None: fresh for each lineage.
    """

    learning_rate: Positive = 3e-4
    gamma: Fraction = 0.99
    seed: Seed | None = None

    @property
    def steps_per_update(self) -> int:
        """Environment steps, over all agents, that one update and so one model version takes."""
        raise NotImplementedError

    @property
    def replayed_steps(self) -> int:
        """Environment steps that a replay buffer holds; 0 where there is none."""
        return 0

    def to_json(self) -> dict[str, object]:
        """The parameters as JSON-ready data, every field present."""
        return {name: getattr(self, name) for name in self.__struct_fields__}

    @classmethod
    def from_json(cls, data: Mapping[str, object], *, path: str = "algorithm_parameters") -> Self:
        """What `to_json` gave, read back; fields that are left out keep their defaults.

        Raises:
            ConfigError: If a key is unknown, or a value mistyped or out of range.
        """
        return read_struct(cls, data, path=path)

    def unread(self) -> dict[str, str]:
        """Fields that were set and that nothing reads, with the reason; for a notice."""
        return {}

    def _unread_without(self, switch: str, fields: tuple[str, ...]) -> dict[str, str]:
        """Those of `fields` that differ from their defaults while `switch` is off."""
        if getattr(self, switch):
            return {}
        defaults = {field.name: field.default for field in msgspec.structs.fields(type(self))}
        set_ones = [name for name in fields if getattr(self, name) != defaults[name]]
        return dict.fromkeys(set_ones, f"nothing reads it while {switch} is false")

    def differences(self, other: "Hyperparameters") -> tuple[str, ...]:
        """Names of the fields in which `other` differs, sorted."""
        return different_paths(self.to_json(), other.to_json())
