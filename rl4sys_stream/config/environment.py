"""Environment variables `RL4SYS_STREAM_*` into a `Layer`.

A few have names of their own; every other setting of the native form has the variable
`RL4SYS_STREAM__<SECTION>__<KEY>`, in capitals, whose value is JSON, or else a plain string:
`RL4SYS_STREAM__AGENT__DROP_POLICY=drop_newest`, `RL4SYS_STREAM__TRAINING__N_STEPS=1024`.
"""

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from rl4sys_stream.config.forms import read_native
from rl4sys_stream.config.layers import Layer
from rl4sys_stream.config.schema import MAX_DEPTH, depth_above, nearest, shown
from rl4sys_stream.errors import ConfigError

__all__ = ["VARIABLES", "parse_value", "read_environment"]

PREFIX: Final = "RL4SYS_STREAM_"
SETTING_PREFIX: Final = "RL4SYS_STREAM__"

_NAMED_SETTINGS: Final = MappingProxyType(
    {
        "RL4SYS_STREAM_CLIENT_ID": ("client_id",),
        "RL4SYS_STREAM_REDIS_URL": ("communication", "redis_url"),
    }
)
VARIABLES: Final = MappingProxyType(
    {
        "RL4SYS_STREAM_CLIENT_ID": "the client's name",
        "RL4SYS_STREAM_REDIS_URL": "the broker; may hold a password",
        "RL4SYS_STREAM_REDIS_PASSWORD": "the broker's password",
        "RL4SYS_STREAM_REDIS_PASSWORD_FILE": "a file that holds the broker's password",
        "RL4SYS_STREAM_REDIS_SERVER": "the server program of the embedded broker",
        "RL4SYS_STREAM_STATE_DIR": "the folder in which `up` keeps how to reach its broker",
        "RL4SYS_STREAM_WORKERS_DIR": "the folder of client definitions",
        "RL4SYS_STREAM_PORT": "docker-compose.yml: the broker's port on this host",
        "RL4SYS_STREAM_REDIS_MAXMEMORY": "docker-compose.yml: the broker's memory limit",
        "RL4SYS_STREAM_REDIS_IMAGE": "docker-compose.yml: the image of the broker",
        "RL4SYS_STREAM_WORKER_IMAGE": "docker-compose.yml: the image of dispatcher and workers",
        "RL4SYS_STREAM_APPLICATION_IMAGE": "docker-compose.yml: the image of the demo",
    }
)
"""Variables with names of their own, and what they hold. Others `RL4SYS_STREAM_*` are refused."""


_SERVICE_LINK: Final = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)$"
)


def _is_service_link(name: str, text: str) -> bool:
    """Whether it is what Kubernetes tells every container of a Service `rl4sys-stream-…`."""
    if name.startswith(SETTING_PREFIX):
        return False
    link = name.endswith("_PORT") and text.startswith(("tcp://", "udp://", "sctp://"))
    return link or _SERVICE_LINK.search(name) is not None


def read_environment(environ: Mapping[str, str], layer: Layer) -> None:
    """Put what `RL4SYS_STREAM_*` variables in `environ` say into `layer`; empty ones say nothing.

    Raises:
        ConfigError: If a variable is unknown, or names or holds no valid setting.
    """
    for name in sorted(environ):
        text = environ[name]
        if not name.startswith(PREFIX) or _is_service_link(name, text):
            continue
        if name.startswith(SETTING_PREFIX):
            parts = tuple(name.removeprefix(SETTING_PREFIX).lower().split("__"))
            value: object = parse_value(text)
        elif name in VARIABLES:
            parts, value = _NAMED_SETTINGS.get(name, ()), text
        else:
            guess = nearest(name, VARIABLES)
            raise ConfigError(
                f"unknown environment variable {name}; "
                + (f"did you mean {guess}? " if guess else "")
                + f"A setting of the file is {SETTING_PREFIX}<SECTION>__<KEY>"
            )
        if parts and text:
            layer.source = f"environment variable {name}"
            with layer.blamed():
                read_native(_nested(parts, value), layer)


def parse_value(text: str) -> object:
    """`text` as JSON if it is JSON, else itself: 3 is a number, drop_newest and "3" are strings."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if depth_above(value, MAX_DEPTH) else value


def _nested(parts: tuple[str, ...], value: object) -> dict[str, object]:
    if not all(parts) or not parts:
        raise ConfigError(f"{shown(parts)} is no path of a setting")
    for part in reversed(parts[1:]):
        value = {part: value}
    return {parts[0]: value}
