"""What the application gives, checked: masks, and the fallback's decisions."""

from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl4sys_stream.errors import MaskError, UsageError

__all__ = ["as_action", "as_mask"]


def as_mask(mask: ArrayLike, n_actions: int) -> NDArray[np.bool_]:
    """A fresh `bool [n_actions]` copy of `mask`, True = allowed.

    Raises:
        MaskError: If the shape differs, an element is neither a bool nor 0 or 1 (an additive mask
            would be read as its opposite), or nothing is allowed.
    """
    try:
        given = np.array(mask)
    except (TypeError, ValueError) as error:
        raise MaskError(f"the mask is no array: {error}") from None
    if given.shape != (n_actions,):
        raise MaskError(f"the mask has shape {given.shape}; there are {n_actions} actions")
    if given.dtype != np.bool_:
        if given.dtype.kind not in "iuf" or not ((given == 0) | (given == 1)).all():
            raise MaskError("a mask holds bools, or 0 (forbidden) and 1 (allowed), nothing else")
        given = given.astype(np.bool_)
    if not given.any():
        raise MaskError("the mask forbids every action; allow at least one, or do not ask")
    return given


def as_action(decision: SupportsIndex, n_actions: int, allowed: NDArray[np.bool_] | None) -> int:
    """The fallback's decision as a number.

    Raises:
        UsageError: If it is no integer, no action, or a forbidden one.
    """
    try:
        # Arrays of one integer have `__index__`, too.
        action = decision.__index__()
    except (AttributeError, TypeError):
        raise UsageError(f"the fallback decided for {decision!r}, which is no integer") from None
    if not 0 <= action < n_actions:
        raise UsageError(f"the fallback decided for {action}; actions are 0 to {n_actions - 1}")
    if allowed is not None and not allowed[action]:
        raise UsageError(f"the fallback decided for {action}, which the mask forbids")
    return action
