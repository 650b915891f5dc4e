"""The end of a run: everything that is still on its way arrives, and one more rollout after it."""

import sys
import time
from collections.abc import Callable

from benchmarks.chaos.ledger import read_ledgers
from benchmarks.chaos.product import KEPT, ProductSite
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import read_heartbeats
from rl4sys_stream.broker.stream import TrajectoryStream
from rl4sys_stream.errors import BrokerError

__all__ = ["say", "settle", "wait_for"]

LOOK_S = 0.2
CLOSE_S = 40.0
SILENT_S = 2.0
"""Nothing more is settled for this long: what is left is less than a rollout."""


def say(text: str) -> None:
    """Progress, for whoever watches."""
    print(f"{time.strftime('%H:%M:%S')} chaos: {text}", file=sys.stderr, flush=True)


def wait_for(what: str, seconds: float, done: Callable[[], bool]) -> bool:
    """Ask until it is so; False if it did not come to that in time."""
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


def settle(site: ProductSite) -> tuple[list[str], int]:
    """Let everything end in order.

    Returns:
        What did not, and the wall clock of the beginning of the last rollout, in milliseconds.
    """
    settings, wrong = site.settings, list(site.wrong)

    def expect(what: str, done: Callable[[], bool]) -> None:
        if not wait_for(what, settings.settle_s, done):
            wrong.append(f"it never came to this: {what}")

    # Agents go on for longer than they retain, so that they say of each number that they no longer
    # offer it.
    time.sleep(settings.retain_s + 2.0)
    if "dispatcher.crash_loop" in (site.logs / "dispatcher.log").read_text(errors="replace"):
        say("a dispatcher had given a client up; restarting it")
        site.restart_supervisor()
    wrong += [f"an application ended by itself: {crash}" for crash in site.crashed()]
    expect("forked children have ended", lambda: not site.children())
    running = [one.running for one in site.applications.values() if one.running is not None]
    for application in running:
        application.say("rest")
    expect("applications rest", lambda: all(one.hears("resting", 0.1) for one in running))
    expect("spools of the dead are finished", lambda: _adopted(site))
    expect("the streams are settled", _Silence(site))
    # One more rollout for each client: whatever still waits after that is never trained on.
    flushed_ms = time.time_ns() // 1_000_000
    last = site.applications[KEPT].running
    assert last is not None
    last.say("more")
    expect("the last rollout is sent", lambda: last.hears("resting", 0.1, times=2))
    expect("the last rollout is settled", _Silence(site))
    wrong += [
        "an application did not close in order"
        for application in running
        if application.close(CLOSE_S) != 0
    ]
    return wrong, flushed_ms


def _adopted(site: ProductSite) -> bool:
    """Whether all agents that are gone have said goodbye, by themselves or by their heirs."""
    ledger = read_ledgers(site.ledgers)
    with site.network.broker.admin() as admin:
        heartbeats = {
            client: read_heartbeats(admin, ClientKeys(client)) for client in site.clients()
        }
    for identity, agent in ledger.agents.items():
        if not site.is_over(identity):
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
