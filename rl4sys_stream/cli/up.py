"""`up`: a broker and a dispatcher in one terminal, for people without Redis."""

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.credentials import forget_password, remember_password
from rl4sys_stream.broker.embedded import EmbeddedServer
from rl4sys_stream.cli.serve import (
    capacity_option,
    check_settings,
    debug_option,
    require_torch,
    run_dispatcher,
    worker_arguments,
    workers_dir_option,
)
from rl4sys_stream.dispatcher.loop import Dispatcher, DispatcherSettings
from rl4sys_stream.dispatcher.process import worker_spawner
from rl4sys_stream.errors import ServerStartError
from rl4sys_stream.telemetry import configure_logging

__all__ = ["up"]

DEFAULT_PORT = 6379
BROKER_POLL_S = 0.5


def _memory_size(_ctx: click.Context, _option: click.Parameter, text: str) -> str:
    if not re.fullmatch(r"[0-9]+([kmg]?b?)", text.lower()):
        raise click.BadParameter(f"{text!r} is no amount of memory; write it as 512mb or 2gb")
    return text


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=DEFAULT_PORT,
    show_default=True,
    help="TCP port on loopback; 0 takes that of the last run in this folder, or a free one.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".rl4sys-stream"),
    show_default=True,
    help="Folder of the broker's append-only file; made if missing, used again if not.",
)
@click.option(
    "--maxmemory",
    default="1gb",
    show_default=True,
    callback=_memory_size,
    help="The broker's memory limit.",
)
@workers_dir_option
@capacity_option
@debug_option
def up(
    port: int, data_dir: Path, maxmemory: str, workers_dir: Path | None, capacity: int, debug: bool
) -> None:
    """Run a broker and a dispatcher here, for people without Redis.

    The broker is a real server (Valkey or Redis) with an append-only file, reachable from this
    machine alone. Applications of the same user find its password by themselves: the address
    localhost:PORT is all they need. Ctrl-C stops everything; the data stays.
    """
    configure_logging(debug=debug)
    require_torch()
    check_settings(workers_dir)
    with _own_broker(EmbeddedServer(data_dir, port=port or None, maxmemory=maxmemory)) as server:
        address = BrokerAddress.from_url(server.url, {})
        click.echo(f"broker      {server.public_url}   data in {server.data_dir}")
        click.echo(f"application StreamAgent(..., redis_url='redis://localhost:{server.port}')")
        click.echo("stop        Ctrl-C")
        spawn = worker_spawner(
            address, arguments=worker_arguments(workers_dir, debug), die_with_parent=True
        )
        with Broker(address, name="rl4sys-dispatcher") as broker:
            loop = Dispatcher(broker, spawn, settings=DispatcherSettings(capacity=capacity))
            with _stopping_with(server, loop.stop):
                run_dispatcher(loop)
        if not server.alive:
            raise ServerStartError(
                f"the broker ended by itself; {server.data_dir}/server.log says why, and "
                "`rl4sys-stream up` starts it again with its data"
            )
    click.echo(f"stopped     data kept in {server.data_dir}")


@contextmanager
def _own_broker(server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """`server`, started here and stopped in the end, its password left where applications look.

    Raises:
        ServerStartError: If it does not start, or if somebody else runs it already.
        ConfigError: If the password cannot be stored.
    """
    with server:
        if not server.owned:
            raise ServerStartError(
                f"the broker of {server.data_dir} runs already, at {server.public_url}: use that "
                "one, or choose another --data-dir and --port"
            )
        port = server.port
        remember_password(port, server.password, os.environ)
        try:
            yield server
        finally:
            forget_password(port, os.environ)


@contextmanager
def _stopping_with(server: EmbeddedServer, stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` when the broker is gone: without it, applications and workers wait for ever."""
    done = threading.Event()

    def watch() -> None:
        while server.alive:
            if done.wait(BROKER_POLL_S):
                return
        stop()

    watcher = threading.Thread(target=watch, name="rl4sys-broker", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
