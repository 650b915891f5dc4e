"""From recorded steps to an encoded trajectory."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.agent.handles import ActionHandle, Segment
from rl4sys_stream.agent.parcels import Sealed
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.wire.format import TrajectoryCodec
from rl4sys_stream.wire.trajectory import BehaviorRun, Trajectory, encode_trajectory

__all__ = ["seal", "to_trajectory"]


def to_trajectory(
    segment: Segment, *, obs_dim: int, actions: ActionFormat, wall_ms: int
) -> Trajectory:
    """The columns of a segment whose rewards are complete.

    Args:
        segment: T ≥ 1 steps, closed.
        obs_dim: Length of a flattened observation.
        actions: What an action is.
        wall_ms: When it is sealed.
    """
    steps = segment.steps
    masks = _masks(steps, actions.choices)
    rewards = [step.reward for step in steps if step.reward is not None]
    return Trajectory(
        observations=np.concatenate([step.observation for step in steps]).reshape(-1, obs_dim),
        actions=_raw_actions(steps, actions),
        rewards=np.array(rewards, np.float32),
        log_probs=_log_probs(steps, actions),
        masks=masks,
        priors=_priors(steps, actions.choices),
        final_observation=segment.final_observation,
        final_mask=_final_mask(segment, masks),
        end=segment.end,
        behavior=tuple(
            BehaviorRun(version, token, len(list(run)))
            for (version, token), run in groupby((step.version, step.token) for step in steps)
        ),
        episode=segment.episode.ordinal,
        offset=segment.offset,
        created_ms=wall_ms,
    )


def _raw_actions(
    steps: Sequence[ActionHandle], actions: ActionFormat
) -> NDArray[np.int64] | NDArray[np.float32]:
    raw = [step.raw for step in steps]
    return np.array(raw, np.float32) if actions.continuous else np.array(raw, np.int64)


def _log_probs(steps: Sequence[ActionHandle], actions: ActionFormat) -> NDArray[np.float32]:
    found = np.array([step.log_prob for step in steps], np.float32)
    if not actions.continuous:
        # A probability of 1 may come out a rounding error above it.
        np.minimum(found, np.float32(0.0), out=found)
    return found


def _masks(steps: Sequence[ActionHandle], choices: int) -> NDArray[np.bool_] | None:
    """`bool [T, choices]`, None if no step had a mask."""
    if all(step.mask is None for step in steps):
        return None
    masks = np.ones((len(steps), choices), np.bool_)
    for row, step in zip(masks, steps, strict=True):
        if step.mask is not None:
            row[:] = step.mask
    return masks


def _final_mask(segment: Segment, masks: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """`bool [choices]`, None if nobody said it, or nothing was forbidden at any time."""
    found = segment.final_mask
    return None if found is not None and masks is None and found.all() else found


def _priors(steps: Sequence[ActionHandle], choices: int) -> NDArray[np.float32] | None:
    """`float32 [T, choices]`, None if no step had one, 0 where another step had none."""
    if all(step.prior is None for step in steps):
        return None
    priors = np.zeros((len(steps), choices), np.float32)
    for row, step in zip(priors, steps, strict=True):
        if step.prior is not None:
            row[:] = step.prior
    return priors


def seal(
    segment: Segment,
    *,
    obs_dim: int,
    actions: ActionFormat,
    wall_ms: int,
    codec: TrajectoryCodec,
) -> Sealed:
    """The segment encoded; everything happens in the calling thread.

    Raises:
        WireError: If it cannot be encoded (an error of this package, not of the application).
    """
    trajectory = to_trajectory(segment, obs_dim=obs_dim, actions=actions, wall_ms=wall_ms)
    fields = encode_trajectory(trajectory, codec)
    return Sealed(fields, sum(len(name) + len(value) for name, value in fields))
