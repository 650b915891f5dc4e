"""What the application gives, checked: masks, the fallback's decisions, handles."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl4sys_stream.agent.handles import TrajectoryHandle
from rl4sys_stream.errors import MaskError, TrajectoryStateError, UsageError
from rl4sys_stream.spaces.actions import ActionFormat, RawAction

__all__ = ["as_action", "as_mask", "foreign_trajectory", "wrong_handles", "wrong_trajectory"]


def as_mask(mask: ArrayLike, actions: ActionFormat) -> NDArray[np.bool_]:
    """A fresh `bool [choices]` copy of `mask`, True = allowed.

    Of several choices, the masks stand one after the other.

    Raises:
        MaskError: If the shape differs, an element is neither a bool nor 0 or 1 (an additive mask
            would be read as its opposite), nothing is allowed, or the actions are real vectors.
    """
    if actions.continuous:
        raise MaskError("real-valued actions have no mask; leave it out")
    try:
        given = np.array(mask)
    except (TypeError, ValueError) as error:
        raise MaskError(f"the mask is no array: {error}") from None
    if given.shape != (actions.choices,):
        raise MaskError(f"the mask has shape {given.shape}; there are {actions.choices} actions")
    if given.dtype != np.bool_:
        if given.dtype.kind not in "iuf" or not ((given == 0) | (given == 1)).all():
            raise MaskError("a mask holds bools, or 0 (forbidden) and 1 (allowed), nothing else")
        given = given.astype(np.bool_)
    start = 0
    for n in actions.nvec:
        if not given[start : start + n].any():
            where = "" if actions.single else f" of the {n} from {start} on"
            raise MaskError(
                f"the mask forbids every action{where}; allow at least one, or do not ask"
            )
        start += n
    return given


def as_action(
    decision: object, actions: ActionFormat, allowed: NDArray[np.bool_] | None
) -> RawAction:
    """The fallback's decision as a raw action.

    Raises:
        UsageError: If it is no action, or a forbidden one.
    """
    action = actions.raw(decision)
    if allowed is not None:
        start = 0
        for n, choice in zip(actions.nvec, np.atleast_1d(action).tolist(), strict=True):
            if not allowed[start + choice]:
                raise UsageError(f"the fallback decided for {decision!r}, which the mask forbids")
            start += n
    return action


def wrong_trajectory(value: object) -> UsageError:
    """The refusal of what is no trajectory where one is expected."""
    return UsageError(
        f"the first argument is a trajectory or None, not {type(value).__name__}: call "
        "request_for_action(traj, obs)"
    )


def wrong_handles(call: str, traj: object, action: object) -> UsageError:
    """The refusal by `call` of what are not a trajectory and an action."""
    return UsageError(
        f"{call} takes a trajectory and an action as request_for_action returned them, not "
        f"{type(traj).__name__} and {type(action).__name__}"
    )


def foreign_trajectory(traj: TrajectoryHandle) -> TrajectoryStateError:
    """The refusal of a trajectory that another agent began."""
    return TrajectoryStateError(f"{traj!r} was begun by another agent; each agent has its own")
