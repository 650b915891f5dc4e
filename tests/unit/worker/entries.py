"""Small trajectories and stream entries, for everything that takes them in."""

from collections.abc import Sequence

import numpy as np

from rl4sys_stream.spaces import Discrete
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.wire.format import TrajectoryCodec
from rl4sys_stream.wire.trajectory import (
    BehaviorRun,
    End,
    EntryAddress,
    Trajectory,
    TrajectorySpec,
    address_fields,
    encode_trajectory,
)
from rl4sys_stream.worker.intake import Candidate

OBS_DIM = 3
N_ACTIONS = 2
SPEC = TrajectorySpec(OBS_DIM, ActionFormat.of(Discrete(N_ACTIONS)), priors=True)
NO_MODEL = (0, "")


def trajectory(
    steps: int = 4,
    *,
    seed: int = 0,
    end: End = End.TERMINATED,
    behavior: Sequence[tuple[int, str]] = (NO_MODEL,),
    episode: int = 0,
    reward: float | None = None,
) -> Trajectory:
    """Random steps of a uniform policy; the same for the same seed. The last model acts longest."""
    rng = np.random.default_rng(seed)
    rewards = rng.standard_normal(steps) if reward is None else np.full(steps, reward)
    lengths = [1] * (len(behavior) - 1) + [steps - len(behavior) + 1]
    return Trajectory(
        observations=rng.standard_normal((steps, OBS_DIM)).astype(np.float32),
        actions=rng.integers(0, N_ACTIONS, steps),
        rewards=rewards.astype(np.float32),
        log_probs=np.full(steps, -np.log(N_ACTIONS), np.float32),
        masks=None,
        final_observation=None if end is End.TERMINATED else np.zeros(OBS_DIM, np.float32),
        end=end,
        behavior=tuple(
            BehaviorRun(version, token, length)
            for (version, token), length in zip(behavior, lengths, strict=True)
        ),
        episode=episode,
        offset=0,
        created_ms=1_700_000_000_000,
    )


def entry_fields(
    agent_id: str,
    seq: int,
    what: Trajectory | None = None,
    *,
    floor: int = 1,
    codec: TrajectoryCodec = "columns",
) -> tuple[tuple[bytes, bytes], ...]:
    """A whole stream entry."""
    address = address_fields(EntryAddress(agent_id, seq, floor))
    return (*address, *encode_trajectory(what or trajectory(seed=seq), codec))


def candidate(
    seq: int,
    what: Trajectory | None = None,
    *,
    agent_id: str = "a",
    floor: int = 1,
    entry_id: str = "",
    reason: str = "",
) -> Candidate:
    """An examined entry; with a `reason`, one whose trajectory does not decode."""
    return Candidate(
        entry_id or f"{seq}-0",
        100,
        EntryAddress(agent_id, seq, floor),
        None if reason else (what or trajectory(seed=seq)),
        reason,
    )
