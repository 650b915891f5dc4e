"""What every algorithm is to the worker, on one page.

The worker runs this loop and nothing else; what talks to the broker stands around it:

    algorithm = make_algorithm(spec, parameters, seed=seed)     # registry.py
    algorithm.load_state(decode_state(checkpoint))              # where there is one; checkpoint.py
    algorithm.load_policy(imported)                             # where there is a policy alone
    algorithm.replay(retained)                                  # what a replay buffer had kept
    publish(algorithm.export())                                 # version 1, before any training
    for trajectory, lag in accepted:
        algorithm.observe(Sample(trajectory, lag))
        if algorithm.ready():
            report = algorithm.update()
            commit(algorithm.export(), encode_state(algorithm.state()), report)
            delete(all but the newest algorithm.retained of what it was trained on)

An update happens whole or not at all, so what is committed is always a state that can be resumed
and a policy that can act.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.wire.snapshot import Weights
from rl4sys_stream.wire.trajectory import Trajectory

__all__ = ["Algorithm", "AlgorithmState", "PolicyExport", "Sample", "StateArray", "UpdateReport"]

StateArray = NDArray[np.number]
"""The element type is float32, float64, int64 or uint8."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One accepted trajectory.

    Attributes:
        trajectory: What the agent recorded, decoded and checked against the client's spec.
        lag: The learner's version less the version that acted; 0 is on-policy.
    """

    trajectory: Trajectory
    lag: int = 0


@dataclass(frozen=True, slots=True)
class PolicyExport:
    """Only what acting needs: no critic, no optimizer.

    Attributes:
        weights: The actor as float32, copied; later training does not change it.
        extras: What stands around the network (observation normalisation, ε).
    """

    weights: Weights
    extras: BehaviorExtras


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What one update did.

    Attributes:
        metrics: Values by their Stable-Baselines3 names (`train/approx_kl`), all finite.
        steps: Environment steps that it trained on.
        trajectories: Trajectories that it consumed.
    """

    metrics: Mapping[str, float]
    steps: int
    trajectories: int


@dataclass(frozen=True, slots=True, eq=False)
class AlgorithmState:
    """Everything needed to go on as if nothing had happened. Samples are not part of it.

    Attributes:
        algorithm: Name of the algorithm that wrote it (`PPO`).
        numbers: Counters; integers stay within ±2^53.
        arrays: Parameters, optimizer moments, statistics, the random generator's state; copies.
    """

    algorithm: str
    numbers: Mapping[str, int | float]
    arrays: Mapping[str, StateArray]


class Algorithm(Protocol):
    """A learning rule. One thread uses it; nothing in it blocks on anything but arithmetic.

    With a replay buffer: the buffer holds whole trajectories, the newest ones that it has room for,
    so that what is in it follows from the sequence of trajectories alone. The worker keeps exactly
    their entries in the stream, and gives them to `replay` after a restart.
    """

    @property
    def retained(self) -> int:
        """Of all trajectories that were trained on, how many of the newest may be used again.

        0 without a replay buffer. Never more than after the last update and what it trained on.
        """
        ...

    def replay(self, trajectories: Sequence[Trajectory]) -> None:
        """Fill the replay buffer again, after `load_state` and before anything is observed.

        Args:
            trajectories: The newest ones before that state, oldest first, as many as `retained`
                said; fewer where somebody has destroyed some. Empty without a buffer.
        """
        ...

    def observe(self, sample: Sample) -> None:
        """Take in one trajectory. Resuming repeats exactly only if the order is the same."""
        ...

    def ready(self) -> bool:
        """True if enough was observed for one update."""
        ...

    def update(self) -> UpdateReport:
        """Train on what was observed, and forget it.

        Raises:
            NonFiniteError: If a loss or weight became NaN or infinite. All state is then as before
                the call and the samples are kept; the same call would fail again, so `discard`.
            UsageError: If nothing was observed.
        """
        ...

    def export(self) -> PolicyExport:
        """The policy as it stands, copied."""
        ...

    def state(self) -> AlgorithmState:
        """Everything to resume from, copied."""
        ...

    def load_state(self, state: AlgorithmState) -> None:
        """Go on from `state`.

        An earlier state of this very object takes back what was put into the replay buffer since;
        another one empties it.

        Raises:
            WireFormatError: If it belongs to another algorithm or network; nothing was changed.
        """
        ...

    def load_policy(self, policy: PolicyExport) -> None:
        """Begin with the actor of another training, and with all else as it was drawn.

        In place of `load_state`, for a version that was imported: it has no checkpoint. What
        `export` gives afterwards has the same weights and normalises alike.

        Raises:
            WireFormatError: If it is another network's; nothing was changed.
            ConfigError: If the hyperparameters do not fit it; nothing was changed.
        """
        ...

    def discard(self) -> None:
        """Forget what was observed and not yet consumed."""
        ...
