"""Hyperparameters of PPO, with Stable-Baselines3's defaults."""

from typing import Annotated, Literal

import msgspec

from rl4sys_stream.config.hyperparameters.base import (
    Count,
    Fraction,
    Hyperparameters,
    NonNegative,
    Positive,
)
from rl4sys_stream.errors import ConfigError

__all__ = ["PPOParameters"]

LogStd = Annotated[float, msgspec.Meta(ge=-20, le=20)]
Schedule = Literal["constant", "linear"]


class PPOParameters(Hyperparameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How PPO (Schulman et al. 2017, arXiv:1707.06347) trains.

    Attributes:
        critic_learning_rate: Adam's step size for the critic; None takes `learning_rate`, which is
            the actor's.
        learning_rate_schedule: "constant", or "linear": both rates fall to 0 at `total_timesteps`.
        clip_range_schedule: "constant", or "linear": `clip_range` falls to 0 at `total_timesteps`.
        total_timesteps: Environment steps at which a linear schedule ends; read by it alone.
        n_steps: Environment steps, over all agents of the client, that one update trains on.
        batch_size: Steps in a minibatch; at most `n_steps`.
        n_epochs: Passes over the rollout in one update.
        gae_lambda: λ of generalised advantage estimation (Schulman et al. 2015, arXiv:1506.02438).
        clip_range: ε of the clipped objective.
        clip_range_vf: Largest change of a value in one update, in units of return; None: no limit.
        normalize_advantage: Whether each minibatch's advantages get mean 0 and deviation 1.
        log_std_init: Logarithm of the standard deviation that real-valued actions begin with, in
            the action's unit, or before tanh; read for these alone.
        ent_coef: Weight of the entropy bonus.
        vf_coef: Weight of the value loss.
        max_grad_norm: Longest gradient, by its 2-norm.
        target_kl: An update stops early at 1.5 times this mean KL divergence; None: never.
        normalize_observations: Whether observations are standardised by running statistics, which
            are published with each model version.
        clip_observations: Largest magnitude of a standardised observation, in deviations.
        normalize_rewards: Whether rewards are divided by the running deviation of the discounted
            return, which is summed within each trajectory; `rollout/` metrics stay as they are.
        clip_rewards: Largest magnitude of a reward so divided, in deviations.
        vtrace: Whether lagging steps are corrected by V-trace (Espeholt et al. 2018,
            arXiv:1802.01561).
        rho_bar: ρ̄ of V-trace, the largest weight of a step's error; read by it alone.
        c_bar: c̄ of V-trace, the largest trust in what follows a step; at most `rho_bar`.
    """

    critic_learning_rate: Positive | None = None
    learning_rate_schedule: Schedule = "constant"
    clip_range_schedule: Schedule = "constant"
    total_timesteps: Count | None = None
    n_steps: Count = 2048
    batch_size: Count = 64
    n_epochs: Count = 10
    gae_lambda: Fraction = 0.95
    clip_range: Positive = 0.2
    clip_range_vf: Positive | None = None
    normalize_advantage: bool = True
    log_std_init: LogStd = 0.0
    ent_coef: NonNegative = 0.0
    vf_coef: NonNegative = 0.5
    max_grad_norm: Positive = 0.5
    target_kl: Positive | None = None
    normalize_observations: bool = False
    clip_observations: Positive = 10.0
    normalize_rewards: bool = False
    clip_rewards: Positive = 10.0
    vtrace: bool = False
    rho_bar: Positive = 1.0
    c_bar: Positive = 1.0

    @property
    def steps_per_update(self) -> int:
        """See `Hyperparameters.steps_per_update`."""
        return self.n_steps

    def __post_init__(self) -> None:
        """Refuse combinations that cannot train.

        Raises:
            ConfigError: With the inequality in words.
        """
        if self.batch_size > self.n_steps:
            raise ConfigError(
                f"a minibatch of {self.batch_size} steps is larger than the rollout it is drawn "
                f"from: batch_size must be <= n_steps, which is {self.n_steps}",
                path="batch_size",
            )
        if self.normalize_advantage and self.batch_size == 1:
            raise ConfigError(
                "one advantage has no deviation to normalise by: batch_size must be >= 2, or "
                "normalize_advantage false",
                path="batch_size",
            )
        if self.c_bar > self.rho_bar:
            raise ConfigError(
                f"V-trace cannot trust what follows a step more than the step itself: c_bar must "
                f"be <= rho_bar, which is {self.rho_bar:g}; not {self.c_bar:g}",
                path="c_bar",
            )
        self._check_schedules()

    def _check_schedules(self) -> None:
        linear = self._linear_schedules()
        if not linear:
            return
        if self.total_timesteps is None:
            raise ConfigError(
                f"a linear schedule needs its end: set total_timesteps, or {linear[0]} to "
                '"constant"',
                path=linear[0],
            )
        if self.total_timesteps < self.n_steps:
            raise ConfigError(
                f"the schedule would end before the first update: total_timesteps must be >= "
                f"n_steps, which is {self.n_steps}",
                path="total_timesteps",
            )

    def _linear_schedules(self) -> list[str]:
        names = ("learning_rate_schedule", "clip_range_schedule")
        return [name for name in names if getattr(self, name) == "linear"]

    def unread(self) -> dict[str, str]:
        """See `Hyperparameters.unread`."""
        found: dict[str, str] = {}
        if self.total_timesteps is not None and not self._linear_schedules():
            found["total_timesteps"] = 'only a "linear" schedule reads it'
        return (
            found
            | self._unread_without("normalize_observations", ("clip_observations",))
            | self._unread_without("normalize_rewards", ("clip_rewards",))
            | self._unread_without("vtrace", ("rho_bar", "c_bar"))
        )
