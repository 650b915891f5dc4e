"""The commands that look: `status` and `audit`."""

import time
from dataclasses import asdict
from typing import Any

import click
import msgspec

from rl4sys_stream.broker.audit import STALE_MS, AuditReport, audit_client
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.control import Rule, read_control
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.key_types import require_key_types
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.lease import LeaseState, read_lease
from rl4sys_stream.broker.metrics import read_metrics
from rl4sys_stream.broker.registry import (
    WorkerReport,
    list_clients,
    read_heartbeats,
    read_worker_report,
    require_registration,
)
from rl4sys_stream.broker.stream import TrajectoryStream
from rl4sys_stream.cli.options import (
    as_json_option,
    broker_option,
    counted,
    echo_json,
    echo_table,
    open_broker,
    printable,
)
from rl4sys_stream.cli.steer import describe_rule
from rl4sys_stream.config import check_client_id
from rl4sys_stream.dispatcher.report import read_dispatchers
from rl4sys_stream.errors import AuditError, KeyTypeError, UnknownClientError, WireError

__all__ = ["audit", "client_status", "status", "worker_next_move"]

STARTING_MS = 120_000
"""A worker that is being started holds no lease; after this long nobody believes in it any more."""


def worker_next_move(state: str, client: str) -> str:
    """What helps a worker in that state, "" if nothing has to."""
    return {
        "never started": f"rl4sys-stream dispatcher, or rl4sys-stream worker --client {client}",
        "gone": f"rl4sys-stream dispatcher, or rl4sys-stream worker --client {client}",
        "stopped": f"rl4sys-stream dispatcher, or rl4sys-stream worker --client {client}",
        "paused": f"rl4sys-stream models rules --client {client}",
        "failed": "mend the cause; a running dispatcher tries again",
        "crash_loop": "mend the cause, then restart the dispatcher "
        f"(or begin a new lineage: rl4sys-stream clients reset {client})",
    }.get(state, "")


def worker_state(report: WorkerReport | None, lease: LeaseState, *, now_ms: int) -> str:
    """What the worker does, as far as its report can be believed."""
    if report is None:
        return "held" if lease.holder else "never started"
    if lease.holder:
        # A report of a failure is older than the worker that holds the lease now.
        return "idle" if report.state in {"failed", "crash_loop", "stopped"} else report.state
    if report.state == "starting" and now_ms - report.time_ms < STARTING_MS:
        return "starting"
    return "gone" if report.state in {"starting", "idle", "training", "paused"} else report.state


