"""`models rollback`: ask for it, wait for the worker, say what came of it."""

import time
from typing import Final

import click

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.control import RollbackRequest, read_control
from rl4sys_stream.broker.control_log import ControlRecord, read_control_log
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.lease import read_lease
from rl4sys_stream.broker.registry import read_worker_report
from rl4sys_stream.broker.steering import request_rollback, withdraw_rollback
from rl4sys_stream.cli.options import broker_option
from rl4sys_stream.cli.steer import cause_of, client_option, open_client, reason_option
from rl4sys_stream.errors import ExitCode

__all__ = ["rollback_command"]

POLL_S: Final = 0.1


@click.command("rollback")
@client_option
@click.argument("version", type=int, required=False)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Longest wait for the worker, in seconds.",
)
@click.option("--withdraw", is_flag=True, help="Take a request back that is not carried out yet.")
@reason_option
@broker_option
def rollback_command(
    client: str,
    version: int | None,
    timeout_s: float,
    withdraw: bool,
    reason: str | None,
    redis_url: str | None,
) -> int:
    """Continue from VERSION: its weights become a new version, for agents and for the learner.

    The learner's critic and optimizer are those of VERSION's checkpoint. The worker carries it out
    before its next commit; this command waits for that.
    """
    if withdraw == (version is not None):
        raise click.UsageError("give either VERSION or --withdraw")
    broker, keys = open_client(redis_url, client)
    if version is None:
        found = withdraw_rollback(broker, keys, "", cause_of(reason))
        click.echo(f"{client}: {'the request was withdrawn' if found else 'no request is open'}")
        return ExitCode.OK
    request = request_rollback(broker, keys, version, cause_of(reason))
    answer = _wait(broker, keys, request, timeout_s) if read_lease(broker, keys).holder else None
    if answer is None:
        click.echo(_still_open(broker, keys, request))
        return ExitCode.FAILURE
    if answer.what == "rolled back":
        click.echo(f"{client}: version {version} is the head again, as version {answer.version}")
        return ExitCode.OK
    click.echo(f"{client}: {answer.what} by {answer.by}: {answer.reason}", err=True)
    return ExitCode.FAILURE


def _wait(
    broker: Broker, keys: ClientKeys, request: RollbackRequest, timeout_s: float
) -> ControlRecord | None:
    """What came of the request, None if nothing has yet."""
    deadline = time.monotonic() + timeout_s
    while True:
        asked = read_control(broker, keys).request
        if asked is not None and asked.request_id != request.request_id:
            return ControlRecord(
                what="replaced", time_ms=asked.time_ms, by=asked.by, reason=asked.reason
            )
        if asked is None:
            for record in reversed(read_control_log(broker, keys)):
                if record.request == request.request_id and record.what != "rollback requested":
                    return record
        if time.monotonic() >= deadline:
            return None
        time.sleep(POLL_S)


def _still_open(broker: Broker, keys: ClientKeys, request: RollbackRequest) -> str:
    recorded = f"{keys.client}: the rollback to version {request.version} is recorded"
    report = read_worker_report(broker, keys)
    if read_lease(broker, keys).holder and report is not None:
        return (
            f"{recorded}; the worker on {report.host} (process {report.pid}, {report.state}) has "
            "not answered yet and does it before its next commit"
        )
    return (
        f"{recorded}; no worker runs, and the next one that starts does it first: rl4sys-stream "
        f"dispatcher, or rl4sys-stream worker --client {keys.client}"
    )
