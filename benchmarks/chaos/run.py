"""One run of the product: start, strike, settle, judge."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos.blackbox import read_history
from benchmarks.chaos.faults import KINDS
from benchmarks.chaos.judge import ClientVerdict, judge
from benchmarks.chaos.ledger import read_ledgers
from benchmarks.chaos.processes import ROOT
from benchmarks.chaos.product import ProductSite
from benchmarks.chaos.schedule import FaultRecord, carry_out_faults
from benchmarks.chaos.settings import ChaosSettings
from rl4sys_stream.broker.connection import URL_ENV, Broker
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import read_heartbeats
from rl4sys_stream.broker.stream import TrajectoryStream
from rl4sys_stream.errors import BrokerError

__all__ = ["ChaosResult", "run_product"]

START_S = 60.0
LOOK_S = 0.2
CLOSE_S = 40.0
SILENT_S = 2.0
"""Nothing more is settled for this long: what is left is less than a rollout."""
EVENTS = re.compile(r"\b((?:worker|dispatcher|agent)\.[a-z_]+(?:\.[a-z_]+)?)\b")


@dataclass(slots=True)
class ChaosResult:
    """What a run showed.

    Attributes:
        settings: Of the run.
        faults: What struck, and what could not.
        verdicts: One for each client.
        audits: Client -> what `rl4sys-stream audit --json` said.
        events: How often the processes logged what.
        violations: All of them; none if the promise was kept.
        begun_ms: Wall clock of the beginning of the faults.
        took_s: From there until everything was settled.
    """

    settings: ChaosSettings
    faults: list[FaultRecord] = field(default_factory=list)
    verdicts: list[ClientVerdict] = field(default_factory=list)
    audits: dict[str, Any] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    begun_ms: int = 0
    took_s: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, nothing taken in twice, and all books agree."""
        return not self.violations


def say(text: str) -> None:
    """Progress, for whoever watches."""
    print(f"{time.strftime('%H:%M:%S')} chaos: {text}", file=sys.stderr, flush=True)


def run_product(folder: Path, settings: ChaosSettings) -> ChaosResult:
    """Run it in `folder`, which must be empty.

    Raises:
        RuntimeError: If it did not get going; no verdict then.
    """
    result = ChaosResult(settings)
    site = ProductSite(folder, settings)
    try:
        _wait_until_trained(site)
        begun = time.monotonic()
        result.begun_ms = time.time_ns() // 1_000_000
        say(f"{settings.faults} faults in {settings.minutes:g} min, seed {settings.seed}")
        result.faults = carry_out_faults(site, KINDS, begun=begun)
        say("no more faults; waiting until everything is settled")
        result.violations += _settle(site)
        result.took_s = time.monotonic() - begun
        say("auditing and judging")
        for client in site.clients():
            result.audits[client] = _audit(site, client)
        site.stop_training()
        site.network.close()
        _judge(site, result)
    finally:
        site.close()
    return result


