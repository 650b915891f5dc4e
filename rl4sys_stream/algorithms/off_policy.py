"""What learners with a replay buffer have in common: taking in, taking back, resuming.

A learner adds its networks, its gradient steps and what it publishes. The cadence is that of
Stable-Baselines3, counted in environment steps in the order of their arrival, so that one agent
whose trajectories are cut every `train_freq` steps is trained step for step like there. What is
different: an update takes in several trajectories, all of which can be drawn by the first of its
gradient steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl4sys_stream.algorithms.base import AlgorithmState, PolicyExport, Sample, UpdateReport
from rl4sys_stream.algorithms.checkpoint import check_fits
from rl4sys_stream.algorithms.export import check_normalization, load_weights
from rl4sys_stream.algorithms.lag import describe_lag
from rl4sys_stream.algorithms.normalize import RunningMeanStd
from rl4sys_stream.algorithms.replay_buffer import ReplayBuffer, Transitions
from rl4sys_stream.config.hyperparameters import OffPolicyParameters
from rl4sys_stream.errors import NonFiniteError, UsageError, WireFormatError
from rl4sys_stream.policy.extras import ObservationNormalization
from rl4sys_stream.wire.trajectory import Trajectory

__all__ = ["MAX_TRAJECTORIES", "OffPolicy", "headroom_for"]

MAX_TRAJECTORIES: Final = 4000
"""An update consumes no more than this, since one commit has to settle them all."""

LARGEST_REWARD: Final = 1e15
"""Beyond it, squared errors of a minibatch come near what float32 can hold. In a rollout such a
reward spoils one update, which is rolled back; in a replay buffer it would spoil them for ever, and
none of the samples at hand would be to blame."""

LONGEST_TRAJECTORY: Final = 4096
"""Longer ones, and updates of a backlog, make the buffer's memory grow."""


def headroom_for(parameters: OffPolicyParameters) -> int:
    """Steps beyond its capacity that the buffer of an ordinary update needs room for."""
    return parameters.update_steps + LONGEST_TRAJECTORY


