"""The commands that stay: `up`, `worker`, `dispatcher`."""

import importlib.util
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import click

from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.credentials import forget_password, remember_password
from rl4sys_stream.broker.embedded import EmbeddedServer
from rl4sys_stream.broker.server_facts import require_suitable
from rl4sys_stream.cli.options import broker_option, resolve
from rl4sys_stream.config import ClientConfig, check_client_id, find_definition, load_config
from rl4sys_stream.dispatcher.loop import Dispatcher, DispatcherSettings
from rl4sys_stream.dispatcher.process import worker_spawner
from rl4sys_stream.errors import BrokerUnavailableError, MissingExtraError
from rl4sys_stream.telemetry import configure_logging

__all__ = ["dispatcher", "up", "worker"]

DEFAULT_PORT = 6379
PARENT_POLL_S = 1.0

_DEBUG = click.option("--debug", is_flag=True, help="Log more.")
_WORKERS_DIR = click.option(
    "--workers-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder with one definition CLIENT.json a client; also $RL4SYS_STREAM_WORKERS_DIR. "
    "Default ./workers.",
)
_CAPACITY = click.option("--capacity", default=64, show_default=True, help="Most workers at once.")


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Let SIGTERM and SIGINT end the process in order; a second one ends it at once."""

    def handle(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def stop_with_parent(parent_pid: int, stop: Callable[[], None]) -> None:
    """Call `stop` when the process that started this one is gone."""
    never = threading.Event()

    def watch() -> None:
        while os.getppid() == parent_pid:
            never.wait(PARENT_POLL_S)
        stop()

    threading.Thread(target=watch, name="rl4sys-parent", daemon=True).start()


@click.command()
@click.option("--port", default=DEFAULT_PORT, show_default=True, help="TCP port on loopback.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".rl4sys-stream"),
    show_default=True,
    help="Folder of the broker's append-only file; made if missing, used again if not.",
)
@click.option("--maxmemory", default="1gb", show_default=True, help="The broker's memory limit.")
@_WORKERS_DIR
@_CAPACITY
@_DEBUG
def up(
    port: int, data_dir: Path, maxmemory: str, workers_dir: Path | None, capacity: int, debug: bool
) -> None:
    """Run a broker and a dispatcher here, for people without Redis.

    The broker is a real server (Valkey or Redis) with an append-only file, reachable from this
    machine alone. Applications of the same user find its password by themselves: the address
    localhost:PORT is all they need. Ctrl-C stops everything; the data stays.
    """
    configure_logging(debug=debug)
    _require_torch()
    server = EmbeddedServer(data_dir, port=port, maxmemory=maxmemory)
    with server:
        address = BrokerAddress.from_url(server.url, {})
        broker = Broker(address, name="rl4sys-dispatcher")
        remember_password(port, server.password, os.environ)
        try:
            click.echo(f"broker      {server.public_url}   data in {data_dir}")
            click.echo(f"application StreamAgent(..., redis_url='redis://localhost:{port}')")
            click.echo("stop        Ctrl-C", err=False)
            spawn = worker_spawner(
                address, arguments=_worker_arguments(workers_dir, debug), die_with_parent=True
            )
            _run_dispatcher(Dispatcher(broker, spawn, settings=_settings(capacity)))
        finally:
            forget_password(port, os.environ)


@click.command()
@broker_option
@_WORKERS_DIR
@_CAPACITY
@_DEBUG
def dispatcher(redis_url: str | None, workers_dir: Path | None, capacity: int, debug: bool) -> None:
    """Run one worker process for each registered client.

    Several dispatchers, on one host or on several, share the clients. Workers go on when their
    dispatcher dies; the next one finds them by their leases.
    """
    configure_logging(debug=debug)
    _require_torch()
    address = resolve(redis_url)
    broker = Broker(address, name="rl4sys-dispatcher")
    _check_suitable(broker)
    spawn = worker_spawner(address, arguments=_worker_arguments(workers_dir, debug))
    _run_dispatcher(Dispatcher(broker, spawn, settings=_settings(capacity)))


@click.command()
@click.option("--client", required=True, help="Whose worker this is.")
@broker_option
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The client's definition; before --workers-dir.",
)
@_WORKERS_DIR
@click.option("--parent-pid", type=int, hidden=True)
@_DEBUG
def worker(
    client: str,
    redis_url: str | None,
    config: Path | None,
    workers_dir: Path | None,
    parent_pid: int | None,
    debug: bool,
) -> None:
    """Train one client: read its trajectories, update its model, publish versions.

    Waits for the client's first registration and for the lease, if another worker holds it.
    SIGTERM finishes the update under way, commits it and releases the lease.
    """
    configure_logging(debug=debug)
    client = check_client_id(client, path="--client")
    _require_torch()
    definition = _definition(client, config, workers_dir)
    configured = definition.redis_url if definition else None
    address = resolve(redis_url or os.environ.get("RL4SYS_STREAM_REDIS_URL") or configured)
    _check_suitable(Broker(address, name=f"rl4sys-worker-{client}"))
    # Here, not at the top: torch takes a second, and the commands above do without it.
    from rl4sys_stream.worker.loop import Worker

    process = Worker(address, client, definition)
    stop_on_signals(process.stop)
    if parent_pid is not None:
        stop_with_parent(parent_pid, process.stop)
    process.run()


def _definition(client: str, config: Path | None, workers_dir: Path | None) -> ClientConfig | None:
    path = config or find_definition(client, workers_dir=workers_dir, environ=os.environ)
    if path is None:
        return None
    loaded = load_config(path, environ=os.environ, client_id=client)
    for notice in loaded.notices:
        click.echo(f"note: {path}: {notice}", err=True)
    return loaded


def _require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch, which workers train with,", "worker")


def _check_suitable(broker: Broker) -> None:
    """An unsuitable broker is refused now; one that is away is waited for by the loops."""
    try:
        require_suitable(broker)
    except BrokerUnavailableError as error:
        click.echo(f"waiting: {error}", err=True)


def _worker_arguments(workers_dir: Path | None, debug: bool) -> list[str]:
    arguments = ["--workers-dir", str(workers_dir)] if workers_dir else []
    return [*arguments, "--debug"] if debug else arguments


def _settings(capacity: int) -> DispatcherSettings:
    return DispatcherSettings(capacity=capacity)


def _run_dispatcher(loop: Dispatcher) -> None:
    stop_on_signals(loop.stop)
    loop.run()
