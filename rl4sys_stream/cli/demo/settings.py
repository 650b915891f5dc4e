"""What the command line says of one demo."""

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["DemoSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """One run of the demo.

    Attributes:
        seed: Of the environment, the sampling of actions and the learner.
        max_steps: Environment steps, over all applications, after which the run ends; None: where
            the definition's schedules end, else 300,000.
        target: Mean return of the last 100 training episodes that ends the run as learned; None:
            what Gymnasium says of the environment.
        out: Folder in which the run folder is made.
        redis_url: A broker that runs already, with a dispatcher or worker beside it; None starts
            both. May hold a password.
        agents: Application processes, each with an agent of its own.
        envs: Environments in each of them.
        algorithm: Name of the algorithm; None: the definition's.
        config: The definition; None looks for one.
        max_episode_steps: Longer episodes are truncated; None: the environment's own limit.
        eval_episodes: Episodes that the trained policy plays, unrecorded; 0: none.
        gif: Whether the best of them is filmed.
        video: Where the film goes; None: into the run folder.
        plain: Lines instead of a live display.
    """

    seed: int
    max_steps: int | None
    target: float | None
    out: Path
    redis_url: str | None = field(default=None, repr=False)
    agents: int = 1
    envs: int = 1
    algorithm: str | None = None
    config: Path | None = None
    max_episode_steps: int | None = None
    eval_episodes: int = 5
    gif: bool = True
    video: Path | None = None
    plain: bool = False
