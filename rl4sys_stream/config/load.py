"""Defaults < file < environment < arguments: the settings of one client, from all of them."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec

from rl4sys_stream.config.algorithms import find_algorithm, read_parameters
from rl4sys_stream.config.client import DEFAULT_TIMEOUT_S, ClientConfig, check_client_id
from rl4sys_stream.config.environment import read_environment
from rl4sys_stream.config.extras import require_protobuf
from rl4sys_stream.config.forms import read_document, read_native
from rl4sys_stream.config.hyperparameters import (
    DQNParameters,
    Hyperparameters,
    OffPolicyParameters,
    PPOParameters,
)
from rl4sys_stream.config.layers import Layer
from rl4sys_stream.config.schema import MAX_DEPTH, depth_above, dotted, message_of, read_struct
from rl4sys_stream.config.settings import AgentSettings, WorkerSettings
from rl4sys_stream.config.spec import NetworkSpec
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.spaces import Space

__all__ = ["find_definition", "load_config"]

S = TypeVar("S", bound=msgspec.Struct)

MAX_FILE_BYTES: Final = 1 << 20
_TOO_DEEP: Final = "is nested too deeply to be a configuration"
WORKERS_DIR_VARIABLE: Final = "RL4SYS_STREAM_WORKERS_DIR"
DEFAULT_WORKERS_DIR: Final = "workers"


class _Communication(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of the section `communication` needs checking; its addresses have been."""

    timeout: Annotated[float, msgspec.Meta(gt=0)] = DEFAULT_TIMEOUT_S
    redis_url: str | None = None


def load_config(
    path: str | os.PathLike[str] | None,
    *,
    environ: Mapping[str, str],
    client_id: str | None = None,
    redis_url: str | None = None,
    observation_space: object = None,
    action_space: object = None,
    overrides: Mapping[str, object] | None = None,
) -> ClientConfig:
    """The configuration of one client: defaults < file < environment < arguments.

    Args:
        path: A JSON file in the native form (the RL4Sys README's is part of it) or upstream
            RL4Sys's own; None for none.
        environ: The environment, usually `os.environ`.
        client_id: The client's name; None leaves it to the file and the environment, as for the
            other arguments.
        redis_url: The broker. May hold a password, since an application may have read it from
            where it keeps its secrets.
        observation_space: One of ours, its JSON form, or Gymnasium's.
        action_space: Likewise.
        overrides: Any other setting by its dotted path: `{"agent.drop_policy": "drop_newest"}`.

    Raises:
        ConfigError: If the file cannot be read, a key is unknown, a value mistyped or out of
            range, or a combination impossible.
        MissingExtraError: If a setting asks for a library that is not installed.
    """
    merged, source = Layer(), None
    if path is not None:
        source = Path(path)
        layer = Layer(source=f"in {source}")
        with layer.blamed():
            read_document(_read_json(source), layer)
        merged.override(layer)
    layer = Layer(trusted=True)
    read_environment(environ, layer)
    merged.override(layer)
    layer = Layer(source="an argument", trusted=True)
    arguments = {
        "client_id": client_id,
        "communication.redis_url": redis_url,
        "observation_space": observation_space,
        "action_space": action_space,
    }
    with layer.blamed():
        stated = {key: value for key, value in arguments.items() if value is not None}
        for key, value in (*stated.items(), *(overrides or {}).items()):
            _read_override(key, value, layer)
    merged.override(layer)
    return _assemble(merged, source)


def _read_override(path: str, value: object, layer: Layer) -> None:
    first, *rest = path.split(".")
    for part in reversed(rest):
        value = {part: value}
    read_native({first: value}, layer)


def _assemble(merged: Layer, source: Path | None) -> ClientConfig:
    def section(kind: type[S], name: str) -> S:
        return read_struct(kind, merged.section(name), path=name, locate=merged.locate)

    values = merged.values
    communication = section(_Communication, "communication")
    network = section(NetworkSpec, "network_architecture")
    algorithm = _string(values.get("algorithm")) or ClientConfig().algorithm
    parameters = read_parameters(
        algorithm, merged.section("algorithm_parameters"), locate=merged.locate
    )
    agent, worker = section(AgentSettings, "agent"), section(WorkerSettings, "worker")
    if agent.codec == "protobuf":
        require_protobuf('the setting agent.codec "protobuf"')
    for name, why in parameters.unread().items():
        merged.not_applicable(merged.locate(f"algorithm_parameters.{name}").path, why)
    limited = worker.max_policy_lag != WorkerSettings().max_policy_lag
    if limited and not find_algorithm(algorithm).on_policy:
        place = merged.locate("worker.max_policy_lag").path
        merged.not_applicable(place, f"{algorithm} trains on steps of any age")
    for name, why in _out_of_reach(parameters, agent, worker):
        merged.notices.append(f"{merged.locate(f'algorithm_parameters.{name}').path}: {why}")
    try:
        return ClientConfig(
            client_id=_string(values.get("client_id")),
            algorithm=algorithm,
            observation_space=_space(values.get("observation_space")),
            action_space=_space(values.get("action_space")),
            network=network,
            parameters=parameters,
            agent=agent,
            worker=worker,
            redis_url=communication.redis_url,
            timeout_s=communication.timeout,
            notices=tuple(merged.notices),
            stated=frozenset(values),
            source=source,
        )
    except ConfigError as error:
        # Combinations across sections; what is wrong within one names its place already.
        raise merged.locate(error.path).error(message_of(error)) from None


