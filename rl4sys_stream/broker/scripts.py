"""The Lua scripts: real files beside this one, loaded by digest on first use.

None of them is on an agent's path, so that an agent in another language needs plain commands only.
"""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.translation import translate

__all__ = ["run_script"]

Argument = str | bytes | int


@cache
def _source(name: str) -> str:
    return (files("rl4sys_stream.broker") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def run_script(
    broker: Broker, name: str, keys: Sequence[str], arguments: Sequence[Argument]
) -> Any:  # noqa: ANN401 - each script documents its own output
    """Run `lua/<name>.lua`; the file's header says what goes in and what comes out.

    Raises:
        BrokerError: As the broker or the script refuses; the message begins with the script's
            own word (FENCED, STALE, …) after the broker's name.
    """
    with translate(broker.where):
        return broker.redis.register_script(_source(name))(keys=list(keys), args=list(arguments))