def client_status(broker: Broker, client: str, *, now_ms: int) -> dict[str, Any]:
    """Everything `status` says of one client, as JSON-ready data."""
    keys = ClientKeys(client)
    require_key_types(broker, keys)
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
    # The metrics outlive a reset of the client; those of another lineage say nothing of this one.
    fresh = head is not None and bool(latest) and latest[-1].version >= head.version
    state = worker_state(report, lease, now_ms=now_ms)
    control = read_control(broker, keys)
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
            "next_move": worker_next_move(state, client),
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
        "metrics": latest[-1].metrics if fresh else {},
        "control": msgspec.to_builtins(
            {"rules": control.rules, "promoted": control.promoted, "request": control.request}
        ),
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
    names = [check_client_id(client, path="--client")] if client else list_clients(broker)
    found, broken = [], {}
    for name in names:
        try:
            found.append(client_status(broker, name, now_ms=now_ms))
        except (UnknownClientError, KeyTypeError, WireError) as error:
            if client:
                raise
            # One damaged client must not hide the others.
            broken[name] = str(error)
    dispatchers = [one for one in read_dispatchers(broker) if one.live(now_ms)]
    if as_json:
        running = [msgspec.to_builtins(one) for one in dispatchers]
        echo_json(
            {
                "broker": broker.address.public_url,
                "dispatchers": running,
                "clients": found,
                "broken": broken,
            }
        )
        return
    for name in broken:
        click.echo(f"{name} is damaged; `rl4sys-stream doctor` says how", err=True)
    if not found:
        if not broken:
            click.echo(f"no clients at {broker.address.public_url}; start an application or a demo")
        return
    echo_table(
        (
            "CLIENT",
            "WORKER",
            "VERSION",
            "STEPS",
            "EPISODES",
            "RETURN",
            "LAG",
            "BACKLOG",
            "AGENTS",
        ),
        [_status_row(one) for one in found],
    )
    for one in found:
        _echo_details(one, agents=client is not None)
    if not dispatchers and any(one["worker"]["next_move"] for one in found):
        click.echo("  no dispatcher is running")


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
    worker = one["worker"]
    if worker["detail"] or worker["next_move"]:
        why = f": {worker['detail']}" if worker["detail"] else ""
        click.echo(f"  {one['client']}: worker {worker['state']}{why}")
    if worker["next_move"]:
        click.echo(f"  -> {worker['next_move']}")
    for said in one["agents"]:
        if said["refused"]:
            click.echo(f"  {one['client']}: agent {said['agent_id']} refused: {said['refused']}")
        if late := said["late_decisions"]:
            click.echo(
                f"  {one['client']}: agent {said['agent_id']}: {late} of {said['decisions']} "
                "decisions came too late, and were its fallback's"
            )
    for line in _control_lines(one):
        click.echo(f"  {one['client']}: {line}")
    if not agents:
        return
    if not one["agents"]:
        click.echo(f"  no agent is running ({one['agents_seen']} seen before)")
        return
    click.echo("")
    echo_table(
        ("AGENT", "VERSION", "HELD", "ACCEPTED", "SENT", "QUEUED", "DROPPED", "STEPS", "BROKER"),
        [
            (
                said["agent_id"],
                said["version"],
                said["control"] or "-",
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


def _control_lines(one: dict[str, Any]) -> list[str]:
    """What people ask for, and how many running agents say that they obey."""
    control = one["control"]
    lines = []
    for data in control["rules"]:
        rule = msgspec.convert(data, Rule)
        obeying = sum(said["rule"] == rule.rule_id for said in one["agents"])
        why = f": {rule.reason}" if rule.reason else ""
        lines.append(printable(f"{describe_rule(rule)}, by {rule.by}{why} ({obeying} obey)"))
    if control["promoted"]:
        lines.append(f"version {control['promoted']['version']} is promoted")
    if control["request"]:
        lines.append(f"a rollback to version {control['request']['version']} is asked for")
    return lines


@click.command()
@click.option("--client", required=True, help="Whose balance.")
@broker_option
@as_json_option
def audit(client: str, redis_url: str | None, as_json: bool) -> None:
    """Prove that every trajectory a client's agents accepted is accounted for.

    accepted = trained + quarantined + dropped + skipped + pending + lost, for each agent;
    duplicates apart. Exits with 1 if a balance does not close.
    """
    broker, keys = open_broker(redis_url), ClientKeys(check_client_id(client, path="--client"))
    report = audit_client(broker, keys, now_ms=time.time_ns() // 1_000_000)
    if as_json:
        echo_json(_audit_json(report))
    else:
        _echo_audit(report)
    if not report.closes:
        open_ones = ", ".join(a.agent_id for a in report.agents if not a.closes)
        raise AuditError(f"the balance of {client} does not close for {open_ones}")


_ALWAYS_SHOWN = frozenset({"accepted", "trained", "pending"})
"""The columns of `audit` that stand in the table even if they are all zeros."""
_COLUMNS = (
    "accepted",
    "trained",
    "quarantined",
    "dropped",
    "skipped",
    "pending",
    "lost",
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
    # All of them need 113 columns of a terminal that has 80.
    names = [
        name
        for name in _COLUMNS
        if name in _ALWAYS_SHOWN or any(getattr(a, name) for a in report.agents)
    ]
    rows: list[tuple[object, ...]] = [
        (a.agent_id, *(getattr(a, name) for name in names), "closes" if a.closes else "OPEN")
        for a in report.agents
    ]
    rows.append(
        ("total", *(report.total(name) for name in names), "closes" if report.closes else "OPEN")
    )
    echo_table(("AGENT", *(name.upper() for name in names), "BALANCE"), rows)
    share = report.steps / report.accepted_steps if report.accepted_steps else 0.0
    click.echo(f"steps trained: {report.steps} of {report.accepted_steps} accepted ({share:.1%})")
    for agent in report.agents:
        if agent.lost and not agent.closed:
            click.echo(f"{agent.agent_id} died and took {agent.lost} undelivered with it")
        if agent.spooled:
            click.echo(
                f"{agent.agent_id} is gone and left {agent.spooled} in its spool; the next agent "
                "that starts in that folder sends them"
            )
    if report.past.agents:
        click.echo(
            f"the total holds {counted(report.past.agents, 'agent', 'agents')} that went long ago, "
            f"with {report.past.accepted} trajectories"
        )
    if report.anonymous:
        entries = counted(report.anonymous, "quarantined entry names", "quarantined entries name")
        click.echo(f"{entries} no agent")
    for agent in report.agents:
        if agent.inconsistent:
            click.echo(f"{agent.agent_id}: {agent.inconsistent}")