def _wait(what: str, seconds: float, done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if done():
                return True
        except BrokerError:
            pass  # it is asked again
        time.sleep(LOOK_S)
    say(f"gave up waiting: {what}")
    return False


def _wait_until_trained(site: ProductSite) -> None:
    """Each client has versions, and no broker can forget any more that it is registered."""

    def trained() -> bool:
        with site.network.broker.admin() as admin:
            heads = [read_head(admin, ClientKeys(client)) for client in site.clients()]
        return all(head is not None and head.version >= 3 for head in heads)

    if not _wait("first versions", START_S, trained):
        log = (site.logs / "dispatcher.log").read_text(errors="replace")
        raise RuntimeError(f"the run did not get going:\n{log[-3000:]}")
    time.sleep(site.settings.cut_s)


def _settle(site: ProductSite) -> list[str]:
    """Let everything end in order; what did not."""
    settings, wrong = site.settings, []
    # Agents go on for longer than they retain, so that they say of each number that they no longer
    # offer it.
    time.sleep(settings.retain_s + 2.0)
    crash_looped = [
        line
        for line in (site.logs / "dispatcher.log").read_text(errors="replace").splitlines()
        if "dispatcher.crash_loop" in line
    ]
    if crash_looped:
        say("a dispatcher had given a client up; restarting it")
        site.restart_supervisor()
    wrong += [f"an application ended by itself: {crash}" for crash in site.crashed()]
    running = [one.running for one in site.applications.values() if one.running is not None]
    for application in running:
        application.say("rest")
    for application in running:
        if not application.resting.wait(settings.settle_s):
            wrong.append("an application did not come to rest")
    if not _wait("spools of the dead are finished", settings.settle_s, lambda: _adopted(site)):
        wrong.append("a dead agent's spool was not finished")
    if not _wait("the streams are settled", settings.settle_s, _Silence(site)):
        wrong.append("the streams were not settled")
    for application in running:
        if application.close(CLOSE_S) != 0:
            wrong.append("an application did not close in order")
    return wrong


def _adopted(site: ProductSite) -> bool:
    """Whether all agents that are gone have said goodbye, by themselves or by their heirs."""
    ledger = read_ledgers(site.ledgers)
    latest = site.latest()
    with site.network.broker.admin() as admin:
        heartbeats = {
            client: read_heartbeats(admin, ClientKeys(client)) for client in site.clients()
        }
    for identity, agent in ledger.agents.items():
        if identity.incarnation == latest[identity.application]:
            continue
        if (site.spool(agent.client) / agent.agent_id).exists():
            return False
        said = heartbeats[agent.client].get(agent.agent_id)
        if said is not None and not said.closed:
            return False
    return True


class _Silence:
    """Whether workers are at work and have nothing more to settle for a while."""

    def __init__(self, site: ProductSite) -> None:
        self._site = site
        self._last: object = None
        self._since = time.monotonic()

    def __call__(self) -> bool:
        site = self._site
        with site.network.broker.admin() as admin:
            now = [self._look(admin, ClientKeys(client)) for client in site.clients()]
        idle = all(unread == 0 and lease is not None for _, unread, lease in now)
        if now != self._last or not idle:
            self._last, self._since = now, time.monotonic()
        # An episode has more than one step, so a rollout has at most half as many trajectories.
        few = all(unsettled <= site.settings.n_steps // 2 for unsettled, _, _ in now)
        return few and time.monotonic() - self._since >= SILENT_S

    @staticmethod
    def _look(admin: Broker, keys: ClientKeys) -> tuple[int, int | None, bytes | None]:
        """Entries that wait for their settlement, those that nobody has read, the lease."""
        head, backlog = read_head(admin, keys), TrajectoryStream(admin, keys).backlog()
        unsettled = backlog.unsettled(head.retained if head else 0)
        return unsettled, backlog.unread, admin.call("GET", keys.lease)


def _audit(site: ProductSite, client: str) -> dict[str, Any]:
    """What the command says, and its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "rl4sys_stream", "audit", "--client", client, "--json"],
        cwd=ROOT,
        env={**os.environ, URL_ENV: site.network.broker.url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if not done.stdout.startswith("{"):
        return {"exit_code": done.returncode, "error": done.stderr}
    return {"exit_code": done.returncode, **json.loads(done.stdout)}


def _judge(site: ProductSite, result: ChaosResult) -> None:
    ledger = read_ledgers(site.ledgers)
    files = site.network.broker.files()
    latest = site.latest()
    for client in site.clients():
        audit = result.audits[client]
        dropped = {agent["agent_id"]: agent["dropped"] for agent in audit.get("agents", [])}
        history = read_history(files, client)
        for agent_id, record in history.ledgers.items():
            dropped[agent_id] = dropped.get(agent_id, 0) - record.dropped
        verdict = judge(history, ledger, client, dropped)
        # Nobody else may have taken anything out of a stream; least of all the product.
        by_harness = site.destroyed.get(client, {})
        verdict.accuse(
            "entries were destroyed, and not by this harness",
            sorted(history.destroyed - set(by_harness)),
        )
        result.verdicts.append(verdict)
        result.violations += verdict.violations
        killed = sum(
            agent.client == client and identity.incarnation < latest[identity.application]
            for identity, agent in ledger.agents.items()
        )
        result.violations += _compare(verdict, audit, killed=killed)
    for path in sorted(site.logs.glob("*.log")):
        text = path.read_text(errors="replace")
        result.events.update(EVENTS.findall(text))
        if "Traceback (most recent call last)" in text:
            result.events[f"traceback in {path.name}"] += text.count("Traceback (most recent")


def _compare(verdict: ClientVerdict, audit: dict[str, Any], *, killed: int) -> list[str]:
    """The command's balance against the harness's; `killed` is how many agents were."""
    wrong = []
    if audit["exit_code"] != 0 or not audit.get("closes"):
        open_ones = [one for one in audit.get("agents", []) if not one["closes"]]
        wrong.append(
            f"audit of {verdict.client} does not close: {audit.get('error', '')} {open_ones}"
        )
    total = audit.get("total", {})
    fates, unwritten = verdict.fates, verdict.unwritten
    unrewarded = fates["quarantined (application killed before its reward came)"]
    mine = {
        "accepted": verdict.ended + unwritten.total(),
        "trained": fates["trained"] + unwritten["trained"],
        "quarantined": fates["quarantined"] + unwritten["quarantined"] + unrewarded,
        "dropped": fates["dropped"] + unwritten["dropped"] + fates["dropped (by the agent)"],
        "skipped": fates["skipped"] + unwritten["skipped"],
        "pending": fates["pending"] + unwritten["pending"],
        "lost": 0,
        "missing": 0,
    }
    # An agent that was killed inside `mark_end_of_trajectory` may have one on disk whose last
    # reward never came: it is in that agent's books, and nowhere else.
    slack = {"accepted": killed, "quarantined": killed}
    total["dropped or skipped"] = total.get("dropped", 0) + total.get("skipped", 0)
    mine["dropped or skipped"] = mine["dropped"] + mine["skipped"]
    # What was destroyed may have been read before, and then it was dropped, not skipped.
    mine["skipped"] -= verdict.unclear
    slack |= {"dropped": verdict.unclear, "skipped": verdict.unclear}
    for name, count in mine.items():
        if not count <= total.get(name, -1) <= count + slack.get(name, 0):
            wrong.append(
                f"{verdict.client}: audit says {name} {total.get(name)}, the harness {count}"
            )
    return wrong
