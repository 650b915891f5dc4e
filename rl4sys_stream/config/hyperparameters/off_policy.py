"""Hyperparameters that all learners with a replay buffer share."""

from typing import Annotated, Literal

import msgspec

from rl4sys_stream.config.hyperparameters.base import Count, Hyperparameters, Positive
from rl4sys_stream.errors import ConfigError

__all__ = ["NonNegativeCount", "OffPolicyParameters"]

NonNegativeCount = Annotated[int, msgspec.Meta(ge=0)]
GradientSteps = Annotated[int, msgspec.Meta(ge=-1)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class OffPolicyParameters(Hyperparameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a learner trains that draws what it trains on from a replay buffer.

    Steps are environment steps over all agents of the client, in the order in which they arrive.

    Attributes:
        learning_rate_schedule: "constant", or "linear": the rate falls to 0 at `total_timesteps`.
        total_timesteps: Environment steps at which schedules end.
        buffer_size: Steps that the replay buffer holds; whole trajectories, the newest ones.
        batch_size: Transitions in a minibatch.
        learning_starts: Steps before the first gradient step.
        train_freq: Gradient steps are due each time this many more steps have arrived.
        gradient_steps: How many are due then; -1: as many as `train_freq`.
        update_steps: Steps that one update takes in, before it does the gradient steps that are
            due and the next model version is published.
        tau: Share of the online network that each move mixes into the target network; 1 copies.
        target_update_interval: Steps between two moves of the target network.
        normalize_observations: Whether observations are standardised by running statistics, which
            are published with each model version; the buffer holds raw ones.
        clip_observations: Largest magnitude of a standardised observation, in deviations.
    """

    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    total_timesteps: Count | None = None
    buffer_size: Count = 1_000_000
    batch_size: Count = 256
    learning_starts: NonNegativeCount = 100
    train_freq: Count = 1
    gradient_steps: GradientSteps = 1
    update_steps: Count = 64
    tau: Share = 0.005
    target_update_interval: Count = 1
    normalize_observations: bool = False
    clip_observations: Positive = 10.0

    @property
    def steps_per_update(self) -> int:
        """See `Hyperparameters.steps_per_update`."""
        return self.update_steps

    @property
    def replayed_steps(self) -> int:
        """See `Hyperparameters.replayed_steps`."""
        return self.buffer_size

    def __post_init__(self) -> None:
        """Refuse combinations that cannot train.

        Raises:
            ConfigError: With the inequality in words.
        """
        needs = (
            ("batch_size", "a minibatch is drawn from the buffer"),
            ("update_steps", "what one update takes in must fit"),
            ("learning_starts", "steps before it would be forgotten unused"),
        )
        for name, why in needs:
            if getattr(self, name) > self.buffer_size:
                raise ConfigError(
                    f"{why}: {name} must be <= buffer_size, which is {self.buffer_size}", path=name
                )
        if self.gradient_steps == 0:
            raise ConfigError(
                "nothing would ever be learned: gradient_steps must be >= 1, or -1 for as many as "
                "train_freq",
                path="gradient_steps",
            )
        if self.learning_rate_schedule == "linear" and self.total_timesteps is None:
            raise ConfigError(
                "a linear schedule needs its end: set total_timesteps, or "
                'learning_rate_schedule to "constant"',
                path="learning_rate_schedule",
            )
        if self._has_schedule:
            self._check_schedules_end()

    @property
    def _has_schedule(self) -> bool:
        """Whether something changes until `total_timesteps`."""
        return self.learning_rate_schedule == "linear"

    @property
    def first_gradient_step(self) -> int:
        """The environment step that is the first to make a gradient step due."""
        return (self.learning_starts // self.train_freq + 1) * self.train_freq

    def _check_schedules_end(self) -> None:
        """Refuse schedules that end before anything is learned.

        Raises:
            ConfigError: With the inequality in words.
        """
        first = self.first_gradient_step
        if self.total_timesteps is not None and self.total_timesteps <= first:
            raise ConfigError(
                f"schedules would end before anything is learned: with learning_starts "
                f"{self.learning_starts} and train_freq {self.train_freq} the first gradient step "
                f"is due at environment step {first}, and total_timesteps must be > {first}; not "
                f"{self.total_timesteps}",
                path="total_timesteps",
            )

    def gradient_steps_at(self, step: int) -> int:
        """Gradient steps that become due when environment step `step`, from 1, has arrived."""
        if step <= self.learning_starts or step % self.train_freq:
            return 0
        return self.train_freq if self.gradient_steps == -1 else self.gradient_steps

    def unread(self) -> dict[str, str]:
        """See `Hyperparameters.unread`."""
        found: dict[str, str] = {}
        if self.total_timesteps is not None and not self._has_schedule:
            found["total_timesteps"] = "no schedule that was chosen reads it"
        return found | self._unread_without("normalize_observations", ("clip_observations",))

    def learning_rate_at(self, step: int) -> float:
        """The optimizer's step size once `step` environment steps have arrived."""
        if self.learning_rate_schedule == "constant" or self.total_timesteps is None:
            return self.learning_rate
        return self.learning_rate * max(0.0, 1.0 - step / self.total_timesteps)
