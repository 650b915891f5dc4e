"""What the application gives, checked: masks, priors, the fallback's decisions, and no handles."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl4sys_stream.agent.handles import TrajectoryHandle
from rl4sys_stream.errors import MaskError, PriorError, TrajectoryStateError, UsageError
from rl4sys_stream.spaces.actions import ActionFormat, RawAction
from rl4sys_stream.wire.format import MAX_PRIOR

__all__ = ["as_action", "as_mask", "as_prior", "foreign", "no_handles", "no_trajectory"]


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


def as_prior(prior: ArrayLike, choices: int, refusal: str) -> NDArray[np.float32]:
    """A fresh `float32 [choices]` copy of `prior`.

    Args:
        prior: Logits, as the application gave them.
        choices: How many there are.
        refusal: Why the client takes no prior; "" if it does.

    Raises:
        PriorError: If the client takes none, the shape differs, an element is no number, or one is
            not finite or beyond `MAX_PRIOR`.
    """
    if refusal:
        raise PriorError(refusal)
    try:
        given = np.array(prior)
    except (TypeError, ValueError) as error:
        raise PriorError(f"the prior is no array: {error}") from None
    if given.shape != (choices,):
        raise PriorError(f"the prior has shape {given.shape}; there are {choices} actions")
    if given.dtype.kind not in "iuf":
        raise PriorError(f"a prior holds numbers, one logit for each action; not {given.dtype}")
    within = np.abs(given) <= MAX_PRIOR  # NaN is not, either
    if not within.all():
        place = int(within.argmin())
        raise PriorError(
            f"prior[{place}] is {given[place]}; a logit is finite and within ±{MAX_PRIOR:g}: scale "
            "it (a difference of 20 decides nearly always), and forbid by the mask"
        )
    return given.astype(np.float32)


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


def no_trajectory(value: object) -> UsageError:
    """The refusal of `value`, which was given as a trajectory."""
    return UsageError(
        f"the first argument is a trajectory or None, not {type(value).__name__}: call "
        "request_for_action(traj, obs)"
    )


def no_handles(call: str, traj: object, action: object) -> UsageError:
    """The refusal by method `call` of two arguments of which one is no handle."""
    return UsageError(
        f"{call} takes a trajectory and an action as request_for_action returned them, not "
        f"{type(traj).__name__} and {type(action).__name__}"
    )


def foreign(traj: TrajectoryHandle) -> TrajectoryStateError:
    """The refusal of another agent's trajectory."""
    return TrajectoryStateError(f"{traj!r} was begun by another agent; each agent has its own")
