"""What is run: the settings of one demo, and the client definition that both sides read."""

import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Final

__all__ = ["CLIENT", "DemoSettings", "application_definition", "packaged_definition"]

CLIENT: Final = "lunar_lander"
ENVIRONMENT: Final = "LunarLander-v3"

SHORTEST_EPISODE_STEPS: Final = 32
"""No Lunar Lander episode is as short; so many stream entries can make up one rollout."""
PATIENCE_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """One run of the demo.

    Attributes:
        seed: Of the environment, the sampling of actions and the learner.
        max_steps: Environment steps, over all applications, after which the run ends.
        target: Mean return of the last 100 training episodes that ends the run as learned.
        out: Folder in which the run folder is made.
        redis_url: A broker that runs already, with a dispatcher or worker beside it; None starts
            both. May hold a password.
        agents: Application processes, each with an agent of its own.
        gif: Whether the trained policy's landing is filmed.
        plain: Lines instead of a live display.
    """

    seed: int
    max_steps: int
    target: float
    out: Path
    redis_url: str | None = field(default=None, repr=False)
    agents: int = 1
    gif: bool = True
    plain: bool = False


def packaged_definition() -> dict[str, object]:
    """The client's definition as it is installed; equal to workers/lunar_lander.json."""
    data = resources.files(__package__).joinpath(f"{CLIENT}.json").read_bytes()
    found: dict[str, object] = json.loads(data)
    return found


def application_definition(seed: int) -> dict[str, object]:
    """The packaged definition with what this run adds, for the worker and the agents alike.

    A simulator can wait, and every step that it takes with an old policy is a step badly used. So
    the agents block instead of dropping. `Pace` keeps the simulator within one rollout; the high
    water mark stands behind it in case the worker is away for long. The mark counts entries, so it
    must be above the entries that the shortest episodes need for one rollout: below, the worker
    would wait for the rest of a rollout, and the agent for the worker.

    Args:
        seed: Of the learner.
    """
    definition = packaged_definition()
    parameters = definition["algorithm_parameters"]
    if not isinstance(parameters, dict):
        raise TypeError(parameters)
    rollout_entries = -(-int(parameters["n_steps"]) // SHORTEST_EPISODE_STEPS)
    definition["algorithm_parameters"] = {**parameters, "seed": seed}
    definition["agent"] = {
        "drop_policy": "block",
        "block_timeout_s": PATIENCE_S,
        "high_water_entries": rollout_entries,
        "queue_entries": rollout_entries,
    }
    return definition
