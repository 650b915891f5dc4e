"""The commands that look: `status` and `audit`."""

import time
from dataclasses import asdict
from typing import Any

import click
import msgspec

from rl4sys_stream.broker.audit import AuditReport, audit_client
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.lease import read_lease
from rl4sys_stream.broker.metrics import read_metrics
from rl4sys_stream.broker.registry import (
    list_clients,
    read_heartbeats,
    read_worker_report,
    require_registration,
)
from rl4sys_stream.broker.stream import TrajectoryStream
from rl4sys_stream.cli.options import (
    as_json_option,
    broker_option,
    echo_json,
    echo_table,
    open_broker,
)
from rl4sys_stream.errors import AuditError

__all__ = ["audit", "client_status", "status"]

STALE_MS = 10_000
"""Reports older than this are those of something that is gone."""


def client_status(broker: Broker, client: str, *, now_ms: int) -> dict[str, Any]:
    """Everything `status` says of one client, as JSON-ready data."""
    keys = ClientKeys(client)
    registration = require_registration(broker, keys)
    head, lease = read_head(broker, keys), read_lease(broker, keys)
    backlog = TrajectoryStream(broker, keys).backlog()
    report = read_worker_report(broker, keys)
    heartbeats = read_heartbeats(broker, keys)
    live = {
        agent_id: said
        for agent_id, said in heartbeats.items()
        if not said.closed and now_ms - said.time_ms < STALE_MS
    }
    latest = read_metrics(broker, keys, count=1)
    state = report.state if report else "never started"
    if not lease.holder and state in {"starting", "idle", "training"}:
        state = "gone"
    oldest = now_ms - backlog.oldest_ms if backlog.oldest_ms and backlog.entries else 0
    return {
        "client": client,
        "algorithm": registration.spec.algorithm,
        "lineage": registration.lineage,
        "version": head.version if head else 0,
        "token": head.token if head else "",
        "worker": {
            "state": state,
            "detail": report.detail if report else "",
            "host": report.host if report else "",
            "pid": report.pid if report else 0,
            "lease_ttl_ms": lease.ttl_ms,
        },
        "backlog": {
            "entries": backlog.unsettled(head.retained if head else 0),
            "pending": backlog.pending,
            "unread": backlog.unread,
            "oldest_age_s": round(oldest / 1000, 3),
        },
        "counts": msgspec.to_builtins(head.counts) if head else {},
        "metrics": latest[-1].metrics if latest else {},
        "agents_live": len(live),
        "agents": [msgspec.to_builtins(said) for _, said in sorted(live.items())],
        "agents_seen": len(heartbeats),
    }


@click.command()
@click.option("--client", help="Only this client, with its agents.")
@broker_option
@as_json_option
def status(client: str | None, redis_url: str | None, as_json: bool) -> None:
    """Show clients, workers, versions, backlog and returns."""
    broker = open_broker(redis_url)
    now_ms = time.time_ns() // 1_000_000
    names = [client] if client else list_clients(broker)
    found = [client_status(broker, name, now_ms=now_ms) for name in names]
    if as_json:
        echo_json({"broker": broker.address.public_url, "clients": found})
        return
    if not found:
        click.echo(f"no clients at {broker.address.public_url}; start an application or a demo")
        return
    echo_table(
        (
            "CLIENT",
            "WORKER",
            "VERSION",
            "STEPS",
            "EPISODES",
            "MEAN RETURN",
            "LAG",
            "BACKLOG",
            "AGENTS",
        ),
        [_status_row(one) for one in found],
    )
    for one in found:
        _echo_details(one, agents=client is not None)


def _status_row(one: dict[str, Any]) -> tuple[object, ...]:
    metrics, counts = one["metrics"], one["counts"]
    mean = metrics.get("rollout/ep_rew_mean")
    return (
        one["client"],
        one["worker"]["state"],
        one["version"],
        counts.get("steps", 0),
        counts.get("episodes", 0),
        "-" if mean is None else f"{mean:.1f}",
        f"{metrics.get('policy/lag_mean', 0.0):.2f}",
        one["backlog"]["entries"],
        one["agents_live"],
    )


def _echo_details(one: dict[str, Any], *, agents: bool) -> None:
    if one["worker"]["detail"]:
        click.echo(f"  {one['client']}: worker {one['worker']['state']}: {one['worker']['detail']}")
    for said in one["agents"]:
        if said["refused"]:
            click.echo(f"  {one['client']}: agent {said['agent_id']} refused: {said['refused']}")
    if not agents or not one["agents"]:
        return
    click.echo("")
    echo_table(
        ("AGENT", "VERSION", "ACCEPTED", "SENT", "QUEUED", "DROPPED", "STEPS", "BROKER"),
        [
            (
                said["agent_id"],
                said["version"],
                said["accepted"],
                said["issued"],
                said["queued"],
                said["dropped"],
                said["steps"],
                said["broker"],
            )
            for said in one["agents"]
        ],
    )


@click.command()
@click.option("--client", required=True, help="Whose balance.")
@broker_option
@as_json_option
def audit(client: str, redis_url: str | None, as_json: bool) -> None:
    """Prove that every trajectory a client's agents accepted is accounted for.

    accepted = trained + quarantined + dropped + skipped + pending, for each agent; duplicates
    apart. Exits with 1 if a balance does not close.
    """
    broker = open_broker(redis_url)
    report = audit_client(broker, ClientKeys(client))
    if as_json:
        echo_json(_audit_json(report))
    else:
        _echo_audit(report)
    if not report.closes:
        open_ones = ", ".join(a.agent_id for a in report.agents if not a.closes)
        raise AuditError(f"the balance of {client} does not close for {open_ones}")


_COLUMNS = (
    "accepted",
    "trained",
    "quarantined",
    "dropped",
    "skipped",
    "pending",
    "missing",
    "duplicates",
)


def _audit_json(report: AuditReport) -> dict[str, Any]:
    return {
        "client": report.client,
        "closes": report.closes,
        "steps_accepted": report.accepted_steps,
        "steps_trained": report.steps,
        "quarantined_anonymous": report.anonymous,
        "total": {name: report.total(name) for name in _COLUMNS},
        "agents": [{**asdict(agent), "closes": agent.closes} for agent in report.agents],
    }


def _echo_audit(report: AuditReport) -> None:
    rows: list[tuple[object, ...]] = [
        (a.agent_id, *(getattr(a, name) for name in _COLUMNS), "closes" if a.closes else "OPEN")
        for a in report.agents
    ]
    rows.append(
        ("total", *(report.total(name) for name in _COLUMNS), "closes" if report.closes else "OPEN")
    )
    echo_table(("AGENT", *(name.upper() for name in _COLUMNS), "BALANCE"), rows)
    share = report.steps / report.accepted_steps if report.accepted_steps else 0.0
    click.echo(f"steps trained: {report.steps} of {report.accepted_steps} accepted ({share:.1%})")
    if report.anonymous:
        click.echo(f"{report.anonymous} quarantined entries name no agent")
    for agent in report.agents:
        if agent.inconsistent:
            click.echo(f"{agent.agent_id}: {agent.inconsistent}")
