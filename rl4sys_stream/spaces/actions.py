"""What an action looks like: to the learner, on the wire, and to the application.

A policy draws a *raw* action, which is recorded and trained on with its log-probability. The
application gets the *applied* one. They differ for a Box only, whose raw actions are unbounded:

    clip     applied = min(max(raw, low), high); the density is that of raw
    squash   applied = low + (tanh(raw) + 1)/2 · (high - low); the density is that of tanh(raw)
"""

import math
from dataclasses import dataclass
from reprlib import repr as shown
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import ConfigError, UsageError
from rl4sys_stream.spaces.kinds import Box, Discrete, MultiBinary, MultiDiscrete, Space, flat_dim

__all__ = ["ActionFormat", "AppliedAction", "RawAction"]

RawAction = int | NDArray[np.int64] | NDArray[np.float32]
"""An int for Discrete, `int64 [K]` for several choices, `float32 [D]` for a Box."""

AppliedAction = int | NDArray[np.int64] | NDArray[np.int8] | NDArray[np.float32]
"""An int for Discrete, `int64 [K]` for MultiDiscrete, `int8 [n]` for MultiBinary, and float32 of a
Box's shape: what Gymnasium's environments take."""

INSIDE: Final = 1.0 - 1e-6
"""How far towards its bound an action is taken for squashed: the bound itself has no raw action."""

MAX_BOUND: Final = float(np.finfo(np.float32).max)
"""Beyond it a bound is taken for this, since actions are float32."""


@dataclass(frozen=True, slots=True, eq=False)
class ActionFormat:
    """The actions of one client.

    Attributes:
        space: As registered.
        nvec: Choices of each element: (n,) for Discrete; empty for a Box.
        dim: Elements of a raw action: 1, K or D.
        squash: Whether a Box's raw actions go through tanh.
        low: `float32 [D]`, -inf where there is no bound; empty but for a Box.
        high: Likewise, +inf.
    """

    space: Space
    nvec: tuple[int, ...]
    dim: int
    squash: bool
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @classmethod
    def of(cls, space: Space, *, squash: bool = False) -> Self:
        """The format of actions of `space`.

        Args:
            space: Discrete, MultiDiscrete, MultiBinary or Box.
            squash: Whether a Box's raw actions go through tanh; ignored for the others.

        Raises:
            ConfigError: If it is a Dict or Tuple, or to be squashed without bounds.
        """
        none = np.empty(0, np.float32)
        match space:
            case Discrete():
                return cls(space, (space.n,), 1, False, none, none)
            case MultiDiscrete():
                return cls(space, space.nvec, len(space.nvec), False, none, none)
            case MultiBinary():
                return cls(space, (2,) * space.n, space.n, False, none, none)
            case Box():
                low = _bound(space.low, flat_dim(space), -math.inf)
                high = _bound(space.high, flat_dim(space), math.inf)
                if squash and not (np.isfinite(low).all() and np.isfinite(high).all()):
                    raise ConfigError(
                        f"actions that go through tanh need finite bounds: give low and high, or "
                        f"set network_architecture.squash_output to false; not {space}",
                        path="action_space",
                    )
                return cls(space, (), flat_dim(space), squash, low, high)
        raise ConfigError(
            f"an action is one of Discrete, MultiDiscrete, MultiBinary or Box; put the parts of "
            f"{type(space).__name__} side by side in one of them",
            path="action_space",
        )

    @property
    def single(self) -> bool:
        """Whether an action is one integer."""
        return isinstance(self.space, Discrete)

    @property
    def continuous(self) -> bool:
        """Whether an action is a real vector."""
        return not self.nvec

    @property
    def choices(self) -> int:
        """Length of a mask, and of the logits: the choices of all elements; 0 for a Box."""
        return sum(self.nvec)

    @property
    def step_bytes(self) -> int:
        """Largest size of one action and its mask on the wire."""
        return (4 if self.continuous else 8) * self.dim + self.choices

    def applied(self, raw: RawAction) -> AppliedAction:
        """What the application gets for `raw`: its own copy, which it may write to."""
        space = self.space
        if isinstance(space, Discrete):
            return raw
        if isinstance(space, Box):
            return self._bounded(np.asarray(raw, np.float32)).reshape(space.shape)
        if isinstance(space, MultiBinary):
            return np.array(raw, np.int8)
        return np.array(raw, np.int64)

    def _bounded(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """A Box's raw action `float32 [D]` within the bounds."""
        if self.squash:
            # In double precision: the bounds come out as themselves, and high - low is finite.
            low = self.low.astype(np.float64)
            raw = (low + (np.tanh(raw) + 1.0) * (0.5 * (self.high - low))).astype(np.float32)
        # Also after squashing, whose rounding may reach beyond a bound.
        found: NDArray[np.float32] = np.minimum(np.maximum(raw, self.low), self.high)
        return found

    def raw(self, applied: object) -> RawAction:
        """The raw action of what an application decided by itself.

        Raises:
            UsageError: If it is no element of the space.
        """
        if isinstance(self.space, Discrete):
            return _choice(applied, self.space.n)
        try:
            given = np.asarray(applied)
        except (TypeError, ValueError) as error:
            raise UsageError(f"the fallback decided for {shown(applied)}: {error}") from None
        if isinstance(self.space, Box):
            return self._raw_vector(given, self.space.shape)
        if given.shape != (self.dim,) or given.dtype.kind not in "biu":
            raise UsageError(
                f"the fallback decided for {shown(applied)}; expected {self.dim} integers"
            )
        choices = given.astype(np.int64)
        for index, (choice, n) in enumerate(zip(choices.tolist(), self.nvec, strict=True)):
            if not 0 <= choice < n:
                raise UsageError(
                    f"the fallback decided for {choice} in element {index}; it is one of "
                    f"0 to {n - 1}"
                )
        return choices

    @np.errstate(over="ignore")
    def _raw_vector(
        self, given: NDArray[np.generic], shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        if given.shape != shape or given.dtype.kind not in "biuf":
            raise UsageError(
                f"the fallback decided for {shown(given)}; expected numbers of shape {shape}"
            )
        flat = given.astype(np.float32).reshape(-1)
        if not np.isfinite(flat).all():
            raise UsageError(
                f"the fallback decided for {shown(given)}, which is not finite as float32"
            )
        if not self.squash:
            return flat
        low, width = self.low.astype(np.float64), self.high.astype(np.float64) - self.low
        # An element of which all values are one has any raw action: 0, as in the middle.
        unit = np.divide(2.0 * (flat - low), width, out=np.ones(self.dim), where=width > 0) - 1.0
        found: NDArray[np.float32] = np.arctanh(unit.clip(-INSIDE, INSIDE)).astype(np.float32)
        return found


def _bound(
    bound: float | tuple[float, ...] | None, dim: int, missing: float
) -> NDArray[np.float32]:
    array = np.empty(dim, np.float32)
    array[:] = missing if bound is None else np.clip(bound, -MAX_BOUND, MAX_BOUND)
    array.flags.writeable = False
    return array


def _choice(decision: object, n: int) -> int:
    try:
        # Arrays of one integer have `__index__`, too.
        action = int(decision.__index__())  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        raise UsageError(
            f"the fallback decided for {shown(decision)}, which is no integer"
        ) from None
    if not 0 <= action < n:
        raise UsageError(f"the fallback decided for {action}; actions are 0 to {n - 1}")
    return action
