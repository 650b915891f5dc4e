"""Trajectories as the fields of one stream entry: a JSON header and a raw column a quantity.

| field       | holds                                                           |
|-------------|-----------------------------------------------------------------|
| `h`         | the header, JSON (see header.py)                                |
| `obs`       | `<f4 [T, obs_dim]`                                              |
| `action`    | `<i8 [T]`; `<i8 [T, K]` of several choices; `<f4 [T, D]`, raw    |
| `reward`    | `<f4 [T]`                                                       |
| `log_prob`  | `<f4 [T]`, natural logarithm, by the policy that acted          |
| `mask`      | `|u1 [T, choices]`, 1 = allowed; absent if nothing was masked   |
| `prior`     | `<f4 [T, choices]`, logits that the application added; absent if it added none |
| `final_obs` | `<f4 [obs_dim]`; absent only after `terminated`                 |
| `final_mask` | `|u1 [choices]`, allowed at `final_obs`; absent if nobody said it |

An agent may send all of it as one message of Protocol Buffers instead, in the field `pb` (see
protobuf.py). Beside them stand `agent_id`, `seq` and `floor` (see `EntryAddress`), which stay
readable when the rest is not. Shapes in the header leave T out. A reader ignores header keys and
entry fields that it does not know, but refuses unknown columns: a column is data that the learner
was meant to use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.wire.address import (
    EntryAddress,
    address_fields,
    decode_address,
    entry_field,
)
from rl4sys_stream.wire.format import (
    FALLBACK_TOKEN,
    FLOAT32,
    INT64,
    MAX_PRIOR,
    PROTOBUF_CODEC,
    TRAJECTORY_CODEC,
    TRAJECTORY_FORMAT,
    UINT8,
    End,
    TrajectoryCodec,
    WireLimits,
)
from rl4sys_stream.wire.header import Header, Run, read_header
from rl4sys_stream.wire.protobuf import (
    encode_message,
    is_message,
    message_steps,
    read_message,
)
from rl4sys_stream.wire.tensor import Column, decode_array, encode_array

__all__ = [
    "BehaviorRun",
    "End",
    "EntryAddress",
    "Trajectory",
    "TrajectorySpec",
    "address_fields",
    "decode_address",
    "decode_trajectory",
    "encode_trajectory",
    "read_steps",
]

LOG_PROB_SLACK: Final = 1e-6
"""How far above 0 rounding may take the logarithm of a probability."""


@dataclass(frozen=True, slots=True)
class BehaviorRun:
    """Consecutive steps whose actions were chosen by one model.

    Attributes:
        version: Of the model; 0 before the agent had any.
        token: Of the model, 1 to 128 printable ASCII characters; "" exactly for version 0.
        steps: How many, at least 1.
    """

    version: int
    token: str
    steps: int


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """T ≥ 1 contiguous steps of one agent.

    Decoded arrays are read-only views of the received bytes.

    Attributes:
        observations: `float32 [T, obs_dim]`, finite; what each action was chosen on.
        actions: Raw ones, see `ActionFormat`: `int64 [T]`, in 0 … n − 1; `int64 [T, K]`, each
            element in its own range; or `float32 [T, D]`, finite.
        rewards: `float32 [T]`, finite; what each action brought.
        log_probs: `float32 [T]`, finite; of each action under the model that chose it. Of a real
            vector it is that of a density, and may be above 0.
        masks: `bool [T, choices]`, True = allowed, or None if nothing was forbidden.
        priors: `float32 [T, choices]`, within ±`MAX_PRIOR`, what the application added to the
            logits of the model that chose; None if nothing.
        final_observation: `float32 [obs_dim]`, finite; what the last action led to. None only if
            `end` is TERMINATED.
        final_mask: `bool [choices]`, what is allowed there, at least one of each choice. None if
            nobody said it: that is everything, if `masks` is None as well, else it is not known.
        end: Why the trajectory ends.
        behavior: Which models acted, in order; their steps add up to T.
        episode: Ordinal of the episode within the agent.
        offset: Steps of the same episode before this trajectory.
        created_ms: When it was sealed, milliseconds since 1970 UTC by the agent's clock.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.int64] | NDArray[np.float32]
    rewards: NDArray[np.float32]
    log_probs: NDArray[np.float32]
    masks: NDArray[np.bool_] | None
    priors: NDArray[np.float32] | None = field(default=None, kw_only=True)
    final_observation: NDArray[np.float32] | None
    final_mask: NDArray[np.bool_] | None = field(default=None, kw_only=True)
    end: End
    behavior: tuple[BehaviorRun, ...]
    episode: int
    offset: int
    created_ms: int


