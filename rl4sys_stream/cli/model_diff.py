"""`models diff`: two versions side by side."""

from dataclasses import asdict
from typing import Any

import click

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.cli.options import as_json_option, broker_option, echo_json, echo_table
from rl4sys_stream.cli.steer import client_option, open_client
from rl4sys_stream.model_store.comparison import compare
from rl4sys_stream.model_store.subscriber import Model, ModelSubscriber
from rl4sys_stream.wire.json import decode_json

__all__ = ["diff_command"]


@click.command("diff")
@client_option
@click.argument("before", type=int)
@click.argument("after", type=int)
@broker_option
@as_json_option
def diff_command(
    client: str, before: int, after: int, redis_url: str | None, as_json: bool
) -> None:
    """Show what changed from version BEFORE to version AFTER: each tensor, and the metrics."""
    broker, keys = open_client(redis_url, client)
    subscriber = ModelSubscriber(broker, keys)
    old, new = subscriber.read(before), subscriber.read(after)
    changes = compare(old.weights, new.weights)
    metrics = _metrics(broker, keys, old), _metrics(broker, keys, new)
    shapes = _shapes(old), _shapes(new)
    different = sorted({name for name, _ in set(shapes[0].items()) ^ set(shapes[1].items())})
    if as_json:
        echo_json(
            {
                "client": client,
                "before": {"version": old.version, "token": old.token, "metrics": metrics[0]},
                "after": {"version": new.version, "token": new.token, "metrics": metrics[1]},
                "tensors": [asdict(change) for change in changes],
                "only_in_one": different,
            }
        )
        return
    echo_table(
        ("TENSOR", "NORM", "NORM AFTER", "LARGEST CHANGE", "RELATIVE", "COSINE"),
        [
            (
                one.name,
                f"{one.norm_before:.6f}",
                f"{one.norm_after:.6f}",
                f"{one.largest:.6f}",
                f"{one.relative:.6f}",
                f"{one.cosine:.6f}",
            )
            for one in changes
        ],
    )
    for name in different:
        click.echo(f"{name}: not the same tensor in both")
    click.echo("")
    names = sorted({*metrics[0], *metrics[1]})
    echo_table(
        ("METRIC", f"VERSION {before}", f"VERSION {after}"),
        [(name, _shown(metrics[0].get(name)), _shown(metrics[1].get(name))) for name in names],
    )


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    layout = model.weights.layout
    return dict(zip(layout.names, layout.shapes, strict=True))


def _metrics(broker: Broker, keys: ClientKeys, model: Model) -> dict[str, Any]:
    (data,) = broker.hash_get(keys.model(model.version, model.token), "metrics")
    return decode_json(data or b"{}", dict[str, Any], "the metrics")


def _shown(value: object) -> str:
    return "-" if value is None else f"{value:.6g}"
