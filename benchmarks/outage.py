"""What an outage of the broker costs the application: `python -m benchmarks.outage [--kill]`.

A real application process acts at a steady pace with an agent (64×64 actor, 8 observations, 4
actions) under a real broker and a real worker that learns. Phases alternate in one run, so that
noise of the machine hits all kinds: undisturbed, worker stopped (SIGSTOP: the broker is there, and
nobody trains on the same cores, as in an outage), broker away (kill -9, at the end restarted on its
data), undisturbed, and so on. Timed apart: decisions (`request_for_action` + `add_to_trajectory`
+ `update_reward`), and ends (`mark_end_of_trajectory`, which encodes and queues).

With `--kill` the agent has a spool, and in the middle of each outage the application is killed with
kill -9 and started again.

Goals: p99 of the decisions in the outage at most 1.5 × that of the undisturbed phases, and of those
with a stopped worker; no exception; nothing lost and nothing trained twice by the application's own
ledger (see `benchmarks.rig.evidence`); the audit closes and agrees with it. Exits with 1 if one is
missed. The result goes to docs/benchmarks/outage.json, under "outage" or "outage_and_kill".
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.rig.evidence import Observer, Verdict, judge
from benchmarks.rig.processes import (
    CLIENT,
    ROOT,
    Process,
    start_application,
    start_worker,
    write_definition,
)
from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.errors import BrokerError
from rl4sys_stream.testing import RedisServer, eventually

RESULTS = ROOT / "docs" / "benchmarks" / "outage.json"
GOAL_RATIO = 1.5
KINDS = ("undisturbed", "worker stopped", "outage", "recovery")
EPISODE_STEPS = 100
PARAMETERS = {"n_steps": 2048, "batch_size": 128, "n_epochs": 4}
WORKER = {"retain_versions": 100_000}
"""Pruned versions could not be asked what they were trained on."""
# An application that starts while the broker is away has no model and acts by chance, as version
# 0. With the default lag the worker would drop, and count, what it did until it had one.
KILLED_LAG = 1_000_000
RECOVERY_S = 180


@dataclass(frozen=True)
class Phase:
    """A window of monotonic nanoseconds."""

    kind: str
    begin_ns: int
    end_ns: int


class Run:
    """One application, one worker, one broker."""

    def __init__(self, options: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
        self.phases: list[Phase] = []
        self.folder = folder
        self.keys = ClientKeys(CLIENT)
        self._options = options
        self._stack = stack
        self._runs = 0
        self._pause = threading.Event()
        self.server = stack.enter_context(RedisServer())
        self._url = self.server.url
        self.config = write_definition(
            folder,
            parameters=PARAMETERS,
            worker={**WORKER, **({"max_policy_lag": KILLED_LAG} if options.kill else {})},
            agent={"spool_dir": str(folder / "spool")} if options.kill else {},
        )
        self.worker = stack.enter_context(start_worker(self.config, url=self._url, folder=folder))
        self.broker = stack.enter_context(Broker(BrokerAddress.from_url(self._url), name="outage"))
        self.observer = Observer(self._url, self.keys)
        stack.callback(self.observer.close)
        eventually(lambda: read_head(self.broker, self.keys), 60, "the worker publishes")
        self.application = self._start_application()

    def _start_application(self) -> Process:
        started = start_application(
            self.config,
            url=self._url,
            folder=self.folder,
            run=self._runs,
            options=("--rate", str(self._options.rate), "--episode-steps", str(EPISODE_STEPS)),
        )
        self._runs += 1
        return self._stack.enter_context(started)

    def warm_up(self) -> None:
        """Until it has learned from the application, and a while longer."""
        eventually(lambda: read_head(self.broker, self.keys).version > 2, 120, "it learns")
        self._wait(5)

    def phase(self, kind: str, seconds: float, *, kill: bool = False) -> None:
        """Let time pass; with `kill` the application dies in the middle of it."""
        begin = time.monotonic_ns()
        if kill:
            self._wait(seconds / 2)
            self.application.kill()
            self.application = self._start_application()
            seconds /= 2
        self._wait(seconds)
        self.phases.append(Phase(kind, begin, time.monotonic_ns()))
        print(f"{kind}: {(self.phases[-1].end_ns - begin) / 1e9:.0f} s", flush=True)

    def recover(self) -> None:
        """Until what was queued has been trained on; its own phase, in which nobody is measured."""
        begin = time.monotonic_ns()
        before = read_head(self.broker, self.keys).counts.trained
        eventually(
            lambda: read_head(self.broker, self.keys).counts.trained > before and self._caught_up(),
            RECOVERY_S,
            "the backlog is trained on",
            ignoring=(BrokerError,),
        )
        self._wait(2)
        self.phases.append(Phase("recovery", begin, time.monotonic_ns()))
        print(f"recovery: {(self.phases[-1].end_ns - begin) / 1e9:.1f} s", flush=True)

    def settle(self) -> None:
        """End the application in good order, and let the worker finish."""
        self.application.stop()
        eventually(self._caught_up, RECOVERY_S, "the rest is trained on", ignoring=(BrokerError,))
        self.worker.stop()

    def _caught_up(self) -> bool:
        return self.broker.call("XLEN", self.keys.traj) * EPISODE_STEPS < PARAMETERS["n_steps"]

    def _wait(self, seconds: float) -> None:
        self._pause.wait(seconds)
        self.worker.require_alive()
        self.application.require_alive()
        self.observer.check()

    def samples(self, name: str) -> np.ndarray:
        """int64 [N, 2]: begun, took; in nanoseconds."""
        found = []
        for run in range(self._runs):
            data = (self.folder / f"{name}.{run}").read_bytes()
            # A kill may have torn the last one.
            found.append(np.frombuffer(data[: len(data) // 16 * 16], np.int64).reshape(-1, 2))
        return np.concatenate(found)


def run(options: argparse.Namespace, folder: Path) -> tuple[Run, Verdict]:
    """All phases; the run and the balance at its end."""
    with ExitStack() as stack:
        one = Run(options, folder, stack)
        one.warm_up()
        for _ in range(options.cycles):
            one.phase("undisturbed", options.seconds)
            one.worker.pause()
            one.phase("worker stopped", options.seconds)
            one.worker.resume()
            one.recover()
            one.server.kill()
            one.phase("outage", options.seconds, kill=options.kill)
            one.server.restart()
            one.recover()
        one.phase("undisturbed", options.seconds)
        one.settle()
        return one, judge(one.broker, one.keys, folder, one.observer.seen)


def summary(samples: np.ndarray, phases: list[Phase]) -> dict[str, float]:
    """Of the samples that began in one of `phases`; microseconds."""
    begun = samples[:, 0]
    chosen = np.zeros(len(samples), bool)
    for phase in phases:
        chosen |= (begun >= phase.begin_ns) & (begun < phase.end_ns)
    took_us = samples[chosen, 1] / 1e3
    seconds = sum(phase.end_ns - phase.begin_ns for phase in phases) / 1e9
    p50, p99, p999, top = np.percentile(took_us, [50, 99, 99.9, 100])
    return {
        "seconds": round(seconds, 1),
        "samples": len(took_us),
        "per_s": round(len(took_us) / seconds, 1),
        "p50_us": round(float(p50), 1),
        "p99_us": round(float(p99), 1),
        "p99.9_us": round(float(p999), 1),
        "max_us": round(float(top), 1),
    }


def report(options: argparse.Namespace, one: Run, verdict: Verdict) -> dict:
    """Everything that was measured, and which goals were met."""
    latency = {}
    for name in ("decisions", "ends"):
        samples = one.samples(name)
        latency[name] = {
            kind: summary(samples, [p for p in one.phases if p.kind == kind]) for kind in KINDS
        }
        latency[name]["phases"] = [
            {"kind": phase.kind, **summary(samples, [phase])} for phase in one.phases
        ]
    decisions = latency["decisions"]
    ratio, strict_ratio = (
        float(decisions["outage"]["p99_us"] / decisions[kind]["p99_us"])
        for kind in ("undisturbed", "worker stopped")
    )
    exceptions = (one.folder / "errors").read_text().splitlines()
    kills = options.cycles if options.kill else 0
    goals = {
        f"p99 of decisions <= {GOAL_RATIO} x undisturbed": ratio <= GOAL_RATIO,
        f"p99 of decisions <= {GOAL_RATIO} x worker stopped": strict_ratio <= GOAL_RATIO,
        "no exception": not exceptions,
        "nothing lost": not verdict.lost,
        "nothing trained twice": not verdict.twice,
        "no number for two trajectories": not verdict.renumbered,
        "nothing without a promise but one a kill": verdict.unpromised <= kills,
        "the audit closes": verdict.audit_closes,
        "the audit agrees with the ledger": verdict.audit_agrees,
    }
    return {
        "rate_per_s": options.rate,
        "outages": options.cycles,
        "outage_s": options.seconds,
        "kills": kills,
        "latency": latency,
        "p99_ratio": round(ratio, 3),
        "p99_ratio_worker_stopped": round(strict_ratio, 3),
        "exceptions": exceptions[:5],
        "ledger": asdict(verdict),
        "goals": goals,
    }


def show(found: dict) -> None:
    """For people."""
    for name in ("decisions", "ends"):
        for kind in KINDS:
            row = found["latency"][name][kind]
            print(
                f"{name:10} {kind:14} {row['per_s']:8.1f}/s  p50 {row['p50_us']:8.1f} us  "
                f"p99 {row['p99_us']:8.1f} us  max {row['max_us']:9.1f} us"
            )
    print(json.dumps(found["ledger"]))
    print(
        f"p99 ratio {found['p99_ratio']}, {found['p99_ratio_worker_stopped']} to a stopped worker"
    )
    for goal, met in found["goals"].items():
        print(f"{'met   ' if met else 'MISSED'} {goal}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of each phase")
    parser.add_argument("--cycles", type=int, default=2, help="outages")
    parser.add_argument("--rate", type=float, default=1500, help="decisions a second")
    parser.add_argument("--kill", action="store_true", help="the application dies in each outage")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rl4sys-outage-") as folder:
        found = report(options, *run(options, Path(folder)))
    show(found)
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    results["outage_and_kill" if options.kill else "outage"] = found
    options.results.write_text(json.dumps(results, indent=2) + "\n")
    if not all(found["goals"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
