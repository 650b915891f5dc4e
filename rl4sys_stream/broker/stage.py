"""Staging: write a whole hash that expires unless a commit persists it."""

from collections.abc import Mapping

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.scripts import Argument, run_script
from rl4sys_stream.broker.translation import translate
from rl4sys_stream.errors import BrokerFullError

__all__ = ["stage"]


def stage(broker: Broker, key: str, fields: Mapping[str, bytes | str | int], *, ttl_s: int) -> None:
    """Write `fields` under `key`, to expire after `ttl_s` seconds.

    Field by field and outside of any script: a megabyte through Lua blocks the server for
    milliseconds, the same by HSET for a tenth of one. Only a broker that is full gets it by script,
    because it stays full if no commit can be staged.

    Raises:
        BrokerError: Nothing counts until the commit; safe to retry.
    """
    try:
        with translate(broker.where), broker.redis.pipeline(transaction=False) as pipe:
            pipe.unlink(key)
            for name, value in fields.items():
                pipe.hset(key, name, value)
                # Straight after the first field, so that a kill in between leaves nothing behind.
                pipe.expire(key, ttl_s)
            pipe.execute()
    except BrokerFullError:
        arguments: list[Argument] = [ttl_s]
        for name, value in fields.items():
            arguments += [name, value]
        run_script(broker, "stage", [key], arguments)
