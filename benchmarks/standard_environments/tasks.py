"""Which environments are learned, by which definition, for how long, and what is asked of them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["TASKS", "Task", "find_task"]

ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One environment.

    Attributes:
        name: Of its definition in workers/, and of the client.
        environment: Gymnasium's id.
        steps: Environment steps of training.
        episodes: Greedy episodes that are played after it.
        threshold: Mean return that counts as learned; None: within 5 % of the optimum, which the
            rules say.
    """

    name: str
    environment: str
    steps: int
    episodes: int = 100
    threshold: float | None = None

    @property
    def definition(self) -> Path:
        """The shipped file."""
        return ROOT / "workers" / f"{self.name}.json"

    def write_definition(self, folder: Path, seed: int) -> Path:
        """The shipped definition with a seed of the learner's, in `folder`."""
        shipped = json.loads(self.definition.read_text(encoding="utf-8"))
        shipped["algorithm_parameters"]["seed"] = seed
        path = folder / self.definition.name
        path.write_text(json.dumps(shipped, indent=1), encoding="utf-8")
        return path


TASKS: Final = (
    # The optimum of a run of 100 moves on the slippery lake, and of a hand of Blackjack, is a mean:
    # the more episodes, the closer what is played comes to what is computed.
    Task(name="frozen_lake", environment="FrozenLake-v1", steps=60_000, episodes=1000),
    Task(name="cliff_walking", environment="CliffWalking-v1", steps=20_000),
    Task(name="blackjack", environment="Blackjack-v1", steps=500_000, episodes=10_000),
    Task(name="mountain_car", environment="MountainCar-v0", steps=120_000, threshold=-110.0),
    # rl-baselines3-zoo's trained PPO.
    Task(
        name="lunar_lander_continuous",
        environment="LunarLanderContinuous-v3",
        steps=1_000_000,
        threshold=270.9,
    ),
)


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
        KeyError: If there is none; its argument is a sentence.
    """
    for task in TASKS:
        if task.name == name:
            return task
    raise KeyError(f"there is no task {name!r}; there are {', '.join(t.name for t in TASKS)}")
