"""`models export|import`: versions as files, and files as versions."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from rl4sys_stream.broker.control import Selection, read_control
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.steering import pin
from rl4sys_stream.cli.options import broker_option, open_broker
from rl4sys_stream.cli.steer import cause_of, client_option, open_client, reason_option
from rl4sys_stream.config import check_client_id
from rl4sys_stream.errors import MissingExtraError, UsageError, WireFormatError
from rl4sys_stream.exchange.importing import import_model
from rl4sys_stream.exchange.npz import encode_npz, read_npz
from rl4sys_stream.exchange.package import ModelPackage, read_package

__all__ = ["export_command", "import_command"]

RETRY_S: Final = 0.5

_FORMATS: Final = {"npz": "npz", "onnx": "onnx", "pt": "torch", "safetensors": "safetensors"}
"""Ending of a file -> name of its format."""
_ENDINGS: Final = {kind: ending for ending, kind in _FORMATS.items()}
_READ: Final = ("npz", "safetensors")
"""Formats that have all that makes a version."""


def _writer(kind: str) -> Callable[[ModelPackage], bytes]:
    """What writes a format; imported here, because each needs a package of its own.

    Raises:
        MissingExtraError: If that is not installed.
    """
    try:
        match kind:
            case "onnx":
                from rl4sys_stream.exchange.onnx_file import encode_onnx

                return encode_onnx
            case "safetensors":
                from rl4sys_stream.exchange.safetensors_file import encode_safetensors

                return encode_safetensors
            case "torch":
                from rl4sys_stream.exchange.torch_file import encode_torch

                return encode_torch
    except ModuleNotFoundError as error:
        raise _missing(kind) from error
    return encode_npz


def _reader(path: Path) -> Callable[[Path], ModelPackage]:
    kind = _FORMATS.get(path.suffix.removeprefix("."), "")
    if kind not in _READ:
        endings = " or ".join(f".{one}" for one in _READ)
        raise WireFormatError(
            f"{path} does not end in {endings}: only these forms have all that makes a version"
        )
    if kind == "npz":
        return read_npz
    try:
        from rl4sys_stream.exchange.safetensors_file import read_safetensors
    except ModuleNotFoundError as error:
        raise _missing(kind) from error
    return read_safetensors


def _missing(kind: str) -> MissingExtraError:
    extra = "worker" if kind == "torch" else kind
    return MissingExtraError(f"what the format {kind} needs", extra)


@click.command("export")
@client_option
@click.argument("version", type=int)
@click.option("--format", "kind", type=click.Choice(sorted(_ENDINGS)), help="Default: npz.")
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
    kind = kind or _FORMATS.get(out.suffix.removeprefix(".") if out else "", "npz")
    write = _writer(kind)
    broker, keys = open_client(redis_url, client)
    data = write(read_package(broker, keys, version))
    path = out or Path(f"{client}-{version}.{_ENDINGS[kind]}")
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
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
    package, cause = _reader(file)(file), cause_of(reason)
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
