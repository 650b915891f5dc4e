"""`clients list|reset|delete`."""

import sys
import time
from typing import Any

import click

from rl4sys_stream.broker.admin import delete_client, reset_client
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.key_types import require_key_types
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import list_clients, require_client, require_registration
from rl4sys_stream.cli.group import CommandGroup
from rl4sys_stream.cli.options import (
    as_json_option,
    broker_option,
    counted,
    echo_json,
    echo_table,
    open_broker,
)
from rl4sys_stream.cli.steer import cause_of, reason_option
from rl4sys_stream.config import check_client_id
from rl4sys_stream.errors import ExitCode, KeyTypeError, UnknownClientError, WireError

__all__ = ["clients"]


@click.group(cls=CommandGroup)
def clients() -> None:
    """List, reset or delete clients."""


@clients.command("list")
@broker_option
@as_json_option
def list_command(redis_url: str | None, as_json: bool) -> None:
    """List the registered clients and what they are."""
    broker = open_broker(redis_url)
    found: list[dict[str, Any]] = []
    for name in list_clients(broker):
        keys = ClientKeys(name)
        try:
            require_key_types(broker, keys)
            registration, head = require_registration(broker, keys), read_head(broker, keys)
        except (UnknownClientError, KeyTypeError, WireError):
            # One damaged client must not hide the others.
            click.echo(f"{name} is damaged; `rl4sys-stream doctor` says how", err=True)
            continue
        found.append(
            {
                "client": name,
                **registration.spec.to_json(),
                "lineage": registration.lineage,
                "created_ms": registration.created_ms,
                "version": head.version if head else 0,
                "definition": registration.definition,
            }
        )
    if as_json:
        echo_json({"clients": found})
        return
    if not found:
        click.echo(f"no clients at {broker.address.public_url}; start an application or a demo")
        return
    echo_table(
        ("CLIENT", "ALGORITHM", "OBSERVATIONS", "ACTIONS", "LINEAGE", "VERSION"),
        [
            (
                one["client"],
                one["algorithm"],
                _space(one["observation_space"]),
                _space(one["action_space"]),
                one["lineage"],
                one["version"],
            )
            for one in found
        ],
    )


def _space(space: dict[str, Any]) -> str:
    """`box [8]`, `discrete 4`, `dict of 3`."""
    if "spaces" in space:
        return f"{space['type']} of {len(space['spaces'])}"
    size = next(space[name] for name in ("n", "nvec", "shape") if name in space)
    return f"{space['type']} {size}"


def _confirmed(question: str) -> bool:
    """Ask; a program cannot answer, so it has to say `--yes`."""
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"{question} Nobody is at the terminal to ask: give --yes",
            ctx=click.get_current_context(),
        )
    if click.confirm(question):
        return True
    click.echo("nothing was changed")
    return False


@clients.command("reset")
@click.argument("client")
@broker_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@reason_option
def reset_command(client: str, redis_url: str | None, yes: bool, reason: str) -> int:
    """Begin a new lineage: fresh weights, versions from 1; trajectories stay accounted for."""
    broker, keys = open_broker(redis_url), ClientKeys(check_client_id(client, path="CLIENT"))
    require_registration(broker, keys)
    if not yes and not _confirmed(f"Forget all model versions of {client!r} and train anew?"):
        return ExitCode.FAILURE
    click.echo(f"{client}: new lineage {reset_client(broker, keys, cause_of(reason))}")
    return ExitCode.OK


@clients.command("delete")
@click.argument("client")
@broker_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Although agents run; they register it anew.")
def delete_command(client: str, redis_url: str | None, yes: bool, force: bool) -> int:
    """Remove a client with its stream, models and counts, also one that cannot be read."""
    broker, keys = open_broker(redis_url), ClientKeys(check_client_id(client, path="CLIENT"))
    require_client(broker, keys)
    if not yes and not _confirmed(f"Delete everything of {client!r}, untrained trajectories too?"):
        return ExitCode.FAILURE
    removed = delete_client(broker, keys, force=force, wall_ms=time.time_ns() // 1_000_000)
    click.echo(f"{client}: deleted ({counted(removed, 'key', 'keys')})")
    return ExitCode.OK
