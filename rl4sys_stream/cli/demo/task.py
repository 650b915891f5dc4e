"""What a demo is about: an environment, the client that learns it, and with which settings.

In: a name from the command line, a definition from workers/ where there is one, the environment's
spaces. Out: one whole definition, which worker and applications read.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import gymnasium
import msgspec

from rl4sys_stream.cli.demo.settings import DemoSettings
from rl4sys_stream.config import ClientConfig, find_algorithm, load_config
from rl4sys_stream.config.client import replayed_steps_that_fit
from rl4sys_stream.config.hyperparameters import OffPolicyParameters
from rl4sys_stream.config.load import DEFAULT_WORKERS_DIR, WORKERS_DIR_VARIABLE
from rl4sys_stream.config.spec import action_format
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.gymnasium import make_environment
from rl4sys_stream.spaces import Box, Space, as_space, flat_dim, space_to_json

__all__ = ["Task", "find_task", "packaged_definition"]

PACKAGED: Final = "lunar_lander"
PATIENCE_S: Final = 3600.0
MAX_STEPS: Final = 300_000
"""Where nothing else says when to give up."""
SHORTEST_CUT: Final = 16
"""Shorter trajectories cost more to send than they bring the learner earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is learned.

    Attributes:
        environment: Gymnasium's id.
        client: Name of the client.
        algorithm: Name of the algorithm.
        target: Mean return of the last 100 training episodes that counts as learned; None: nobody
            says, and the run goes on until it is out of steps.
        max_steps: Environment steps, over all applications, after which a run ends.
        definition: Everything that worker and agents read, as JSON-ready data.
        source: Where the settings are from, in words.
        film_name: What the film is called in the run folder.
        draws: Whether the environment draws the pictures that a film is made of.
    """

    environment: str
    client: str
    algorithm: str
    target: float | None
    max_steps: int
    definition: Mapping[str, object]
    source: str
    film_name: str = "film.gif"
    draws: bool = True


def packaged_definition() -> Path:
    """The definition that is installed; equal to workers/lunar_lander.json."""
    return Path(str(resources.files(__package__).joinpath(f"{PACKAGED}.json")))


def find_task(name: str, settings: DemoSettings, environ: Mapping[str, str]) -> Task:
    """The task that the command line means.

    The definition is `settings.config`, else the file in the folder of definitions
    ($RL4SYS_STREAM_WORKERS_DIR, else ./workers) that is called like the environment, or like it
    and the algorithm, else the installed one; else the defaults.

    Args:
        name: An environment's id, or its name alone in any spelling: `lunar_lander`.
        settings: Of the run.
        environ: The environment variables.

    Raises:
        ConfigError: If there is no such environment, its spaces are not supported or not those of
            the definition, it is to be filmed and cannot, or the settings cannot work.
    """
    environment = _identify(name)
    source = settings.config or _search(environment, settings.algorithm, environ)
    env = make_environment(environment, max_episode_steps=settings.max_episode_steps)
    try:
        config = _configure(environment, env, source, settings)
    finally:
        env.close()
    draws = "rgb_array" in (env.metadata.get("render_modes") or ())
    if settings.video is not None and not draws:
        raise ConfigError(
            f"{environment} draws no pictures (render mode rgb_array); leave --video out"
        )
    threshold = env.spec.reward_threshold if env.spec else None
    client = config.client_id or _client_name(environment)
    return Task(
        environment=environment,
        client=client,
        algorithm=config.algorithm,
        target=threshold if settings.target is None else settings.target,
        max_steps=settings.max_steps or _schedules_end(config) or MAX_STEPS,
        definition=_whole(config, client, settings),
        source=str(source) if source else "the defaults",
        film_name="landing.gif" if _squash(environment) == _squash(PACKAGED) else "film.gif",
        draws=draws,
    )


def _squash(name: str) -> str:
    """Letters and digits of a name without its version, for comparison."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"-v\d+$", "", name).lower())


def _identify(name: str) -> str:
    """The id that `name` is, or is short for: of several versions the newest."""
    if name in gymnasium.registry or ":" in name or "/" in name:
        return name
    kin = [spec for spec in gymnasium.registry.values() if _squash(spec.id) == _squash(name)]
    if not kin or re.search(r"-v\d+$", name):
        return name
    return max(kin, key=lambda spec: spec.version or 0).id


def _client_name(environment: str) -> str:
    """`LunarLander-v3` -> `lunar_lander`."""
    stem = re.sub(r"-v\d+$", "", environment.rpartition(":")[2])
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", stem).lower()
    return re.sub(r"[^a-z0-9]+", "_", snake).strip("_")[:64]


def _search(environment: str, algorithm: str | None, environ: Mapping[str, str]) -> Path | None:
    """The file that is called like the environment; with an algorithm, one that trains by it."""
    folder = Path(environ.get(WORKERS_DIR_VARIABLE) or DEFAULT_WORKERS_DIR)
    named = sorted(folder.glob("*.json")) if folder.is_dir() else []
    plain = _squash(environment)
    if algorithm is None:
        return next(iter(_called([*named, packaged_definition()], plain)), None)
    wanted = [*_called(named, plain + _squash(algorithm)), *_called(named, plain)]
    wanted += _called([packaged_definition()], plain)
    return next((path for path in wanted if _trains_by(path, algorithm)), None)


