"""The kinds of faults, and what each needs to have to itself."""

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.chaos.processes import send
from benchmarks.chaos.proxy import ChaosProxy, Mode
from benchmarks.chaos.site import Site

__all__ = ["KINDS", "Kind", "Strike", "needs"]

RESOLVED_S = 25.0
"""Patience until what was destroyed is counted as skipped, or trained after all."""

# The entries that follow the group's last delivered one have been read by nobody.
_DESTROY_UNREAD = """
local last
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local named = {}
  for i = 1, #group, 2 do named[group[i]] = group[i + 1] end
  if named['name'] == ARGV[1] then last = named['last-delivered-id'] end
end
if not last then return {} end
local found = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', ARGV[2])
for _, entry in ipairs(found) do redis.call('XDEL', KEYS[1], entry[1]) end
return found
"""
_TRIM = """
local found = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[1])
if #found < 2 then return {} end
redis.call('XTRIM', KEYS[1], 'MINID', found[#found][1])
found[#found] = nil
return found
"""


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault about to happen: where, with which chance, on which client."""

    site: Site
    rng: random.Random
    client: str

    def wait(self, low_s: float, high_s: float) -> None:
        """Some time between the two, or until the run ends."""
        self.site.stopping.wait(self.rng.uniform(low_s, high_s))

    def trainer(self) -> int | None:
        """One of the client's trainers."""
        found = self.site.trainers(self.client)
        return self.rng.choice(found) if found else None


Carry = Callable[[Strike], str]
"""Carries a fault out; says what it did, "" if there was nothing to strike."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault; `needs` names what no other fault may touch meanwhile."""

    name: str
    carry_out: Carry
    needs: tuple[str, ...]


def needs(kind: Kind, client: str) -> frozenset[str]:
    """The locks of one fault: `worker` and `producer` are the client's own."""
    own = {"worker", "producer"}
    return frozenset(f"{name}:{client}" if name in own else name for name in kind.needs)


# -- trainers ------------------------------------------------------------------------------------


def _signal_trainer(number: signal.Signals) -> Carry:
    def carry_out(strike: Strike) -> str:
        pid = strike.trainer()
        return f"process {pid}" if pid is not None and send(pid, number) else ""

    return carry_out


def _stop_trainer(strike: Strike) -> str:
    pid = strike.trainer()
    if pid is None or not send(pid, signal.SIGSTOP):
        return ""
    lease_s = strike.site.settings.lease_s
    try:
        strike.wait(lease_s * 1.2, lease_s * 2.5)
    finally:
        send(pid, signal.SIGCONT)
    return f"process {pid}"


def _second_trainer(strike: Strike) -> str:
    pid = strike.site.start_trainer(strike.client)
    strike.wait(2.0, 4.0)
    other = strike.trainer()
    if other is not None:
        send(other, signal.SIGKILL)  # perhaps the one in office, perhaps the one in waiting
    strike.wait(1.0, 3.0)
    send(pid, signal.SIGTERM)
    return f"processes {pid} and {other}"


def _restart_supervisor(strike: Strike) -> str:
    return strike.site.restart_supervisor()


def _restart_producer(strike: Strike) -> str:
    return strike.site.restart_producer(strike.client)


# -- broker --------------------------------------------------------------------------------------


def _kill_broker(strike: Strike, fsync: str) -> str:
    broker = strike.site.network.broker
    broker.kill()
    strike.wait(0.0, 1.0)
    broker.restart("always" if fsync == "always" else "everysec")
    return f"appendfsync {fsync} from here on"


def _kill_broker_everysec(strike: Strike) -> str:
    return _kill_broker(strike, "everysec")


def _kill_broker_always(strike: Strike) -> str:
    return _kill_broker(strike, "always")


def _cut_broker(strike: Strike) -> str:
    broker = strike.site.network.broker
    broker.kill()
    seconds = strike.rng.uniform(0.1, strike.site.settings.cut_s)
    try:
        lost = broker.cut(seconds)
    finally:
        broker.restart()
    return f"{lost} bytes of the last {seconds:.2f} s" if lost else ""


def _hang_broker(strike: Strike) -> str:
    broker = strike.site.network.broker
    broker.hang()
    try:
        strike.wait(0.5, 3.5)
    finally:
        broker.go_on()
    return "hung"


def _ask(strike: Strike, *command: str | int) -> object:
    with strike.site.network.broker.admin() as admin:
        return admin.call(*command)


def _pause_clients(strike: Strike) -> str:
    _ask(strike, "CLIENT", "PAUSE", strike.rng.randint(500, 2500), "ALL")
    return "paused"


