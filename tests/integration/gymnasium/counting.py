"""An environment that shows where it is: every observation is another one, and says which."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rl4sys_stream.gymnasium import Environments
from tests.integration.agent.world import N_ACTIONS, OBS_DIM


class Counting(gymnasium.Env[Any, Any]):
    """Observations are [number of the environment, number of the episode, step]; rewards count."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBS_DIM,), np.float32)
    action_space = gymnasium.spaces.Discrete(N_ACTIONS)

    def __init__(
        self, number: int = 0, *, length: int = 3, end: str = "truncated", draws: bool = True
    ) -> None:
        self.number = number
        self.length = length + number
        self.end = end
        self.draws = draws
        self.episode = -1
        self.at = 0
        self.seeds: list[int | None] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin the next episode."""
        self.seeds.append(seed)
        self.episode, self.at = self.episode + 1, 0
        return self._show(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step on; the reward is its number, from 1."""
        assert self.action_space.contains(action) or int(action) in range(N_ACTIONS)
        self.at += 1
        over = self.end != "never" and self.at >= self.length
        terminated, truncated = over and self.end == "terminated", over and self.end == "truncated"
        return self._show(), float(self.at), terminated, truncated, self._info()

    def render(self) -> Any:
        """A bar that grows by a tenth with each step, 960 pixels wide."""
        if not self.draws:
            return None
        picture = np.full((640, 960, 3), 255, np.uint8)
        picture[280:360, : 96 * self.at] = (11, 105, 163)
        return picture

    def _show(self) -> Any:
        return np.array([self.number, self.episode, self.at], np.float32)

    def _info(self) -> dict[str, Any]:
        """All actions but one are allowed, another one at each step."""
        mask = np.ones(N_ACTIONS, np.int8)
        mask[self.at % N_ACTIONS] = 0
        return {"action_mask": mask}


FORMS = ("one", "list", "NextStep", "SameStep", "Disabled")


def make(form: str, **settings: Any) -> Environments:
    """One environment, or two of them in each form that can be played."""
    if form == "one":
        return Counting(**settings)
    if form == "list":
        return [Counting(number, **settings) for number in range(2)]
    makers = [lambda number=number: Counting(number, **settings) for number in range(2)]
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode(form))
