"""The native JSON form, of which the RL4Sys README's form is a part, into a `Layer`.

Upstream RL4Sys's own files have another form, which `upstream` reads; `read_document` tells them
apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from rl4sys_stream.config.address import check_redis_url, url_from_server_address
from rl4sys_stream.config.algorithms import check_algorithm, known_parameters
from rl4sys_stream.config.client import check_client_id
from rl4sys_stream.config.layers import Layer, expect_object
from rl4sys_stream.config.schema import check_keys, dotted
from rl4sys_stream.config.settings import AgentSettings, WorkerSettings
from rl4sys_stream.config.spec import NetworkSpec
from rl4sys_stream.config.upstream import MARKS, read_upstream
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.spaces import as_space

__all__ = ["read_document", "read_native"]

PARAMETER_ALIASES: Final = MappingProxyType(
    {
        "clip_ratio": "clip_range",
        "entropy_coef": "ent_coef",
        "value_coef": "vf_coef",
        "epochs": "n_epochs",
        "lam": "gae_lambda",
        "lr": "learning_rate",
        "pi_lr": "learning_rate",
        "vf_lr": "critic_learning_rate",
        "norm_adv": "normalize_advantage",
    }
)


@dataclass(frozen=True, slots=True)
class _Section:
    """Keys of one section of the file, the section they belong to, and other names for them."""

    target: str
    keys: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)


SECTIONS: Final = MappingProxyType(
    {
        # Of any algorithm: which one it is may be said elsewhere, so this is looked at later.
        "algorithm_parameters": _Section("algorithm_parameters", (), PARAMETER_ALIASES),
        "training": _Section(
            "algorithm_parameters",
            (
                "batch_size",
                "buffer_size",
                "gradient_steps",
                "learning_starts",
                "n_epochs",
                "n_steps",
                "total_timesteps",
                "train_freq",
                "update_steps",
            ),
            {"epochs": "n_epochs"},
        ),
        "network_architecture": _Section("network_architecture", NetworkSpec.__struct_fields__),
        "agent": _Section("agent", AgentSettings.__struct_fields__),
        "worker": _Section("worker", WorkerSettings.__struct_fields__),
    }
)
COMMUNICATION: Final = ("server_address", "redis_url", "timeout", "timeout_s")
SPACES: Final = ("observation_space", "action_space")
NATIVE: Final = ("client_id", "algorithm", *SECTIONS, "communication", *SPACES)
_NATIVE_MARKS: Final = frozenset(NATIVE) - {"client_id", "algorithm_parameters"}


def read_document(document: object, layer: Layer) -> None:
    """Put what a configuration file says, in whichever form it is written, into `layer`.

    Raises:
        ConfigError: If a key is unknown, a setting is said twice, or two forms are mixed.
    """
    data = expect_object(document, path="")
    upstream = [key for key in data if key in MARKS]
    native = [key for key in data if key in _NATIVE_MARKS]
    if upstream and native:
        raise ConfigError(
            f"belongs to upstream RL4Sys's form of the file, and {native[0]!r} to this package's: "
            "use one of them",
            path=upstream[0],
        )
    if upstream:
        read_upstream(data, layer)
    else:
        read_native(data, layer)


def read_native(data: Mapping[str, object], layer: Layer) -> None:
    """Put what `data`, in the native form, says into `layer`.

    Raises:
        ConfigError: If a key is unknown or a setting is said twice.
    """
    # Without a key that tells the form, the misspelt one may be a key of either.
    check_keys(data, NATIVE if set(data) & _NATIVE_MARKS else (*NATIVE, *MARKS))
    for key, value in data.items():
        if key == "client_id":
            layer.put(key, check_client_id(value), written=key)
        elif key == "algorithm":
            layer.put(key, check_algorithm(value), written=key)
        elif key in SPACES:
            if value is not None:
                layer.put(key, as_space(value, path=key), written=key)
        elif key == "communication":
            _read_communication(expect_object(value, path=key), layer)
        else:
            _read_section(key, expect_object(value, path=key), layer)


def _read_section(name: str, data: Mapping[str, object], layer: Layer) -> None:
    section = SECTIONS[name]
    known = (*_keys(name), *section.aliases)
    for key, value in data.items():
        if key not in known and (home := _home(key)):
            raise ConfigError(f"unknown key here; it belongs to {home!r}", path=dotted(name, key))
        check_keys([key], known, path=name)
        target = dotted(section.target, section.aliases.get(key, key))
        layer.put(target, value, written=dotted(name, key))


def _home(key: str) -> str | None:
    """The section that `key` is at home in."""
    if key in COMMUNICATION:
        return "communication"
    return next((name for name in SECTIONS if key in _keys(name)), None)


def _keys(section: str) -> tuple[str, ...]:
    return known_parameters() if section == "algorithm_parameters" else SECTIONS[section].keys


def _read_communication(data: Mapping[str, object], layer: Layer) -> None:
    for key, value in data.items():
        written = dotted("communication", key)
        check_keys([key], COMMUNICATION, path="communication")
        if key == "server_address":
            url = url_from_server_address(value, path=written)
            layer.put("communication.redis_url", url, written=written)
        elif key == "redis_url":
            url = check_redis_url(value, allow_password=layer.trusted, path=written)
            layer.put(written, url, written=written)
        else:
            layer.put("communication.timeout", value, written=written)
