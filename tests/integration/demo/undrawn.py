"""An application's own environment, as plain as Gymnasium lets it be; importing it registers it."""

from typing import Any, cast

import gymnasium
import numpy as np


class Undrawn(gymnasium.Env[Any, Any]):
    """Nested observations, choices in two axes, ten steps; knows of no render mode."""

    observation_space = gymnasium.spaces.Dict(
        {"load": gymnasium.spaces.Box(0, 1, (2,)), "mode": gymnasium.spaces.Discrete(3)}
    )
    action_space = gymnasium.spaces.MultiBinary((2, 2))

    def __init__(self) -> None:
        self.at = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin."""
        super().reset(seed=seed, options=options)
        self.at = 0
        return self._show(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The reward is how many are switched on."""
        assert self.action_space.contains(action)
        self.at += 1
        return self._show(), float(np.sum(action)), False, self.at == 10, {}

    def _show(self) -> Any:
        return {"load": np.full(2, self.at / 10, np.float32), "mode": self.at % 3}


# Gymnasium's type of an entry point asks for what its `make` does without.
gymnasium.register("Undrawn-v0", cast("Any", Undrawn))