@dataclass(frozen=True, slots=True)
class TrajectorySpec:
    """What a client's trajectories must look like.

    Attributes:
        obs_dim: Length of a flattened observation.
        actions: What an action is.
        limits: Largest entry.
        priors: Whether steps may have prior logits.
    """

    obs_dim: int
    actions: ActionFormat
    limits: WireLimits = field(default_factory=WireLimits)
    priors: bool = False


def encode_trajectory(
    trajectory: Trajectory, codec: TrajectoryCodec = TRAJECTORY_CODEC
) -> tuple[tuple[bytes, bytes], ...]:
    """The entry's fields without its address (see `address_fields`).

    Values are not looked at: the recorder checked them when they came in, the worker will again.

    Args:
        trajectory: What to encode.
        codec: "columns", or "protobuf", which needs the extra of that name.

    Raises:
        WireFormatError: If the arrays do not fit each other, or the behavior does not add up.
        MissingExtraError: If the codec's library is not installed.
    """
    steps = len(trajectory.actions)
    _check_shapes(trajectory, steps)
    _check_behavior(trajectory, steps)
    arrays: dict[str, tuple[NDArray[Any], str]] = {
        "obs": (trajectory.observations, FLOAT32),
        "action": (trajectory.actions, _action_dtype(trajectory.actions)),
        "reward": (trajectory.rewards, FLOAT32),
        "log_prob": (trajectory.log_probs, FLOAT32),
    }
    if trajectory.masks is not None:
        arrays["mask"] = (trajectory.masks, UINT8)
    if trajectory.priors is not None:
        arrays["prior"] = (trajectory.priors, FLOAT32)
    final, final_mask = trajectory.final_observation, trajectory.final_mask
    header = Header(
        v=TRAJECTORY_FORMAT,
        codec=codec,
        steps=steps,
        cols={name: (dtype, array.shape[1:]) for name, (array, dtype) in arrays.items()},
        behavior=tuple(Run(run.version, run.token, run.steps) for run in trajectory.behavior),
        end=trajectory.end,
        episode=trajectory.episode,
        offset=trajectory.offset,
        created_ms=trajectory.created_ms,
        final_obs=None if final is None else (FLOAT32, final.shape),
        final_mask=None if final_mask is None else (UINT8, final_mask.shape),
    )
    columns = {name: encode_array(array, dtype) for name, (array, dtype) in arrays.items()}
    if final is not None:
        columns["final_obs"] = encode_array(final, FLOAT32)
    if final_mask is not None:
        columns["final_mask"] = encode_array(final_mask, UINT8)
    if codec == PROTOBUF_CODEC:
        return encode_message(header, columns)
    named = ((name.encode(), data) for name, data in columns.items())
    return (b"h", msgspec.json.encode(header)), *named


def _action_dtype(actions: NDArray[Any]) -> str:
    return FLOAT32 if actions.dtype.kind == "f" else INT64


def decode_trajectory(fields: Mapping[bytes, bytes], spec: TrajectorySpec) -> Trajectory:
    """The trajectory in an entry's fields, checked against its own header and the client's spec.

    Nothing is allocated beyond what was received until every size has been checked, and then only
    a few bytes a step.

    Args:
        fields: All fields of the entry; those of the address are ignored.
        spec: What the client registered.

    Raises:
        WireFormatError: If it does not decode, or breaks a promise of `Trajectory`. The entry will
            never decode: quarantine it.
        WireLimitError: If it is larger than `spec.limits`.
        MissingExtraError: If the library of its codec is not installed.
    """
    if is_message(fields):
        header, fields = read_message(
            fields, obs_dim=spec.obs_dim, actions=spec.actions, limits=spec.limits
        )
    else:
        header = read_header(fields, spec.limits)
    columns = _read_columns(fields, header, spec)
    trajectory = Trajectory(
        observations=columns["obs"],
        actions=columns["action"],
        rewards=columns["reward"],
        log_probs=columns["log_prob"],
        masks=_as_masks("mask", columns.get("mask")),
        priors=columns.get("prior"),
        final_observation=_read_final_observation(fields, header, spec),
        final_mask=_read_final_mask(fields, header, spec),
        end=header.end,
        behavior=tuple(BehaviorRun(run.version, run.token, run.steps) for run in header.behavior),
        episode=header.episode,
        offset=header.offset,
        created_ms=header.created_ms,
    )
    _check_behavior(trajectory, header.steps)
    _check_values(trajectory, spec)
    return trajectory


