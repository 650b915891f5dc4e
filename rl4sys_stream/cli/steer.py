"""`models pin|unpin|stop|resume|promote|rules|history`: who acts by which version."""

import time
from datetime import UTC, datetime

import click
import msgspec

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.control import Control, Rule, Selection, read_control
from rl4sys_stream.broker.control_log import read_control_log
from rl4sys_stream.broker.key_types import require_key_types
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import AgentHeartbeat, read_heartbeats, require_registration
from rl4sys_stream.broker.steering import (
    Cause,
    caller,
    demote,
    pin,
    promote,
    resume,
    stop,
    unpin,
)
from rl4sys_stream.cli.options import (
    as_json_option,
    broker_option,
    counted,
    echo_json,
    echo_table,
    open_broker,
    stored_text,
)
from rl4sys_stream.config import check_client_id

__all__ = [
    "STEERING",
    "agents_option",
    "cause_of",
    "client_option",
    "describe_rule",
    "open_client",
    "percent_option",
    "reason_option",
    "selection",
    "utc",
]

LIVE_MS = 10_000
"""An agent that reported within this long counts as running."""

client_option = click.option("--client", required=True, help="Whose versions.")
reason_option = click.option("--reason", callback=stored_text, help="Why, for `models history`.")
agents_option = click.option(
    "--agents",
    callback=stored_text,
    metavar="GLOB",
    help="Only agents with such an id, `host-7-*`.",
)
percent_option = click.option(
    "--percent",
    type=click.FloatRange(0, 100, min_open=True),
    help="Only this share of the agents; the same ones each time.",
)


