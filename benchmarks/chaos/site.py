"""Where faults strike: a broker behind two proxies, trainers, producers."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from benchmarks.chaos.broker import ChaosBroker
from benchmarks.chaos.proxy import ChaosProxy
from benchmarks.chaos.settings import ChaosSettings
from rl4sys_stream.broker.keys import ClientKeys

__all__ = ["Network", "Site"]


class Network:
    """The broker and the two proxies before it: one for producers, one for trainers."""

    def __init__(self, folder: Path, settings: ChaosSettings) -> None:
        """Start all three."""
        self.broker = ChaosBroker(folder / "broker")
        self.producers = ChaosProxy(self.broker.port, settings.seed)
        self.trainers = ChaosProxy(self.broker.port, settings.seed + 1)

    @property
    def producers_url(self) -> str:
        """What producers connect to."""
        return self.broker.url_through(self.producers.port)

    @property
    def trainers_url(self) -> str:
        """What trainers connect to."""
        return self.broker.url_through(self.trainers.port)

    def close(self) -> None:
        """Stop all three."""
        self.producers.close()
        self.trainers.close()
        self.broker.close()


class Site(Protocol):
    """What the faults need of a system under test, the product's or the control's."""

    settings: ChaosSettings
    network: Network
    stopping: threading.Event

    def clients(self) -> list[str]:
        """Names of the clients."""
        ...

    def stream(self, client: str, /) -> str:
        """Key of the client's stream of trajectories."""
        ...

    def group(self) -> str:
        """Name of the consumer group."""
        ...

    def trainers(self, client: str, /) -> list[int]:
        """Process ids of the client's trainers."""
        ...

    def start_trainer(self, client: str, /) -> int:
        """Start one more; its process id."""
        ...

    def restart_supervisor(self) -> str:
        """Kill what starts trainers, and start another one; what was done."""
        ...

    def second_supervisor(self, wait: Callable[[], None], /, *, older_dies: bool) -> str:
        """Two of what starts trainers until `wait` returns; then one is killed."""
        ...

    def restart_producer(self, client: str, /, *, in_order: bool = False) -> str:
        """End a producer that keeps its trajectories on disk, and start it again.

        Args:
            client: Whose.
            in_order: By SIGTERM instead of SIGKILL.
        """
        ...

    def ask_producer(self, client: str, number: signal.Signals, answer: str, /) -> str:
        """Send it a signal, and wait until it has done what that asks for; "" if it has not."""
        ...

    def keys(self, client: str, /) -> ClientKeys:
        """The product's keys of the client."""
        ...

    def lasting_agents(self, client: str, /) -> list[str]:
        """Producers that live for as long as the client's producer is left in peace."""
        ...

    def note_destroyed(self, client: str, entries: dict[str, tuple[str, int]], /) -> None:
        """Somebody destroyed these entries: id -> (agent_id, number)."""
        ...

    def are_settled(self, client: str, entries: dict[str, tuple[str, int]], /) -> bool:
        """Whether the fate of these numbers is committed."""
        ...