def read_steps(fields: Mapping[bytes, bytes], limits: WireLimits) -> int:
    """Steps of an entry, by its header alone.

    Raises:
        WireFormatError: If that does not decode.
        WireLimitError: If it is larger than `limits`.
        MissingExtraError: If the library of its codec is not installed.
    """
    if is_message(fields):
        return message_steps(fields, limits)
    return read_header(fields, limits).steps


def _read_columns(
    fields: Mapping[bytes, bytes], header: Header, spec: TrajectorySpec
) -> dict[str, NDArray[Any]]:
    declared = header.cols
    expected: dict[str, Column] = {
        "obs": (FLOAT32, (spec.obs_dim,)),
        "action": _action_column(spec.actions),
        "reward": (FLOAT32, ()),
        "log_prob": (FLOAT32, ()),
    }
    if "mask" in declared and not spec.actions.continuous:
        expected["mask"] = (UINT8, (spec.actions.choices,))
    if "prior" in declared and spec.priors and not spec.actions.continuous:
        expected["prior"] = (FLOAT32, (spec.actions.choices,))
    if declared.keys() != expected.keys():
        name = min(declared.keys() ^ expected.keys())
        raise WireFormatError(
            f"column {name[:40]!r} is {'unknown' if name in declared else 'not declared'}; "
            f"the columns are {', '.join(expected)}"
        )
    for name, column in expected.items():
        if declared[name] != column:
            raise WireFormatError(
                f"column {name!r} is declared as {_words(declared[name])} a step; the client's "
                f"spec says {_words(column)}"
            )
    return {
        name: decode_array(
            name, entry_field(fields, name.encode()), (dtype, (header.steps, *shape))
        )
        for name, (dtype, shape) in expected.items()
    }


def _action_column(actions: ActionFormat) -> Column:
    if actions.continuous:
        return FLOAT32, (actions.dim,)
    return INT64, () if actions.single else (actions.dim,)


def _as_masks(name: str, column: NDArray[Any] | None) -> NDArray[np.bool_] | None:
    if column is None:
        return None
    if column.max() > 1:
        raise WireFormatError(f"column {name!r} holds something else than 0 and 1")
    return column.view(np.bool_)


def _read_final_observation(
    fields: Mapping[bytes, bytes], header: Header, spec: TrajectorySpec
) -> NDArray[np.float32] | None:
    if header.final_obs is None:
        if header.end is not End.TERMINATED:
            raise WireFormatError(f"the end is {header.end}, but there is no final observation")
        return None
    expected: Column = (FLOAT32, (spec.obs_dim,))
    if header.final_obs != expected:
        raise WireFormatError(
            f"the final observation is declared as {_words(header.final_obs)}; the client's spec "
            f"says {_words(expected)}"
        )
    return decode_array("final_obs", entry_field(fields, b"final_obs"), expected)


def _read_final_mask(
    fields: Mapping[bytes, bytes], header: Header, spec: TrajectorySpec
) -> NDArray[np.bool_] | None:
    if header.final_mask is None:
        return None
    expected: Column = (UINT8, (spec.actions.choices,))
    if spec.actions.continuous or header.final_mask != expected:
        raise WireFormatError(
            f"the final mask is declared as {_words(header.final_mask)}; the client's spec says "
            f"{'that there is none' if spec.actions.continuous else _words(expected)}"
        )
    if header.final_obs is None:
        raise WireFormatError("there is a final mask, but no final observation that it is for")
    data = entry_field(fields, b"final_mask")
    return _as_masks("final_mask", decode_array("final_mask", data, expected))


def _words(column: Column) -> str:
    # A hostile header may declare a dtype or a shape of thousands of parts.
    return f"{column[0][:8]} {list(column[1][:8])}"


