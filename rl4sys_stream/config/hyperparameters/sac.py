"""Hyperparameters of SAC, with Stable-Baselines3's defaults."""

import math
from typing import Final, Literal

from rl4sys_stream.config.hyperparameters.base import NonNegative
from rl4sys_stream.config.hyperparameters.off_policy import OffPolicyParameters
from rl4sys_stream.errors import ConfigError

__all__ = ["SACParameters"]

AUTO: Final = "auto"
AUTO_FROM: Final = "auto_"


class SACParameters(OffPolicyParameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How SAC (Haarnoja et al. 2018, arXiv:1812.05905) trains.

    Attributes:
        target_update_interval: Gradient steps between two moves of the target critics; not
            environment steps, as elsewhere.
        ent_coef: Weight of the entropy, the paper's temperature α; "auto" learns it from 1 on,
            "auto_0.1" from 0.1 on.
        target_entropy: Entropy in nats, of actions on [-1, 1], that a learned `ent_coef` aims at;
            "auto": less one for each element of an action.
    """

    ent_coef: NonNegative | str = AUTO
    target_entropy: float | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot train.

        Raises:
            ConfigError: With the inequality in words.
        """
        super().__post_init__()
        if not (self.initial_ent_coef > 0.0 or self.ent_coef == 0.0):
            raise ConfigError(
                f"{self.ent_coef!r} is no weight of the entropy: ent_coef must be a number >= 0, "
                '"auto", or "auto_" and the number > 0 that it begins with, as in "auto_0.1"',
                path="ent_coef",
            )
        if self.target_entropy != "auto" and not self.learns_ent_coef:
            raise ConfigError(
                f"nothing aims at target_entropy while ent_coef stays {self.ent_coef}: set "
                'ent_coef to "auto", or leave target_entropy out',
                path="target_entropy",
            )

    @property
    def learns_ent_coef(self) -> bool:
        """Whether `ent_coef` follows the entropy."""
        return isinstance(self.ent_coef, str)

    @property
    def initial_ent_coef(self) -> float:
        """What the weight of the entropy begins with; NaN if `ent_coef` does not say."""
        if not isinstance(self.ent_coef, str):
            return self.ent_coef
        if self.ent_coef == AUTO:
            return 1.0
        try:
            begin = float(self.ent_coef.removeprefix(AUTO_FROM))
        except ValueError:
            return math.nan
        known = self.ent_coef.startswith(AUTO_FROM) and math.isfinite(begin)
        return begin if known else math.nan

    def target_entropy_of(self, action_dim: int) -> float:
        """`target_entropy` for actions of `action_dim` elements, in nats."""
        return -float(action_dim) if self.target_entropy == "auto" else self.target_entropy
