"""What several commands have in common: how to say which broker, and how to print."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import click
import msgspec

from rl4sys_stream.broker.connection import (
    DEFAULT_URL,
    URL_ENV,
    Broker,
    BrokerAddress,
)
from rl4sys_stream.broker.credentials import PASSWORD_ENV, PASSWORD_FILE_ENV
from rl4sys_stream.config import load_config
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.telemetry import redact_url

__all__ = [
    "as_json_option",
    "broker_option",
    "counted",
    "echo_json",
    "echo_table",
    "open_broker",
    "printable",
    "refuse_password",
    "resolve",
    "stored_text",
]

F = TypeVar("F", bound=Callable[..., Any])


def stored_text(_ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """`value`, words that are stored: in UTF-8, and there are some. A callback of options.

    Raises:
        BadParameter: If it is "", or was not UTF-8 on the command line.
    """
    if value is None:
        return None
    if not value:
        raise click.BadParameter("it is empty; leave the option out", param=parameter)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise click.BadParameter(f"{value!r} is not UTF-8", param=parameter) from None
    return value


def broker_option(command: F) -> F:
    """`--redis-url`, for every command that talks to a broker."""
    return click.option(
        "--redis-url",
        metavar="URL",
        callback=refuse_password,
        help=f"Broker; also ${URL_ENV}. Default {DEFAULT_URL}. Without a password, which a "
        f"command line would show in `ps`: that goes into ${PASSWORD_ENV}.",
    )(command)


def refuse_password(_ctx: click.Context, _option: click.Parameter, url: str | None) -> str | None:
    """`url` unless it holds a password.

    Raises:
        ConfigError: If it does: everybody on the machine can read command lines.
    """
    try:
        parts = urlsplit(url or "")
        # A password with an unencoded slash ends what counts as the host before its @.
        secret = parts.password or parse_qs(parts.query).get("password") or "@" in parts.path
    except ValueError:
        # No URL at all; whoever opens it says so, without showing what may be a secret.
        return url
    if secret:
        raise ConfigError(
            "a password in a command line shows in `ps`; leave it out of the URL and put it into "
            f"{PASSWORD_ENV}, or its file's path into {PASSWORD_FILE_ENV}",
            path="--redis-url",
        )
    return url


def as_json_option(command: F) -> F:
    """`--json`, for every command that reads."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def resolve(redis_url: str | None) -> BrokerAddress:
    """The broker that the command line, else the environment, else the default says.

    Raises:
        ConfigError: If the URL does not parse.
    """
    return BrokerAddress.from_url(redis_url or os.environ.get(URL_ENV) or DEFAULT_URL, os.environ)


def open_broker(redis_url: str | None, *, timeout_s: float = 5.0) -> Broker:
    """A broker that answers; closed when the command ends.

    Raises:
        ConfigError: If an RL4SYS_STREAM_ variable is unknown.
        BrokerUnavailableError: If it does not.
    """
    # A misspelt variable would send the question to another broker than the one that was meant.
    load_config(None, environ=os.environ)
    broker = Broker(resolve(redis_url), timeout_s=timeout_s, name="rl4sys-cli")
    click.get_current_context().call_on_close(broker.close)
    broker.ping()
    return broker


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun: "1 worker", "2 workers"."""
    return f"{number} {one if number == 1 else many}"


def echo_json(value: object) -> None:
    """Print `value` as indented JSON, without secrets."""
    data = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    click.echo(redact_url(data))


def echo_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns; numbers to the right, words to the left.

    What cannot be printed is escaped: names and reasons are other people's words, and a terminal
    obeys some of them.
    """
    text = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *text]) for i in range(len(header))]
    right = [bool(text) and all(_numeric(row[i]) for row in text) for i in range(len(header))]
    for row in [list(header), *text]:
        cells = [
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(row, widths, right, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def printable(words: str) -> str:
    """`words`, of which each character that cannot be printed is escaped as Python does it."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in words)


def _numeric(cell: str) -> bool:
    return cell in {"-", ""} or cell.replace(".", "", 1).replace(",", "").lstrip("-").isdigit()
