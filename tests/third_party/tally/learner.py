"""The learner, which only workers import."""

from collections.abc import Sequence

import numpy as np
import torch

from rl4sys_stream.algorithms.base import AlgorithmState, PolicyExport, Sample, UpdateReport
from rl4sys_stream.algorithms.checkpoint import check_fits
from rl4sys_stream.algorithms.networks import make_actor
from rl4sys_stream.config import ClientSpec
from rl4sys_stream.errors import NonFiniteError, UsageError
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.spaces import Discrete, flat_dim
from rl4sys_stream.wire.snapshot import Weights
from rl4sys_stream.wire.trajectory import Trajectory

from .definition import TallyParameters  # noqa: TID252 -- installed nowhere that linters look

__all__ = ["Tally"]


class Tally:
    """Sums of rewards and counts by action; the policy's logits are the means, sharpened."""

    retained = 0

    def __init__(self, spec: ClientSpec, parameters: TallyParameters, *, seed: int) -> None:
        """Begin with nothing counted; `seed` decides nothing."""
        if not isinstance(spec.action_space, Discrete):
            raise UsageError("a tally is kept of discrete actions")
        self._parameters = parameters
        self._sums = np.zeros(spec.action_space.n)
        self._counts = np.zeros(spec.action_space.n, np.int64)
        self._samples: list[Sample] = []
        observations, generator = flat_dim(spec.observation_space), torch.Generator()
        self._actor = make_actor(observations, spec.action_space.n, spec.network, generator)

    def replay(self, trajectories: Sequence[Trajectory]) -> None:
        """Nothing is retained."""

    def observe(self, sample: Sample) -> None:
        """See `Algorithm.observe`."""
        self._samples.append(sample)

    def ready(self) -> bool:
        """At `update_steps` steps."""
        return self._steps() >= self._parameters.update_steps

    def discard(self) -> None:
        """See `Algorithm.discard`."""
        self._samples = []

    def update(self) -> UpdateReport:
        """Count what was observed."""
        actions = np.concatenate([sample.trajectory.actions for sample in self._samples])
        rewards = np.concatenate([sample.trajectory.rewards for sample in self._samples])
        if not np.isfinite(rewards).all():
            raise NonFiniteError("a reward is not finite")
        np.add.at(self._sums, actions, rewards)
        np.add.at(self._counts, actions, 1)
        report = UpdateReport(
            {"train/best": float(self._means().max())}, self._steps(), len(self._samples)
        )
        self.discard()
        return report

    def export(self) -> PolicyExport:
        """The means as the last layer's biases; all else is 0."""
        self._actor.vector.zero_()
        *_, biases = self._actor.tensors().values()
        biases[:] = self._parameters.sharpness * self._means()
        return PolicyExport(Weights.from_tensors(self._actor.tensors()), BehaviorExtras())

    def state(self) -> AlgorithmState:
        """See `Algorithm.state`."""
        arrays = {"sums": self._sums.copy(), "counts": self._counts.copy()}
        return AlgorithmState("Tally", {}, arrays)

    def load_state(self, state: AlgorithmState) -> None:
        """See `Algorithm.load_state`."""
        check_fits(state, self.state())
        self._sums = state.arrays["sums"].astype(np.float64)
        self._counts = state.arrays["counts"].astype(np.int64)

    def load_policy(self, policy: PolicyExport) -> None:
        """The biases say what the means were; how often each action was taken is not known."""
        *_, biases = policy.weights.tensors().values()
        self._counts[:] = 1
        self._sums[:] = biases / self._parameters.sharpness

    def _steps(self) -> int:
        return sum(len(sample.trajectory.actions) for sample in self._samples)

    def _means(self) -> np.ndarray:
        return self._sums / np.maximum(self._counts, 1)
