"""`models`: the group, with `list` and `show`."""

from typing import Any

import click

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.control import Control, read_control
from rl4sys_stream.broker.head import ManifestEntry, read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.cli.group import CommandGroup
from rl4sys_stream.cli.model_diff import diff_command
from rl4sys_stream.cli.model_files import export_command, import_command
from rl4sys_stream.cli.options import (
    as_json_option,
    broker_option,
    echo_json,
    echo_table,
)
from rl4sys_stream.cli.rollback import rollback_command
from rl4sys_stream.cli.steer import STEERING, client_option, open_client, utc
from rl4sys_stream.errors import UnknownVersionError
from rl4sys_stream.model_store.subscriber import ModelSubscriber
from rl4sys_stream.wire.json import decode_json

__all__ = ["models"]


@click.group(cls=CommandGroup)
def models() -> None:
    """Look at model versions, choose who acts by which, and move them in and out."""


for _command in (*STEERING, rollback_command, diff_command, export_command, import_command):
    models.add_command(_command)


@models.command("list")
@client_option
@broker_option
@as_json_option
def list_command(client: str, redis_url: str | None, as_json: bool) -> None:
    """List the retained versions, newest first."""
    broker, keys = open_client(redis_url, client)
    head, control = read_head(broker, keys), read_control(broker, keys)
    found = [
        {**_describe(broker, keys, entry), "held": _held(control, entry)}
        for entry in reversed(head.manifest if head else ())
    ]
    if as_json:
        echo_json({"client": client, "lineage": head.lineage if head else "", "versions": found})
        return
    if not found:
        click.echo(f"{client} has no version yet; its worker publishes the first one")
        return
    echo_table(
        ("VERSION", "PUBLISHED (UTC)", "KIND", "BYTES", "STEPS", "RETURN", "HELD"),
        [
            (
                one["version"],
                utc(one["time_ms"]),
                "keyframe" if one["full_bytes"] else "diff",
                one["full_bytes"] or one["diff_bytes"],
                int(one["metrics"].get("time/total_timesteps", 0)),
                _rounded(one["metrics"].get("rollout/ep_rew_mean")),
                ", ".join(one["held"]),
            )
            for one in found
        ],
    )


@models.command("show")
@client_option
@click.argument("version", type=int)
@broker_option
@as_json_option
def show_command(client: str, version: int, redis_url: str | None, as_json: bool) -> None:
    """Show one version: its bytes, what it was trained on, its metrics, its tensors."""
    broker, keys = open_client(redis_url, client)
    # Read whole, so that what is shown is known to decode and to match its digest.
    model = ModelSubscriber(broker, keys).read(version)
    head = read_head(broker, keys)
    entries = [e for e in (head.manifest if head else ()) if e.version == version]
    if not entries:
        raise UnknownVersionError(f"{client}: version {version} was pruned just now")
    found = _describe(broker, keys, entries[0])
    layout = model.weights.layout
    found["tensors"] = {
        name: list(shape) for name, shape in zip(layout.names, layout.shapes, strict=True)
    }
    found["parameters"] = layout.size
    if as_json:
        echo_json({"client": client, **found})
        return
    for name in (
        "version",
        "token",
        "lineage",
        "digest",
        "parameters",
        "base",
        "diff_bytes",
        "full_bytes",
    ):
        click.echo(f"{name:12} {found[name]}")
    click.echo(f"{'published':12} {utc(found['time_ms'])} UTC")
    _echo_nested("provenance", found["provenance"])
    _echo_nested("metrics", found["metrics"])
    _echo_nested("tensors", found["tensors"])


def _echo_nested(title: str, values: dict[str, Any]) -> None:
    click.echo(title)
    for name, value in values.items():
        click.echo(f"  {name:28} {_short(value)}")


SHOWN_CHARS = 120


def _short(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 3]}..."


def _describe(broker: Broker, keys: ClientKeys, entry: ManifestEntry) -> dict[str, Any]:
    names = ("lineage", "digest", "base_version", "base_token", "provenance", "metrics", "time_ms")
    fields = broker.hash_get(keys.model(entry.version, entry.token), *names)
    found = {name: (data or b"").decode() for name, data in zip(names, fields, strict=True)}
    base = f"{found['base_version']} of {found['base_token']}" if found["base_version"] else ""
    return {
        "version": entry.version,
        "token": entry.token,
        "lineage": found["lineage"],
        "digest": found["digest"],
        "base": base,
        "diff_bytes": entry.diff_bytes,
        "full_bytes": entry.full_bytes,
        "time_ms": int(found["time_ms"] or 0),
        "provenance": decode_json(found["provenance"] or b"{}", object, "the provenance"),
        "metrics": decode_json(found["metrics"] or b"{}", object, "the metrics"),
    }


def _held(control: Control, entry: ManifestEntry) -> list[str]:
    """What people have decided about a version."""
    name = (entry.version, entry.token)
    found = []
    if any((rule.version, rule.token) == name for rule in control.rules):
        found.append("pinned")
    if control.promoted and (control.promoted.version, control.promoted.token) == name:
        found.append("promoted")
    return found


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
