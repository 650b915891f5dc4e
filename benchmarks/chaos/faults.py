"""The kinds of faults, and what each needs to have to itself."""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.chaos.destruction import delete_key, delete_unread, trim
from benchmarks.chaos.processes import send
from benchmarks.chaos.proxy import ChaosProxy, Mode
from benchmarks.chaos.strike import Carry, Strike

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault; `needs` names what no other fault may touch meanwhile."""

    name: str
    carry_out: Carry
    needs: tuple[str, ...]


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


def _two_supervisors(strike: Strike) -> str:
    return strike.site.second_supervisor(
        lambda: strike.wait(2.0, 5.0), older_dies=strike.rng.random() < 0.5
    )


# -- producers -----------------------------------------------------------------------------------


def _restart_producer(strike: Strike) -> str:
    return strike.site.restart_producer(strike.client)


def _end_producer(strike: Strike) -> str:
    return strike.site.restart_producer(strike.client, in_order=True)


def _start_producer_alone(strike: Strike) -> str:
    broker = strike.site.network.broker
    broker.kill()
    try:
        detail = strike.site.restart_producer(strike.client)
        strike.wait(2.0, 4.0)
    finally:
        broker.restart()
    return detail


def _fork_producer(strike: Strike) -> str:
    return strike.site.ask_producer(strike.client, signal.SIGUSR1, "forked")


def _poison(strike: Strike) -> str:
    return strike.site.ask_producer(strike.client, signal.SIGUSR2, "poisoned")


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


def _pause_clients(strike: Strike) -> str:
    strike.ask("CLIENT", "PAUSE", strike.rng.randint(500, 2500), "ALL")
    return "paused"


def _kill_clients(kind: str) -> Carry:
    def carry_out(strike: Strike) -> str:
        killed = strike.ask("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
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


def _lack_replicas(strike: Strike) -> str:
    with strike.site.network.broker.admin() as admin:
        admin.call("CONFIG", "SET", "min-replicas-to-write", 1)
        try:
            strike.wait(0.5, 4.0)
        finally:
            admin.call("CONFIG", "SET", "min-replicas-to-write", 0)
    return "NOREPLICAS"


def _be_a_replica(strike: Strike) -> str:
    # Of a primary that cannot be reached, so that its data stay.
    with strike.site.network.broker.admin() as admin:
        admin.call("REPLICAOF", "127.0.0.1", 1)
        try:
            strike.wait(0.5, 4.0)
        finally:
            admin.call("REPLICAOF", "NO", "ONE")
    return "READONLY"


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


def _slow(strike: Strike) -> str:
    name, proxy = _one_proxy(strike)
    with _mode(proxy, "slow"):
        strike.wait(2.0, 5.0)
    return f"to and from {name}"


def _refuse(strike: Strike) -> str:
    name, proxy = _one_proxy(strike)
    with _mode(proxy, "refuse"):
        proxy.reset()
        strike.wait(0.5, 3.0)
    return f"those of {name}"


_DESTROYING = ("worker", "producer", "broker")
KINDS: tuple[Kind, ...] = (
    Kind("worker kill -9", _signal_trainer(signal.SIGKILL), ("worker",)),
    Kind("worker SIGTERM", _signal_trainer(signal.SIGTERM), ("worker",)),
    Kind("worker SIGSEGV", _signal_trainer(signal.SIGSEGV), ("worker",)),
    Kind("worker SIGSTOP past its lease", _stop_trainer, ("worker",)),
    Kind("second worker", _second_trainer, ("worker",)),
    Kind("dispatcher kill -9", _restart_supervisor, ("dispatcher",)),
    Kind("two dispatchers", _two_supervisors, ("dispatcher",)),
    Kind("application kill -9", _restart_producer, ("producer",)),
    Kind("application SIGTERM", _end_producer, ("producer",)),
    Kind("application starts without broker", _start_producer_alone, ("producer", "broker")),
    Kind("application forks", _fork_producer, ("producer",)),
    Kind("broker kill -9, everysec", _kill_broker_everysec, ("broker",)),
    Kind("broker kill -9, always", _kill_broker_always, ("broker",)),
    Kind("broker kill -9, tail cut", _cut_broker, ("broker",)),
    Kind("broker SIGSTOP", _hang_broker, ("broker",)),
    Kind("CLIENT PAUSE", _pause_clients, ("broker",)),
    Kind("CLIENT KILL normal", _kill_clients("normal"), ("broker",)),
    Kind("CLIENT KILL pubsub", _kill_clients("pubsub"), ("broker",)),
    Kind("broker lacks replicas", _lack_replicas, ("broker",)),
    Kind("broker is a replica", _be_a_replica, ("broker",)),
    Kind("maxmemory reached", _fill_broker, ("broker",)),
    Kind("replies lost", _lose_replies, ("network",)),
    Kind("connections reset", _reset_connections, ("network",)),
    Kind("black hole", _blackhole, ("network",)),
    Kind("connections refused", _refuse, ("network",)),
    Kind("slow network", _slow, ("network",)),
    Kind("unread entries deleted", delete_unread, _DESTROYING),
    Kind("stream trimmed", trim, _DESTROYING),
    Kind("lease deleted", delete_key("lease"), ("keys", "broker")),
    Kind("worker's report deleted", delete_key("worker"), ("keys", "broker")),
    Kind("trajectory that spoils an update", _poison, ("producer",)),
)
