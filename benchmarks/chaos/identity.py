"""A unique id in each trajectory's first observation, so that no counter of an agent is trusted."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["OBS_DIM", "Identity", "identity_of"]

OBS_DIM = 4
_PART_BITS = 16
_PART = 1 << _PART_BITS


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """One trajectory in the whole run.

    Attributes:
        application: Number of the application, below 65 536.
        incarnation: How often that application had been started before, below 4096.
        agent: Number of the agent in it, below 16.
        ordinal: Number of the trajectory, below 2^32; consecutive for each agent.
    """

    application: int
    incarnation: int
    agent: int
    ordinal: int

    def number(self) -> int:
        """All of it in 64 bits."""
        return self.application << 48 | self.incarnation << 36 | self.agent << 32 | self.ordinal

    def observation(self) -> NDArray[np.float32]:
        """`float32 [4]` in [0, 1): 16 bits each, which float32 holds exactly."""
        number = self.number()
        parts = [(number >> (_PART_BITS * i)) % _PART for i in range(OBS_DIM)]
        return np.array(parts, np.float32) / np.float32(_PART)

    @classmethod
    def from_number(cls, number: int) -> Self:
        """The inverse of `number`."""
        return cls(number >> 48, number >> 36 & 0xFFF, number >> 32 & 0xF, number & 0xFFFFFFFF)


def identity_of(column: bytes) -> Identity:
    """The identity in an observation column as it lies in the stream, `<f4 [T, 4]`."""
    first = np.frombuffer(column, "<f4", count=OBS_DIM)
    parts = [int(value) for value in np.rint(first * np.float32(_PART))]
    return Identity.from_number(sum(part << (_PART_BITS * i) for i, part in enumerate(parts)))