def _out_of_reach(
    parameters: Hyperparameters, agent: AgentSettings, worker: WorkerSettings
) -> Iterator[tuple[str, str]]:
    """Hyperparameters that work, but never as they say, by their names, and why."""
    longest = agent.max_trajectory_steps
    if isinstance(parameters, OffPolicyParameters):
        if isinstance(parameters, DQNParameters) and parameters.n_step > longest:
            yield (
                "n_step",
                (
                    f"no return of {parameters.n_step} steps comes to be: agents cut "
                    f"trajectories at agent.max_trajectory_steps, which is {longest}"
                ),
            )
        if parameters.buffer_size < longest:
            yield (
                "buffer_size",
                (
                    f"a trajectory of agent.max_trajectory_steps, which is {longest}, pushes its "
                    f"own first steps out of a buffer of {parameters.buffer_size}"
                ),
            )
    elif isinstance(parameters, PPOParameters):
        most = worker.max_commit_entries * longest
        if parameters.n_steps > most:
            yield (
                "n_steps",
                (
                    f"a rollout ends with {most} steps at the latest: worker.max_commit_entries "
                    f"({worker.max_commit_entries}) of agent.max_trajectory_steps ({longest})"
                ),
            )


def _string(value: object) -> str | None:
    """`value`, which the layer has checked, for the type checker."""
    return value if isinstance(value, str) else None


def _space(value: object) -> Space | None:
    """`value`, which the layer has checked, for the type checker."""
    return value if isinstance(value, Space) else None


def _read_json(path: Path) -> object:
    """The JSON in `path`, without duplicate keys and NaN."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"no such file; the working directory is {Path.cwd()}") from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"larger than {MAX_FILE_BYTES} bytes, so it is no configuration")
    try:
        # utf-8-sig: some editors put a byte order mark in front
        document: object = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except RecursionError:
        raise ConfigError(_TOO_DEEP) from None
    except ConfigError:
        raise
    except ValueError:  # Python's own limit, against the quadratic time that reading takes
        raise ConfigError("holds a number of thousands of digits, which no setting has") from None
    if depth_above(document, MAX_DEPTH):
        raise ConfigError(_TOO_DEEP)
    _check_finite(document, "")
    return document


def _check_finite(value: object, path: str) -> None:
    """Refuse NaN and infinity, which Python's reader takes although JSON does not have them."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(
            f"{value} is no JSON number; a setting must be finite, or null where allowed", path=path
        )
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_finite(inner, dotted(path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_finite(inner, f"{path}[{index}]")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ConfigError(f"the key {key!r} stands twice in one object; keep one", path=key)
        found[key] = value
    return found


def find_definition(
    client: str,
    *,
    config: str | os.PathLike[str] | None = None,
    workers_dir: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str],
) -> Path | None:
    """The definition file of `client`: the first place that is named decides.

    `config`, then `workers_dir`, then $RL4SYS_STREAM_WORKERS_DIR, then ./workers; in a folder the
    file is `<client>.json`.

    Args:
        client: The client's name.
        config: The file itself (`--config`).
        workers_dir: A folder of definitions (`--workers-dir`).
        environ: The environment, usually `os.environ`.

    Returns:
        The file; None if the folder holds none for this client, which then has only what the
        registry knows.

    Raises:
        ConfigError: If the name is no client's, or a file or folder that was named is not there.
    """
    name = check_client_id(client)
    if config is not None:
        if not Path(config).is_file():
            raise ConfigError(f"{config} is no file; the working directory is {Path.cwd()}")
        return Path(config)
    stated = workers_dir or environ.get(WORKERS_DIR_VARIABLE)
    if stated and not Path(stated).is_dir():
        said_by = "--workers-dir" if workers_dir else WORKERS_DIR_VARIABLE
        raise ConfigError(f"{said_by} names {stated}, which is no folder")
    definition = Path(stated or DEFAULT_WORKERS_DIR) / f"{name}.json"
    return definition if definition.is_file() else None
