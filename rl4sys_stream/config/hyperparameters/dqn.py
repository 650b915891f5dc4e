"""Hyperparameters of DQN, with Stable-Baselines3's defaults."""

from rl4sys_stream.config.hyperparameters.base import Count, Fraction, Positive
from rl4sys_stream.config.hyperparameters.off_policy import OffPolicyParameters, Share
from rl4sys_stream.errors import ConfigError

__all__ = ["DQNParameters"]


class DQNParameters(OffPolicyParameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How DQN (Mnih et al. 2015, doi:10.1038/nature14236) trains.

    Attributes:
        exploration_fraction: Share of `total_timesteps` over which the exploration rate falls.
        exploration_initial_eps: Exploration rate at first: the share of actions that are random.
        exploration_final_eps: Exploration rate in the end.
        max_grad_norm: Longest gradient, by its 2-norm.
        n_step: Steps of reward before the bootstrap.
        double_q: Whether the online network chooses the action that the target network values (van
            Hasselt et al. 2016, arXiv:1509.06461).
        dueling: Whether the network has one stream for the value of a state and one for the
            advantages of its actions (Wang et al. 2016, arXiv:1511.06581).
        prioritized_replay: Whether transitions are drawn by how wrong their value was (Schaul et
            al. 2016, arXiv:1511.05952).
        prioritized_replay_alpha: Exponent of the priorities; 0 draws uniformly.
        prioritized_replay_beta0: Exponent of the importance weights at first; it rises to 1 at
            `total_timesteps`.
    """

    learning_rate: Positive = 1e-4
    batch_size: Count = 32
    train_freq: Count = 4
    tau: Share = 1.0
    target_update_interval: Count = 10_000
    exploration_fraction: Fraction = 0.1
    exploration_initial_eps: Fraction = 1.0
    exploration_final_eps: Fraction = 0.05
    max_grad_norm: Positive = 10.0
    n_step: Count = 1
    double_q: bool = False
    dueling: bool = False
    prioritized_replay: bool = False
    prioritized_replay_alpha: Fraction = 0.6
    prioritized_replay_beta0: Fraction = 0.4

    def __post_init__(self) -> None:
        """Refuse combinations that cannot train.

        Raises:
            ConfigError: With the inequality in words.
        """
        super().__post_init__()
        if self.exploration_final_eps > self.exploration_initial_eps:
            raise ConfigError(
                f"exploration would grow: exploration_final_eps must be <= "
                f"exploration_initial_eps, which is {self.exploration_initial_eps:g}",
                path="exploration_final_eps",
            )
        if self.total_timesteps is None and self._explores_less_over_time:
            raise ConfigError(
                "the exploration rate falls until exploration_fraction of total_timesteps: set "
                "total_timesteps, or exploration_initial_eps to exploration_final_eps",
                path="total_timesteps",
            )
        if self.total_timesteps is None and self.prioritized_replay:
            raise ConfigError(
                "the importance weights of prioritized_replay become whole at total_timesteps: "
                "set it",
                path="total_timesteps",
            )

    @property
    def _explores_less_over_time(self) -> bool:
        falls = self.exploration_initial_eps > self.exploration_final_eps
        return falls and self.exploration_fraction > 0.0

    @property
    def _has_schedule(self) -> bool:
        """See `OffPolicyParameters._has_schedule`."""
        linear = self.learning_rate_schedule == "linear"
        return linear or self.prioritized_replay or self._explores_less_over_time

    def epsilon_at(self, step: int) -> float:
        """The exploration rate once `step` environment steps have arrived."""
        end = self.exploration_fraction * (self.total_timesteps or 0)
        if step >= end:
            return self.exploration_final_eps
        span = self.exploration_final_eps - self.exploration_initial_eps
        return self.exploration_initial_eps + span * step / end

    def beta_at(self, step: int) -> float:
        """The exponent of the importance weights once `step` environment steps have arrived."""
        progress = min(1.0, step / (self.total_timesteps or 1))
        return self.prioritized_replay_beta0 + (1.0 - self.prioritized_replay_beta0) * progress

    def unread(self) -> dict[str, str]:
        """See `Hyperparameters.unread`."""
        return super().unread() | self._unread_without(
            "prioritized_replay", ("prioritized_replay_alpha", "prioritized_replay_beta0")
        )