def _kill_clients(kind: str) -> Carry:
    def carry_out(strike: Strike) -> str:
        killed = _ask(strike, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        return f"{killed} connections"

    return carry_out


def _fill_broker(strike: Strike) -> str:
    with strike.site.network.broker.admin() as admin:
        (before,) = [admin.call("CONFIG", "GET", "maxmemory")[b"maxmemory"]]
        admin.call("CONFIG", "SET", "maxmemory", "1mb")
        try:
            strike.wait(0.5, 3.0)
        finally:
            admin.call("CONFIG", "SET", "maxmemory", before)
    return "maxmemory 1mb"


# -- network -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _mode(proxy: ChaosProxy, mode: Mode) -> Iterator[None]:
    proxy.set_mode(mode)
    try:
        yield
    finally:
        proxy.set_mode("pass")


def _one_proxy(strike: Strike) -> tuple[str, ChaosProxy]:
    network = strike.site.network
    return strike.rng.choice([("producers", network.producers), ("trainers", network.trainers)])


def _lose_replies(strike: Strike) -> str:
    name, proxy = _one_proxy(strike)
    before = proxy.lost
    with _mode(proxy, "lose_replies"):
        strike.wait(0.5, 2.5)
    return f"{proxy.lost - before} replies to {name}"


def _reset_connections(strike: Strike) -> str:
    name, proxy = _one_proxy(strike)
    proxy.reset()
    return f"those of {name}"


def _blackhole(strike: Strike) -> str:
    name, proxy = _one_proxy(strike)
    with _mode(proxy, "blackhole"):
        strike.wait(0.5, 3.5)
    return f"to and from {name}"


def _refuse(strike: Strike) -> str:
    name, proxy = _one_proxy(strike)
    with _mode(proxy, "refuse"):
        proxy.reset()
        strike.wait(0.5, 3.0)
    return f"those of {name}"


# -- third parties -------------------------------------------------------------------------------


def _destroy(strike: Strike, script: str, *arguments: str | int) -> str:
    """Destroy entries while no worker reads, and wait until the books have closed over them.

    An agent that is gone cannot say that it offers a number no more, so nothing else is struck
    until then.
    """
    site, client = strike.site, strike.client
    stopped = [pid for pid in site.trainers(client) if send(pid, signal.SIGSTOP)]
    try:
        strike.wait(1.0, 2.0)
        with site.network.broker.admin() as admin:
            reply = admin.call("EVAL", script, 1, site.stream(client), *arguments)
        found = dict(_address(row) for row in reply)
        site.note_destroyed(client, found)
    finally:
        for pid in stopped:
            send(pid, signal.SIGCONT)
    deadline = time.monotonic() + RESOLVED_S
    while found and time.monotonic() < deadline and not site.are_settled(client, found):
        site.stopping.wait(0.3)
    return f"{len(found)} entries" if found else ""


def _address(row: list[object]) -> tuple[str, tuple[str, int]]:
    entry_id, flat = row
    assert isinstance(entry_id, bytes)
    assert isinstance(flat, list)
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return entry_id.decode(), (fields[b"agent_id"].decode(), int(fields[b"seq"]))


def _delete_unread(strike: Strike) -> str:
    return _destroy(strike, _DESTROY_UNREAD, strike.site.group(), strike.rng.randint(1, 6))


def _trim(strike: Strike) -> str:
    return _destroy(strike, _TRIM, strike.rng.randint(2, 8))


_CLIENT = ("worker", "producer")
KINDS: tuple[Kind, ...] = (
    Kind("worker kill -9", _signal_trainer(signal.SIGKILL), ("worker",)),
    Kind("worker SIGTERM", _signal_trainer(signal.SIGTERM), ("worker",)),
    Kind("worker SIGSTOP past its lease", _stop_trainer, ("worker",)),
    Kind("second worker", _second_trainer, ("worker",)),
    Kind("dispatcher kill -9", _restart_supervisor, ("dispatcher",)),
    Kind("application kill -9", _restart_producer, ("producer",)),
    Kind("broker kill -9, everysec", _kill_broker_everysec, ("broker",)),
    Kind("broker kill -9, always", _kill_broker_always, ("broker",)),
    Kind("broker kill -9, tail cut", _cut_broker, ("broker",)),
    Kind("broker SIGSTOP", _hang_broker, ("broker",)),
    Kind("CLIENT PAUSE", _pause_clients, ("broker",)),
    Kind("CLIENT KILL normal", _kill_clients("normal"), ("broker",)),
    Kind("CLIENT KILL pubsub", _kill_clients("pubsub"), ("broker",)),
    Kind("maxmemory reached", _fill_broker, ("broker",)),
    Kind("replies lost", _lose_replies, ("network",)),
    Kind("connections reset", _reset_connections, ("network",)),
    Kind("black hole", _blackhole, ("network",)),
    Kind("connections refused", _refuse, ("network",)),
    Kind("unread entries deleted", _delete_unread, (*_CLIENT, "broker", "network")),
    Kind("stream trimmed", _trim, (*_CLIENT, "broker", "network")),
)