def cause_of(reason: str | None) -> Cause:
    """Who runs this command, now, and why."""
    return Cause(caller(), time.time_ns() // 1_000_000, reason or "")


def open_client(redis_url: str | None, client: str) -> tuple[Broker, ClientKeys]:
    """The broker, and the keys of a client that is registered there."""
    broker, keys = open_broker(redis_url), ClientKeys(check_client_id(client, path="--client"))
    require_key_types(broker, keys)
    require_registration(broker, keys)
    return broker, keys


def selection(agents: str | None, percent: float | None) -> Selection:
    """The agents that the options say."""
    return Selection(agents or "", percent)


def utc(time_ms: int) -> str:
    """A wall clock's time, to the second."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def version_or_head(
    _ctx: click.Context, parameter: click.Parameter, value: str | None
) -> int | None:
    """A version, None for "head"."""
    if value is None or value == "head":
        return None
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r} is neither a version nor head", param=parameter)
    return int(value)


@click.command("pin")
@client_option
@click.argument("version", callback=version_or_head)
@agents_option
@percent_option
@reason_option
@broker_option
def pin_command(
    client: str,
    version: int | None,
    agents: str | None,
    percent: float | None,
    reason: str | None,
    redis_url: str | None,
) -> None:
    """Hold agents at VERSION while training goes on; "head" lets them be ahead of a promotion."""
    broker, keys = open_client(redis_url, client)
    rule = pin(broker, keys, version, selection(agents, percent), cause_of(reason))
    click.echo(f"{client}: {describe_rule(rule)}")
    _echo_concerned(broker, keys, rule)


@click.command("unpin")
@client_option
@click.argument("rule", default="")
@reason_option
@broker_option
def unpin_command(client: str, rule: str, reason: str | None, redis_url: str | None) -> None:
    """Release the agents of RULE, or of all pins: they follow the newest version again."""
    broker, keys = open_client(redis_url, client)
    removed = unpin(broker, keys, rule, cause_of(reason))
    _echo_removed(client, removed, "nothing was pinned")


@click.command("stop")
@client_option
@agents_option
@percent_option
@reason_option
@broker_option
def stop_command(
    client: str, agents: str, percent: float | None, reason: str | None, redis_url: str | None
) -> None:
    """Let agents act by the application's fallback at once, by chance if it has none."""
    broker, keys = open_client(redis_url, client)
    rule = stop(broker, keys, selection(agents, percent), cause_of(reason))
    click.echo(f"{client}: {describe_rule(rule)}")
    _echo_concerned(broker, keys, rule)
    click.echo(f"take it back with: rl4sys-stream models resume {rule.rule_id} --client {client}")


@click.command("resume")
@client_option
@click.argument("rule", default="")
@reason_option
@broker_option
def resume_command(client: str, rule: str, reason: str | None, redis_url: str | None) -> None:
    """Take back a stop, or all of them: agents act by models again."""
    broker, keys = open_client(redis_url, client)
    removed = resume(broker, keys, rule, cause_of(reason))
    _echo_removed(client, removed, "nothing was stopped")


@click.command("promote")
@client_option
@click.argument("version", callback=version_or_head)
@reason_option
@broker_option
def promote_command(
    client: str, version: int | None, reason: str | None, redis_url: str | None
) -> None:
    """Let all agents without a pin act by VERSION until another is promoted; "head" ends that."""
    broker, keys = open_client(redis_url, client)
    if version is not None:
        promote(broker, keys, version, cause_of(reason))
        click.echo(f"{client}: version {version} is promoted")
    elif demoted := demote(broker, keys, cause_of(reason)):
        click.echo(f"{client}: version {demoted.version} is no more promoted; agents follow head")
    else:
        click.echo(f"{client}: no version is promoted")


@click.command("rules")
@client_option
@broker_option
@as_json_option
def rules_command(client: str, redis_url: str | None, as_json: bool) -> None:
    """Show what agents act by: pins and stops in their order, the promotion, open requests."""
    broker, keys = open_client(redis_url, client)
    control = read_control(broker, keys)
    concerned = _concerned(broker, keys, control)
    if as_json:
        said = msgspec.to_builtins(
            {"rules": control.rules, "promoted": control.promoted, "request": control.request}
        )
        echo_json({"client": client, **said, "agents": concerned})
        return
    if control.rules:
        header = ("RULE", "AGENTS", "ACT BY", "LIVE", "SINCE (UTC)", "BY", "REASON")
        echo_table(header, [_rule_row(rule, concerned) for rule in control.rules])
    others = "other agents" if control.rules else "agents"
    if control.promoted:
        click.echo(f"{others} act by the promoted version {control.promoted.version}")
    else:
        click.echo(f"{others} follow the newest version")
    if control.request:
        request = control.request
        click.echo(f"rollback to version {request.version} is asked for by {request.by}")


@click.command("history")
@client_option
@click.option("--count", type=click.IntRange(1, 10_000), default=20, help="Newest changes.")
@broker_option
@as_json_option
def history_command(client: str, count: int, redis_url: str | None, as_json: bool) -> None:
    """Show what was asked for, by whom, when and why, and what came of it; newest last."""
    broker, keys = open_client(redis_url, client)
    records = read_control_log(broker, keys, count=count)
    if as_json:
        echo_json({"client": client, "history": [msgspec.to_builtins(one) for one in records]})
        return
    if not records:
        click.echo(f"{client}: nothing was ever pinned, stopped, promoted, imported or rolled back")
        return
    echo_table(
        ("TIME (UTC)", "WHAT", "VERSION", "AGENTS", "BY", "REASON"),
        [
            (
                utc(one.time_ms),
                one.what,
                one.version or "-",
                one.agents if one.agents is not None else "-",
                one.by,
                "; ".join(part for part in (one.reason, one.detail) if part),
            )
            for one in records
        ],
    )


def _rule_row(rule: Rule, concerned: dict[str, list[str]]) -> tuple[object, ...]:
    acts = {"fallback": "fallback", "pin": f"version {rule.version}" if rule.version else "head"}
    return (
        rule.rule_id,
        rule.agents,
        acts[rule.action],
        len(concerned.get(rule.rule_id, ())),
        utc(rule.time_ms),
        rule.by,
        rule.reason,
    )


def describe_rule(rule: Rule) -> str:
    """What a rule does, in a clause."""
    if rule.action == "fallback":
        return f"{rule.agents} are stopped (rule {rule.rule_id})"
    at = f"version {rule.version}" if rule.version else "the newest version"
    return f"{rule.agents} are pinned to {at} (rule {rule.rule_id})"


def _live(broker: Broker, keys: ClientKeys) -> list[AgentHeartbeat]:
    now_ms = time.time_ns() // 1_000_000
    said = read_heartbeats(broker, keys).values()
    return [one for one in said if not one.closed and now_ms - one.time_ms < LIVE_MS]


def _concerned(broker: Broker, keys: ClientKeys, control: Control) -> dict[str, list[str]]:
    """Rule id -> ids of the running agents that it decides about."""
    found: dict[str, list[str]] = {}
    for one in _live(broker, keys):
        found.setdefault(control.directive(one.agent_id).rule_id, []).append(one.agent_id)
    return found


def _echo_concerned(broker: Broker, keys: ClientKeys, rule: Rule) -> None:
    concerned = _concerned(broker, keys, read_control(broker, keys)).get(rule.rule_id, [])
    click.echo(f"that concerns {counted(len(concerned), 'running agent', 'running agents')} now")


def _echo_removed(client: str, removed: tuple[Rule, ...], nothing: str) -> None:
    for rule in removed:
        click.echo(f"{client}: no more: {describe_rule(rule)}")
    if not removed:
        click.echo(f"{client}: {nothing}")


STEERING: tuple[click.Command, ...] = (
    pin_command,
    unpin_command,
    stop_command,
    resume_command,
    promote_command,
    rules_command,
    history_command,
)
"""Commands of the group `models`."""