def _called(paths: Iterable[Path], name: str) -> list[Path]:
    return [path for path in paths if _squash(path.stem) == name]


def _trains_by(path: Path, algorithm: str) -> bool:
    return load_config(path, environ={}).algorithm == algorithm


def _configure(
    environment: str,
    env: "gymnasium.Env[object, object]",
    source: Path | None,
    settings: DemoSettings,
) -> ClientConfig:
    overrides = _overrides(source, settings)
    stated = load_config(source, environ={}, overrides=overrides)
    spaces: dict[str, Space] = {}
    for name in ("observation_space", "action_space"):
        try:
            spaces[name] = as_space(getattr(env, name), path=name)
        except ConfigError as error:
            raise ConfigError(f"{environment}: {error}") from None
        defined = getattr(stated, name)
        if defined is not None and _shape(defined) != _shape(spaces[name]):
            raise ConfigError(
                f"{source} says {defined}, and {environment} has {spaces[name]}; take another "
                "definition with --config, or another environment",
                path=name,
            )
        # What is stated stays, its bounds too: agents of the same client elsewhere state it so.
        spaces[name] = defined or spaces[name]
    boxed = isinstance(spaces["observation_space"], Box)
    if source is None and stated.algorithm == "PPO" and boxed:
        overrides["algorithm_parameters.normalize_observations"] = True
    if source is None:
        overrides |= _fitting_buffer(stated, spaces)
    client = stated.client_id or _client_name(environment)
    if source is None and settings.algorithm is not None:
        client = f"{client}_{settings.algorithm.lower()}"[:64]
    return load_config(
        source,
        environ={},
        client_id=client,
        observation_space=spaces["observation_space"],
        action_space=spaces["action_space"],
        overrides=overrides,
    )


def _fitting_buffer(stated: ClientConfig, spaces: Mapping[str, Space]) -> dict[str, object]:
    """A smaller replay buffer than the default, where large observations leave no room for that."""
    if not isinstance(stated.parameters, OffPolicyParameters):
        return {}
    actions = action_format(stated.algorithm, spaces["action_space"], stated.network)
    dim = flat_dim(spaces["observation_space"])
    fit = replayed_steps_that_fit(dim, actions, stated.worker.retained_bytes)
    if stated.parameters.buffer_size <= fit:
        return {}
    return {"algorithm_parameters.buffer_size": fit}


def _schedules_end(config: ClientConfig) -> int | None:
    """Where the learner is through with what it was told to do; None where no schedule ends."""
    end: int | None = getattr(config.parameters, "total_timesteps", None)
    return end


def _overrides(source: Path | None, settings: DemoSettings) -> dict[str, object]:
    """What the command line says of the client's settings."""
    overrides: dict[str, object] = {"algorithm_parameters.seed": settings.seed}
    if settings.algorithm is None:
        return overrides
    overrides["algorithm"] = settings.algorithm
    definition = find_algorithm(settings.algorithm)
    scheduled = "total_timesteps" in definition.parameters.__struct_fields__
    if source is None and scheduled and not definition.on_policy:
        # Exploration may have to end, and nothing but the command line says when.
        overrides["algorithm_parameters.total_timesteps"] = settings.max_steps or MAX_STEPS
    return overrides


def _shape(space: Space) -> object:
    """The space as JSON without its bounds, which a definition may leave out."""

    def bare(value: object) -> object:
        if isinstance(value, dict):
            return {key: bare(item) for key, item in value.items() if key not in {"low", "high"}}
        return [bare(item) for item in value] if isinstance(value, list) else value

    return bare(space_to_json(space))


def _whole(config: ClientConfig, client: str, settings: DemoSettings) -> dict[str, object]:
    """The definition of a run, every setting in it.

    A simulator can wait, so its agents block instead of dropping; `Pace` keeps it close to the
    learner. Its trajectories are cut so that those of all environments together are one update.
    """
    agent = msgspec.to_builtins(config.agent)
    agent |= {"drop_policy": "block", "block_timeout_s": PATIENCE_S, "seed": None}
    if "agent.max_trajectory_steps" not in config.stated:
        share = config.parameters.steps_per_update // (settings.agents * settings.envs)
        agent["max_trajectory_steps"] = max(SHORTEST_CUT, min(share, agent["max_trajectory_steps"]))
    if config.observation_space is None or config.action_space is None:
        raise ConfigError("nothing says the spaces", path="observation_space")
    return {
        "client_id": client,
        "algorithm": config.algorithm,
        "observation_space": space_to_json(config.observation_space),
        "action_space": space_to_json(config.action_space),
        "network_architecture": config.network.to_json(),
        "algorithm_parameters": config.parameters.to_json(),
        "agent": agent,
        "worker": msgspec.to_builtins(config.worker),
    }