def _check_shapes(trajectory: Trajectory, steps: int) -> None:
    observations, final = trajectory.observations, trajectory.final_observation
    if steps < 1 or observations.shape != (steps, *observations.shape[-1:]):
        raise WireFormatError(f"{steps} actions for observations of shape {observations.shape}")
    for name in ("rewards", "log_probs"):
        shape = getattr(trajectory, name).shape
        if shape != (steps,):
            raise WireFormatError(f"{name} have shape {shape} in a trajectory of {steps} steps")
    if trajectory.actions.ndim > 2:  # noqa: PLR2004 - [T] or [T, elements]
        raise WireFormatError(f"actions have shape {trajectory.actions.shape}")
    if final is None and trajectory.end is not End.TERMINATED:
        raise WireFormatError(f"the end is {trajectory.end}, but there is no final observation")
    if final is not None and final.shape != observations.shape[1:]:
        raise WireFormatError(
            f"the final observation has shape {final.shape}, the others {observations.shape[1:]}"
        )
    masks = trajectory.masks
    if masks is not None and masks.shape != (steps, *masks.shape[-1:]):
        raise WireFormatError(f"masks of shape {masks.shape} for {steps} steps")
    priors = trajectory.priors
    if priors is not None and priors.shape != (steps, *priors.shape[-1:]):
        raise WireFormatError(f"priors of shape {priors.shape} for {steps} steps")
    _check_final_mask_shape(trajectory)


def _check_final_mask_shape(trajectory: Trajectory) -> None:
    masks, final_mask = trajectory.masks, trajectory.final_mask
    if final_mask is None:
        return
    if trajectory.final_observation is None:
        raise WireFormatError("there is a final mask, but no final observation that it is for")
    if final_mask.ndim != 1 or (masks is not None and masks.shape[1:] != final_mask.shape):
        raise WireFormatError(
            f"the final mask has shape {final_mask.shape}"
            f"{'' if masks is None else f', the others {masks.shape[1:]}'}"
        )


def _check_behavior(trajectory: Trajectory, steps: int) -> None:
    total = 0
    for run in trajectory.behavior:
        modelless = run.token in {"", FALLBACK_TOKEN}
        if run.steps < 1 or run.version < 0 or (run.version == 0) != modelless:
            raise WireFormatError(f"behavior run {run} is impossible")
        total += run.steps
    if total != steps:
        raise WireFormatError(f"behavior covers {total} of {steps} steps")


def _check_values(trajectory: Trajectory, spec: TrajectorySpec) -> None:
    floats: dict[str, NDArray[Any] | None] = {
        "obs": trajectory.observations,
        "reward": trajectory.rewards,
        "log_prob": trajectory.log_probs,
        "final_obs": trajectory.final_observation,
    }
    if spec.actions.continuous:
        floats["action"] = trajectory.actions
    for name, array in floats.items():
        if array is not None and not np.isfinite(array).all():
            raise WireFormatError(f"column {name!r} holds a value that is not finite")
    priors = trajectory.priors
    if priors is not None and not (np.abs(priors) <= MAX_PRIOR).all():  # NaN is not, either
        raise WireFormatError(f"column 'prior' holds a logit beyond ±{MAX_PRIOR:g}")
    if not spec.actions.continuous:
        _check_choices(trajectory, spec.actions)


def _check_choices(trajectory: Trajectory, actions: ActionFormat) -> None:
    if trajectory.log_probs.max() > LOG_PROB_SLACK:
        raise WireFormatError("a log_prob is above 0: no probability exceeds 1")
    taken = trajectory.actions.reshape(-1, actions.dim)  # [T] or [T, K] -> [T, K]
    nvec = np.array(actions.nvec)
    if taken.min() < 0 or (taken >= nvec).any():
        ranges = ", ".join(f"0 to {n - 1}" for n in actions.nvec[:8])
        raise WireFormatError(f"an action is outside of {ranges}")
    masks = trajectory.masks
    # An allowed action in every row, so no row forbids everything.
    columns = taken + (nvec.cumsum() - nvec)
    if masks is not None and not np.take_along_axis(masks, columns, axis=1).all():
        raise WireFormatError("an action was taken that its mask forbids")
    final_mask = trajectory.final_mask
    # Of nothing that is allowed there is no best.
    if (
        final_mask is not None
        and not np.logical_or.reduceat(final_mask, nvec.cumsum() - nvec).all()
    ):
        raise WireFormatError("the final mask forbids every action, or all of one choice")
