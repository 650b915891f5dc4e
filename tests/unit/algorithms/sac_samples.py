"""SACs, and what they are trained on, for the tests of it."""

import numpy as np

from rl4sys_stream.algorithms.base import Sample
from rl4sys_stream.algorithms.sac import SAC
from rl4sys_stream.config import ClientSpec, NetworkSpec, SACParameters
from rl4sys_stream.spaces import Box
from rl4sys_stream.wire.trajectory import BehaviorRun, End, Trajectory

OBS_DIM = 3
ACTION_DIM = 2
SPEC = ClientSpec(
    algorithm="SAC",
    observation_space=Box((OBS_DIM,)),
    action_space=Box((ACTION_DIM,), -2.0, 3.0),
    network=NetworkSpec(hidden_sizes=(16, 8), critic_hidden_sizes=(12, 10), activation="relu"),
)
SMALL = SACParameters(
    learning_rate=1e-2,
    buffer_size=150,
    batch_size=16,
    learning_starts=20,
    train_freq=4,
    gradient_steps=2,
    update_steps=30,
    tau=0.05,
)
ENDS = (End.TERMINATED, End.TRUNCATED, End.CUT)


def make_sac(seed: int = 0, /, **changes: object) -> SAC:
    """A small SAC; `changes` are fields of its parameters."""
    return SAC(SPEC, SACParameters.from_json({**SMALL.to_json(), **changes}), seed=seed)


def real_valued_trajectory(
    rng: np.random.Generator, steps: int, *, end: End = End.TERMINATED
) -> Trajectory:
    """Steps of an actor that looks at nothing, in a world without sense; no action is masked."""
    final = rng.standard_normal(OBS_DIM).astype(np.float32)
    return Trajectory(
        observations=rng.standard_normal((steps, OBS_DIM)).astype(np.float32),
        actions=rng.standard_normal((steps, ACTION_DIM)).astype(np.float32),
        rewards=rng.standard_normal(steps).astype(np.float32),
        log_probs=np.full(steps, -2.0, np.float32),
        masks=None,
        final_observation=None if end is End.TERMINATED else final,
        end=end,
        behavior=(BehaviorRun(1, "token", steps),),
        episode=0,
        offset=0,
        created_ms=0,
    )


def batch_of(seed: int, *, steps: int = 35) -> list[Sample]:
    """About `steps` steps in trajectories of all ends and unequal lengths, some of them lagging."""
    rng = np.random.default_rng(seed)
    samples: list[Sample] = []
    while steps > 0:
        length = min(int(rng.integers(1, 16)), steps)
        part = real_valued_trajectory(rng, length, end=ENDS[int(rng.integers(3))])
        samples.append(Sample(part, int(rng.integers(20))))
        steps -= length
    return samples


def observe_all(sac: SAC, samples: list[Sample]) -> SAC:
    """`sac`, once it has observed `samples`."""
    for sample in samples:
        sac.observe(sample)
    return sac
