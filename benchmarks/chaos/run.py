"""One run of the product: start, strike, settle, judge."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos.blackbox import ClientHistory, read_histories
from benchmarks.chaos.faults import KINDS
from benchmarks.chaos.judge import ClientVerdict, judge
from benchmarks.chaos.ledger import read_ledgers
from benchmarks.chaos.processes import ROOT
from benchmarks.chaos.product import ProductSite
from benchmarks.chaos.schedule import FaultRecord, carry_out_faults
from benchmarks.chaos.settings import ChaosSettings
from benchmarks.chaos.settling import say, settle, wait_for
from rl4sys_stream.broker.connection import URL_ENV
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.keys import ClientKeys

__all__ = ["ChaosResult", "check_faults", "check_share", "find_tracebacks", "run_product"]

START_S = 60.0
LONG_MINUTES = 5.0
"""A run of this length meets every kind of fault."""
TRAINED_SHARE = 0.95
TRACEBACK = "Traceback (most recent call last)"
QUOTED = 1500
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
        flushed_ms: Wall clock of the beginning of the last rollout.
        took_s: From there until everything was settled.
    """

    settings: ChaosSettings
    faults: list[FaultRecord] = field(default_factory=list)
    verdicts: list[ClientVerdict] = field(default_factory=list)
    audits: dict[str, Any] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    begun_ms: int = 0
    flushed_ms: int = 0
    took_s: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether nothing was lost or taken in twice, all books agree, and the run was one."""
        return not self.violations


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
        result.violations += check_faults(result)
        wrong, result.flushed_ms = settle(site)
        result.violations += wrong
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


def _wait_until_trained(site: ProductSite) -> None:
    """Each client has versions, and no broker can forget any more that it is registered."""

    def trained() -> bool:
        with site.network.broker.admin() as admin:
            heads = [read_head(admin, ClientKeys(client)) for client in site.clients()]
        return all(head is not None and head.version >= 3 for head in heads)

    if not wait_for("first versions", START_S, trained):
        log = (site.logs / "dispatcher.log").read_text(errors="replace")
        raise RuntimeError(f"the run did not get going:\n{log[-3000:]}")
    time.sleep(site.settings.cut_s)


def check_faults(result: ChaosResult) -> list[str]:
    """A run that hardly struck proves nothing."""
    wrong, settings = [], result.settings
    struck = Counter(fault.kind for fault in result.faults if fault.counts)
    if struck.total() < settings.faults:
        wrong.append(f"{struck.total()} faults struck, {settings.faults} were wanted")
    missing = [kind.name for kind in KINDS if not struck[kind.name]]
    if missing and settings.minutes >= LONG_MINUTES:
        wrong.append(f"these kinds of faults never struck: {', '.join(missing)}")
    return wrong


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
    histories = read_histories(site.network.broker.files(), site.clients())
    for client, history in histories.items():
        audit = result.audits[client]
        verdict = judge(
            history,
            ledger,
            client,
            flushed_ms=result.flushed_ms,
            n_steps=site.settings.n_steps,
        )
        # Nobody else may have taken anything out of a stream; least of all the product.
        by_harness = site.destroyed.get(client, {})
        verdict.accuse(
            "entries were destroyed, and not by this harness",
            sorted(history.destroyed - set(by_harness)),
        )
        verdict.accuse("agents dropped, and had room", _agents_that_dropped(history, audit))
        result.verdicts.append(verdict)
        result.violations += verdict.violations
        result.violations += check_share(verdict)
        gone = sum(
            agent.client == client and site.is_over(identity)
            for identity, agent in ledger.agents.items()
        )
        result.violations += _compare(verdict, audit, killed=gone)
    for path in sorted(site.logs.glob("*.log")):
        text = path.read_text(errors="replace")
        result.events.update(EVENTS.findall(text))
        result.violations += find_tracebacks(path.name, text)


def _agents_that_dropped(history: ClientHistory, audit: dict[str, Any]) -> list[str]:
    """By their own counters; one more than the worker's commits say is theirs."""
    found = []
    for agent in audit.get("agents", []):
        record = history.ledgers.get(agent["agent_id"])
        count = agent["dropped"] - (record.dropped if record else 0)
        if count:
            found.append(f"{agent['agent_id']}: {count}")
    return found


def check_share(verdict: ClientVerdict) -> list[str]:
    """Counting everything that was not trained is no way to keep the promise."""
    due = verdict.ended - verdict.fates["pending"]
    if verdict.fates["trained"] >= TRAINED_SHARE * due:
        return []
    return [f"{verdict.client}: of {due} only {verdict.fates['trained']} were trained on"]


def find_tracebacks(name: str, text: str) -> list[str]:
    """An unexpected error in any process, quoted."""
    _, *found = text.split(TRACEBACK)
    return [f"traceback in {name}: {TRACEBACK}{rest[:QUOTED]}" for rest in found]


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
        "dropped": fates["dropped"] + unwritten["dropped"],
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
