"""`models export|import`: versions as files, and files as versions."""

import time
from pathlib import Path
from typing import Final

import click

from rl4sys_stream.broker.control import Selection, read_control
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.steering import pin
from rl4sys_stream.cli.options import broker_option, open_broker
from rl4sys_stream.cli.steer import cause_of, client_option, open_client, reason_option
from rl4sys_stream.config import check_client_id
from rl4sys_stream.exchange.files import ENDINGS, find_writer, format_of, read_model, write_file
from rl4sys_stream.exchange.importing import import_model
from rl4sys_stream.exchange.package import read_package

__all__ = ["export_command", "import_command"]

RETRY_S: Final = 0.5


@click.command("export")
@client_option
@click.argument("version", type=int)
@click.option("--format", "kind", type=click.Choice(sorted(ENDINGS)), help="Default: npz.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file; its ending says the format. Default: CLIENT-VERSION.FORMAT, here.",
)
@broker_option
def export_command(
    client: str, version: int, kind: str | None, out: Path | None, redis_url: str | None
) -> None:
    """Write VERSION to a file for other programs; `models import` takes npz and safetensors."""
    kind = kind or format_of(out or Path())
    write = find_writer(kind)
    broker, keys = open_client(redis_url, client)
    data = write(read_package(broker, keys, version))
    path = out or Path(f"{client}-{version}.{ENDINGS[kind]}")
    write_file(path, data)
    click.echo(f"{path}: version {version} of {client}, {len(data)} bytes")


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@client_option
@click.option("--force", is_flag=True, help="Although a worker trains the client.")
@click.option("--pin", "pinned", is_flag=True, help="Hold all agents at it.")
@reason_option
@broker_option
def import_command(
    file: Path, client: str, force: bool, pinned: bool, reason: str | None, redis_url: str | None
) -> None:
    """Publish the model in FILE as the newest version of a client, registered or not."""
    broker, keys = open_broker(redis_url), ClientKeys(check_client_id(client, path="--client"))
    package, cause = read_model(file), cause_of(reason)
    head = import_model(
        broker, keys, package, cause, force=force, pause=lambda: time.sleep(RETRY_S)
    )
    click.echo(f"{client}: {package.origin} is version {head.version} now")
    if pinned:
        rule = pin(broker, keys, head.version, Selection(), cause)
        click.echo(f"{client}: all agents are pinned to it (rule {rule.rule_id})")
    elif promoted := read_control(broker, keys).promoted:
        click.echo(
            f"agents act by the promoted version {promoted.version}; "
            f"`rl4sys-stream models promote {head.version} --client {client}` lets them act by it"
        )
