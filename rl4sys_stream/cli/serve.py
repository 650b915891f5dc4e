"""The commands that stay: `worker` and `dispatcher`; `up` is beside them."""

import importlib.util
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from rl4sys_stream.broker.connection import URL_ENV, Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import WorkerReport, write_worker_report
from rl4sys_stream.broker.server_facts import require_suitable
from rl4sys_stream.cli.options import broker_option, resolve
from rl4sys_stream.config import ClientConfig, check_client_id, find_definition, load_config
from rl4sys_stream.config.extras import require_protobuf
from rl4sys_stream.dispatcher.loop import Dispatcher, DispatcherSettings
from rl4sys_stream.dispatcher.process import worker_spawner
from rl4sys_stream.errors import (
    BrokerUnavailableError,
    ConfigError,
    MissingExtraError,
    StreamError,
)
from rl4sys_stream.telemetry import configure_logging

if TYPE_CHECKING:
    from rl4sys_stream.worker.loop import Worker

__all__ = [
    "capacity_option",
    "check_settings",
    "debug_option",
    "dispatcher",
    "require_torch",
    "run_dispatcher",
    "worker",
    "worker_arguments",
    "workers_dir_option",
]

PARENT_POLL_S = 0.5
SETTING_PREFIX = "RL4SYS_STREAM__"

debug_option = click.option(
    "--debug", is_flag=True, help="Log more, and show where errors come from."
)
workers_dir_option = click.option(
    "--workers-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder with one definition CLIENT.json a client; also $RL4SYS_STREAM_WORKERS_DIR. "
    "Default ./workers.",
)
capacity_option = click.option(
    "--capacity",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Most workers at once.",
)


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Let SIGTERM and SIGINT end the process in order; a second one ends it at once."""

    def handle(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        # From another thread: this one may be interrupted inside the very lock that `stop` takes.
        threading.Thread(target=stop, name="rl4sys-stop").start()

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
@broker_option
@workers_dir_option
@capacity_option
@debug_option
def dispatcher(redis_url: str | None, workers_dir: Path | None, capacity: int, debug: bool) -> None:
    """Run one worker process for each registered client.

    Several dispatchers, on one host or on several, share the clients. Workers go on when their
    dispatcher dies; the next one finds them by their leases.
    """
    configure_logging(debug=debug)
    require_torch()
    check_settings(workers_dir)
    address = resolve(redis_url)
    spawn = worker_spawner(address, arguments=worker_arguments(workers_dir, debug))
    with Broker(address, name="rl4sys-dispatcher") as broker:
        _check_suitable(broker)
        run_dispatcher(Dispatcher(broker, spawn, settings=DispatcherSettings(capacity=capacity)))


@click.command()
@click.option("--client", required=True, help="Whose worker this is.")
@broker_option
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The client's definition; before --workers-dir.",
)
@workers_dir_option
@click.option("--parent-pid", type=int, hidden=True)
@debug_option
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
    try:
        process = _prepare_worker(client, redis_url, config, workers_dir)
    except StreamError as error:
        _tell_failure(client, redis_url, error)
        raise
    stop_on_signals(process.stop)
    if parent_pid is not None:
        stop_with_parent(parent_pid, process.stop)
    process.run()


def _prepare_worker(
    client: str, redis_url: str | None, config: Path | None, workers_dir: Path | None
) -> "Worker":
    require_torch()
    require_protobuf("a worker")
    definition = _definition(client, config, workers_dir)
    configured = definition.redis_url if definition else None
    address = resolve(redis_url or os.environ.get(URL_ENV) or configured)
    with Broker(address, name=f"rl4sys-worker-{client}") as broker:
        _check_suitable(broker)
    return _load_worker()(address, client, definition)


def _tell_failure(client: str, redis_url: str | None, error: StreamError) -> None:
    """Leave word of why the worker did not start, where `status` and `doctor` look."""
    report = WorkerReport(
        state="failed",
        host=socket.gethostname(),
        pid=os.getpid(),
        time_ms=time.time_ns() // 1_000_000,
        detail=f"{type(error).__name__}: {error}",
    )
    try:
        address = resolve(redis_url)
        with Broker(address, timeout_s=2.0, name=f"rl4sys-worker-{client}") as broker:
            write_worker_report(broker, ClientKeys(client), report)
    except StreamError:
        return  # the command ends with the first error, which it prints


def _load_worker() -> "type[Worker]":
    """The worker; here, since torch takes a second and the other commands do without it."""
    try:
        from rl4sys_stream.worker.loop import Worker
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"torch is installed, but does not load ({error}); install it again with: "
            "pip install --force-reinstall 'rl4sys-stream[worker]'"
        ) from error
    return Worker


def _definition(client: str, config: Path | None, workers_dir: Path | None) -> ClientConfig | None:
    """The client's definition; None where neither a file nor the environment says anything."""
    path = find_definition(client, config=config, workers_dir=workers_dir, environ=os.environ)
    loaded = load_config(path, environ=os.environ, client_id=client)
    stated = load_config(path, environ={}).client_id
    if stated not in {None, client}:
        raise ConfigError(
            f"{path} is the definition of {stated!r}, not of {client!r}; give the client its own "
            "file, or take client_id out of this one",
            path="client_id",
        )
    for notice in loaded.notices:
        click.echo(f"note: {path or 'environment'}: {notice}", err=True)
    said = any(name.startswith(SETTING_PREFIX) and os.environ[name] for name in os.environ)
    return loaded if path or said else None


def check_settings(workers_dir: Path | None) -> None:
    """Refuse now what each worker would refuse: a folder that is not there, a misspelt variable."""
    find_definition("any", workers_dir=workers_dir, environ=os.environ)
    load_config(None, environ=os.environ)


def require_torch() -> None:
    """Refuse to start what needs torch. Raises MissingExtraError; imports nothing itself."""
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch, which workers train with,", "worker")


def _check_suitable(broker: Broker) -> None:
    """An unsuitable broker is refused now; one that is away is waited for by the loops."""
    try:
        require_suitable(broker)
    except BrokerUnavailableError as error:
        click.echo(f"waiting: {error}", err=True)


def worker_arguments(workers_dir: Path | None, debug: bool) -> list[str]:
    """What a dispatcher's own options mean for its workers."""
    arguments = ["--workers-dir", str(workers_dir)] if workers_dir else []
    return [*arguments, "--debug"] if debug else arguments


def run_dispatcher(loop: Dispatcher) -> None:
    """Run until a signal; then the workers finish what they are at."""
    stop_on_signals(loop.stop)
    loop.run()
