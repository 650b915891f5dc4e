"""What belongs to the behaviour of a published model beside its weights.

It travels as the field `extras` of a model's hash and is covered by the model's digest. JSON:
`{"v": 2, "head": "categorical", "normalization": {"mean": base64, "scale": base64, "clip": 10.0} |
null, "epsilon": null}`, arrays as little-endian float32.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.wire.format import FLOAT32

__all__ = ["BehaviorExtras", "HeadName", "ObservationNormalization"]

EXTRAS_FORMAT: Final = 2

HeadName = Literal["categorical", "epsilon_greedy", "gaussian", "state_gaussian"]
"""How the network's outputs become an action; see `rl4sys_stream.policy.heads`."""


class _NormalizationJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mean: bytes
    scale: bytes
    clip: float


class _VersionJson(msgspec.Struct, frozen=True):
    v: int


class _ExtrasJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    # Unknown keys are refused: a key that changes how to act must not be ignored.
    v: int
    head: HeadName
    normalization: _NormalizationJson | None
    epsilon: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None


@dataclass(frozen=True, slots=True, eq=False)
class ObservationNormalization:
    """The published running mean and scale: `x ← clip((x − mean)·scale, −clip, clip)`.

    Arrays are copied and made read-only.

    Attributes:
        mean: `float32 [obs_dim]`, finite.
        scale: `float32 [obs_dim]`, 1/√(variance + ε), positive and finite.
        clip: Bound of a normalised element, positive.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    clip: float

    def __post_init__(self) -> None:
        """Copy the arrays and refuse what cannot normalise.

        Raises:
            WireFormatError: If a shape, type or value is none of the above.
        """
        for name in ("mean", "scale"):
            array = getattr(self, name)
            if array.dtype != np.float32 or array.ndim != 1 or not np.isfinite(array).all():
                raise WireFormatError(f"{name} of the normalization is no finite float32 vector")
            copy = array.copy()
            copy.flags.writeable = False
            object.__setattr__(self, name, copy)
        if self.mean.shape != self.scale.shape or not self.mean.size:
            raise WireFormatError(
                f"the normalization has mean {self.mean.shape} and scale {self.scale.shape}"
            )
        if not (self.scale > 0).all() or not (self.clip > 0 and math.isfinite(self.clip)):
            raise WireFormatError("scale and clip of the normalization must be positive and finite")


@dataclass(frozen=True, slots=True, eq=False)
class BehaviorExtras:
    """All that acting needs beside the weights.

    Attributes:
        normalization: How observations are normalised, None if they are not.
        epsilon: Share of random actions of an ε-greedy policy (0 to 1), None for any other.
        head: How the outputs become an action: "categorical", logits; "epsilon_greedy", action
            values; "gaussian", means, with the tensor `log_std`; "state_gaussian", means and then
            log-standard-deviations.
    """

    normalization: ObservationNormalization | None = None
    epsilon: float | None = None
    head: HeadName = "categorical"

    def __post_init__(self) -> None:
        """Refuse an ε without ε-greediness, and the other way round.

        Raises:
            WireFormatError: If there is one without the other, or it is no share.
        """
        if (self.epsilon is not None) != (self.head == "epsilon_greedy"):
            raise WireFormatError(f"head {self.head!r} with epsilon {self.epsilon}")
        if self.epsilon is not None and not 0.0 <= self.epsilon <= 1.0:
            raise WireFormatError(f"epsilon is {self.epsilon}; it is a share from 0 to 1")

    def to_bytes(self) -> bytes:
        """The JSON form; the same bytes for the same values."""
        normalization = None
        if (norm := self.normalization) is not None:
            normalization = _NormalizationJson(
                mean=norm.mean.astype(FLOAT32, copy=False).tobytes(),
                scale=norm.scale.astype(FLOAT32, copy=False).tobytes(),
                clip=norm.clip,
            )
        return msgspec.json.encode(
            _ExtrasJson(
                v=EXTRAS_FORMAT,
                head=self.head,
                normalization=normalization,
                epsilon=self.epsilon,
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of `to_bytes`, bit for bit.

        Raises:
            WireFormatError: If `data` is something else, or from a newer format.
        """
        try:
            version = msgspec.json.decode(data, type=_VersionJson).v
            if version != EXTRAS_FORMAT:
                raise WireFormatError(
                    f"extras format {version} is unknown; this side reads {EXTRAS_FORMAT}: "
                    "upgrade the older side"
                )
            extras = msgspec.json.decode(data, type=_ExtrasJson)
        # ValueError: invalid UTF-8 and absurd numbers. RecursionError: a bomb of brackets.
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise WireFormatError(f"the model's extras do not parse: {error}") from None
        normalization = None
        if (norm := extras.normalization) is not None:
            normalization = ObservationNormalization(
                _vector(norm.mean), _vector(norm.scale), norm.clip
            )
        return cls(normalization, extras.epsilon, extras.head)


def _vector(data: bytes) -> NDArray[np.float32]:
    if len(data) % 4:
        raise WireFormatError(f"{len(data)} bytes are no float32 vector")
    return np.frombuffer(data, FLOAT32).astype(np.float32)