class OffPolicy(ABC):
    """A learner with a replay buffer, as `base.Algorithm` has it.

    Attributes:
        buffer: What was taken in by updates.
        num_timesteps: Environment steps taken in by updates so far.
        n_updates: Gradient steps so far; Stable-Baselines3 calls them so.
    """

    def __init__(
        self,
        name: str,
        parameters: OffPolicyParameters,
        buffer: ReplayBuffer,
        obs_dim: int,
        generator: torch.Generator,
    ) -> None:
        """Begin with nothing taken in.

        Args:
            name: Of the algorithm.
            parameters: Hyperparameters.
            buffer: Empty.
            obs_dim: Length of a flattened observation.
            generator: Of all randomness; its state is part of the checkpoint.
        """
        self._name = name
        self._cadence = parameters
        self._generator = generator
        self._statistics = RunningMeanStd(obs_dim)
        self._samples: list[Sample] = []
        self._observed_steps = 0
        self.buffer = buffer
        self.num_timesteps = 0
        self.n_updates = 0

    # What a learner adds -------------------------------------------------------------------------

    @abstractmethod
    def export(self) -> PolicyExport:
        """See `Algorithm.export`."""

    @abstractmethod
    def _acting_tensors(self) -> Mapping[str, NDArray[np.float32]]:
        """Views of what is published, by name."""

    @abstractmethod
    def _train(self, steps: range) -> dict[str, float]:
        """Do what is due as the environment steps `steps`, numbered from 1, arrive.

        All of them are in the buffer already. Each gradient step counts in `n_updates`.

        Returns:
            Metrics by their Stable-Baselines3 names.
        """

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """Parameters and optimizer moments by name: the tensors themselves."""

    def _numbers(self) -> dict[str, float]:
        """Further numbers of the state."""
        return {}

    # Taking in -----------------------------------------------------------------------------------

    def observe(self, sample: Sample) -> None:
        """See `Algorithm.observe`."""
        self._samples.append(sample)
        self._observed_steps += len(sample.trajectory.actions)

    def ready(self) -> bool:
        """True at `update_steps` steps, or at as many trajectories as one commit can settle."""
        enough = self._observed_steps >= self._cadence.update_steps
        return enough or len(self._samples) >= MAX_TRAJECTORIES

    def discard(self) -> None:
        """See `Algorithm.discard`."""
        self._samples = []
        self._observed_steps = 0

    @property
    def retained(self) -> int:
        """See `Algorithm.retained`."""
        return self.buffer.retained

    def replay(self, trajectories: Sequence[Trajectory]) -> None:
        """See `Algorithm.replay`."""
        self.buffer.refill(trajectories, self.buffer.mark)

    def update(self) -> UpdateReport:
        """See `Algorithm.update`."""
        if not self._samples:
            raise UsageError("nothing to train on: observe a trajectory before an update")
        trajectories = [sample.trajectory for sample in self._samples]
        _check_rewards(trajectories)
        self.buffer.evict()
        self.buffer.reserve(trajectories)
        before = self.state()
        try:
            for trajectory in trajectories:
                self.buffer.append(trajectory)
            if self._cadence.normalize_observations:
                self._statistics.update(np.concatenate([t.observations for t in trajectories]))
            first = self.num_timesteps
            self.num_timesteps += self._observed_steps
            metrics = self._train(range(first + 1, self.num_timesteps + 1)) | self._describe()
            self._check_finite(metrics)
        except BaseException:
            # Interrupted half-way or failed: either way nobody may see a half-trained policy.
            self.load_state(before)
            raise
        report = UpdateReport(metrics, self._observed_steps, len(self._samples))
        self.discard()
        return report

    def _describe(self) -> dict[str, float]:
        """The metrics that are not the gradient steps'."""
        return {
            "train/learning_rate": self._cadence.learning_rate_at(self.num_timesteps),
            "train/n_updates": float(self.n_updates),
            "replay/size": float(len(self.buffer)),
            **describe_lag(self._samples),
        }

    def _check_finite(self, metrics: dict[str, float]) -> None:
        """Raise NonFiniteError for anything that would be reported, published or kept."""
        for name, value in metrics.items():
            if not np.isfinite(value):
                raise NonFiniteError(f"{name} became {value}; the update was rolled back")
        for name, tensor in self._tensors().items():
            if not tensor.isfinite().all():
                raise NonFiniteError(f"{name} became infinite or NaN; the update was rolled back")

    # Observations --------------------------------------------------------------------------------

    def _normalization(self) -> ObservationNormalization | None:
        if not self._cadence.normalize_observations:
            return None
        return self._statistics.normalization(self._cadence.clip_observations)

    def _gather(self, slots: Tensor) -> Transitions:
        """The transitions at `slots`, their observations normalised as agents do it now."""
        drawn = self.buffer.gather(slots)
        if not self._cadence.normalize_observations:
            return drawn
        return replace(
            drawn,
            observations=self._normalize(drawn.observations),
            next_observations=self._normalize(drawn.next_observations),
        )

    def _observed(self) -> Tensor:
        """All that is new, final observations too, float32 [N + F, obs_dim], normalised."""
        trajectories = [sample.trajectory for sample in self._samples]
        rows = [trajectory.observations for trajectory in trajectories]
        rows += [t.final_observation[None] for t in trajectories if t.final_observation is not None]
        return self._normalize(torch.from_numpy(np.concatenate(rows)))

    def _normalize(self, observations: Tensor) -> Tensor:
        """`observations` float32 [M, obs_dim], written over."""
        normalization = self._normalization()
        if normalization is None:
            return observations
        mean, scale = torch.tensor(normalization.mean), torch.tensor(normalization.scale)
        return observations.sub_(mean).mul_(scale).clamp_(-normalization.clip, normalization.clip)

    # Resuming ------------------------------------------------------------------------------------

    def state(self) -> AlgorithmState:
        """See `Algorithm.state`. The buffer is told by a mark; its trajectories are not in it."""
        return AlgorithmState(
            algorithm=self._name,
            numbers={
                "num_timesteps": self.num_timesteps,
                "n_updates": self.n_updates,
                "observations.count": self._statistics.count,
                "replay.mark": self.buffer.mark,
                **self._numbers(),
            },
            arrays={
                **{name: tensor.numpy().copy() for name, tensor in self._tensors().items()},
                "generator": self._generator.get_state().numpy(),
                "observations.mean": self._statistics.mean.copy(),
                "observations.variance": self._statistics.variance.copy(),
            },
        )

    def load_state(self, state: AlgorithmState) -> None:
        """See `Algorithm.load_state`."""
        check_fits(state, self.state())
        generator = torch.Generator()
        try:
            generator.set_state(torch.tensor(state.arrays["generator"]))
        except RuntimeError as error:
            raise WireFormatError(f"the checkpoint's generator is not usable: {error}") from None
        self._generator.set_state(generator.get_state())
        for name, tensor in self._tensors().items():
            tensor.copy_(torch.tensor(state.arrays[name]))
        self._statistics.mean = state.arrays["observations.mean"].astype(np.float64)
        self._statistics.variance = state.arrays["observations.variance"].astype(np.float64)
        self._statistics.count = int(state.numbers["observations.count"])
        self.num_timesteps = int(state.numbers["num_timesteps"])
        self.n_updates = int(state.numbers["n_updates"])
        mark = int(state.numbers["replay.mark"])
        if not self.buffer.rewind(mark):
            self.buffer.clear(mark)

    def load_policy(self, policy: PolicyExport) -> None:
        """See `Algorithm.load_policy`."""
        check_normalization(policy, normalizes=self._cadence.normalize_observations)
        load_weights(self._acting_tensors(), policy.weights)
        if policy.extras.normalization is not None:
            self._statistics.adopt(policy.extras.normalization)


def _check_rewards(trajectories: Sequence[Trajectory]) -> None:
    """Raise NonFiniteError while it is known which trajectories are to blame."""
    for trajectory in trajectories:
        largest = float(np.abs(trajectory.rewards).max())
        if not largest <= LARGEST_REWARD:  # NaN is not, either
            raise NonFiniteError(
                f"a reward of {largest:g} would spoil the replay buffer; scale rewards"
            )
