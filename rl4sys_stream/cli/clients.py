"""`clients list|reset|delete`."""

import time

import click
import msgspec

from rl4sys_stream.broker.admin import delete_client, reset_client
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import list_clients, require_registration
from rl4sys_stream.cli.options import (
    as_json_option,
    broker_option,
    echo_json,
    echo_table,
    open_broker,
)
from rl4sys_stream.config import check_client_id

__all__ = ["clients"]


@click.group()
def clients() -> None:
    """List, reset or delete clients."""


@clients.command("list")
@broker_option
@as_json_option
def list_command(redis_url: str | None, as_json: bool) -> None:
    """List the registered clients and what they are."""
    broker = open_broker(redis_url)
    found = []
    for name in list_clients(broker):
        keys = ClientKeys(name)
        registration, head = require_registration(broker, keys), read_head(broker, keys)
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
                msgspec.json.encode(one["observation_space"]).decode(),
                msgspec.json.encode(one["action_space"]).decode(),
                one["lineage"],
                one["version"],
            )
            for one in found
        ],
    )


@clients.command("reset")
@click.argument("client")
@broker_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset_command(client: str, redis_url: str | None, yes: bool) -> None:
    """Begin a new lineage: fresh weights, versions from 1; trajectories stay accounted for."""
    broker, keys = open_broker(redis_url), ClientKeys(check_client_id(client, path="CLIENT"))
    require_registration(broker, keys)
    if not yes:
        click.confirm(f"Forget all model versions of {client!r} and train anew?", abort=True)
    click.echo(f"{client}: new lineage {reset_client(broker, keys)}")


@clients.command("delete")
@click.argument("client")
@broker_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Although agents are running.")
def delete_command(client: str, redis_url: str | None, yes: bool, force: bool) -> None:
    """Remove a client with its stream, models and counts."""
    broker, keys = open_broker(redis_url), ClientKeys(check_client_id(client, path="CLIENT"))
    require_registration(broker, keys)
    if not yes:
        click.confirm(f"Delete everything of {client!r}, untrained trajectories too?", abort=True)
    removed = delete_client(broker, keys, force=force, wall_ms=time.time_ns() // 1_000_000)
    click.echo(f"{client}: deleted ({removed} keys)")
