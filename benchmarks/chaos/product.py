"""The product as a site: dispatcher, workers, applications."""

import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.chaos import ledger as harness_ledger
from benchmarks.chaos.application import FORKED, SHORTEST_EPISODE, AgentSpec, ApplicationSpec
from benchmarks.chaos.identity import Identity
from benchmarks.chaos.processes import (
    ApplicationProcess,
    find,
    parent,
    send,
    start_module,
    stop_process,
)
from benchmarks.chaos.settings import ChaosSettings, write_definition
from benchmarks.chaos.site import Network
from rl4sys_stream.broker.keys import GROUP, ClientKeys
from rl4sys_stream.broker.ledger import read_ledgers

__all__ = ["KEPT", "Application", "ProductSite"]

KEPT = "kept"
LEAVE_S = 60.0
ANSWER_S = 15.0


@dataclass(slots=True)
class Application:
    """One application over all its lives."""

    number: int
    agents: list[AgentSpec]
    incarnation: int = -1
    running: ApplicationProcess | None = None


class ProductSite:
    """Starts everything; `close` ends it."""

    def __init__(self, folder: Path, settings: ChaosSettings) -> None:
        """Start the broker, the dispatcher and the applications."""
        self.folder = folder
        self.settings = settings
        self.stopping = threading.Event()
        self.ledgers = folder / "ledgers"
        self.definitions = folder / "definitions"
        self.logs = folder / "logs"
        for path in (self.ledgers, self.definitions, self.logs, folder / "broker"):
            path.mkdir(parents=True)
        self.network = Network(folder, settings)
        self.wrong: list[str] = []
        """What a fault found that must not be."""
        self.destroyed: dict[str, dict[str, tuple[str, int]]] = {}
        self._extra: list[subprocess.Popen[str]] = []
        self.applications = self._make_applications()
        self._dispatcher = self._start_dispatcher()
        for application in self.applications.values():
            self.start_application(application)

    def clients(self) -> list[str]:
        """Names of the clients."""
        return [client.name for client in self.settings.clients]

    def stream(self, client: str) -> str:
        """Key of the client's stream of trajectories."""
        return ClientKeys(client).traj

    def group(self) -> str:
        """Name of the consumer group."""
        return GROUP

    def spool(self, client: str) -> Path:
        """Where agents of a client keep their spools."""
        return self.folder / "spool" / client

    def _make_applications(self) -> dict[str, Application]:
        """One for each client that may be killed, and one with an agent of each that may not."""
        found, kept = {}, []
        for number, client in enumerate(self.settings.clients, start=1):
            config = str(write_definition(self.definitions, client, self.settings))
            spool = str(self.folder / "spool")
            kept.append(AgentSpec(client.name, config, None))
            agents = [AgentSpec(client.name, config, spool)] * (self.settings.agents - 1)
            if agents:
                found[client.name] = Application(number, agents)
        found[KEPT] = Application(0, kept)
        return found

    def start_application(self, application: Application) -> None:
        """Its next life."""
        application.incarnation += 1
        name = f"{application.number}-{application.incarnation}"
        spec = ApplicationSpec(
            number=application.number,
            incarnation=application.incarnation,
            ledger=str(self.ledgers / f"{name}.ledger"),
            agents=application.agents,
            episodes_per_s=self.settings.episodes_per_s,
            more=self.settings.n_steps // SHORTEST_EPISODE,
        )
        path = self.folder / f"application-{name}.json"
        path.write_bytes(msgspec.json.encode(spec))
        process = start_module(
            "benchmarks.chaos.application",
            [str(path)],
            url=self.network.producers_url,
            log=self.logs / f"application-{application.number}.log",
            talk=True,
        )
        application.running = ApplicationProcess(process)

    def restart_producer(self, client: str, *, in_order: bool = False) -> str:
        """End the client's application and start it again in the same spool folder."""
        application = self.applications.get(client)
        if application is None or application.running is None:
            return ""
        if in_order:
            code = application.running.leave(LEAVE_S)
            if code != 0:
                self.wrong.append(f"at SIGTERM an application of {client} ended with {code}")
        else:
            application.running.kill()
        self.start_application(application)
        return f"life {application.incarnation}"

    def ask_producer(self, client: str, number: signal.Signals, answer: str) -> str:
        """Have the client's application fork, or play what spoils an update."""
        application = self.applications.get(client)
        if application is None or application.running is None:
            return ""
        return answer if application.running.ask(number, answer, ANSWER_S) else ""

    def _start_dispatcher(self) -> subprocess.Popen[str]:
        return start_module(
            "rl4sys_stream",
            ["dispatcher", "--workers-dir", str(self.definitions)],
            url=self.network.trainers_url,
            log=self.logs / "dispatcher.log",
        )

    def restart_supervisor(self) -> str:
        """Kill the dispatcher, and start another one."""
        self._dispatcher.kill()
        self._dispatcher.wait()
        self._dispatcher = self._start_dispatcher()
        return f"now process {self._dispatcher.pid}"

    def second_supervisor(self, wait: Callable[[], None], *, older_dies: bool) -> str:
        """Two dispatchers for a while; then one of them is killed."""
        one, other = self._dispatcher, self._start_dispatcher()
        try:
            wait()
        finally:
            dies, self._dispatcher = (one, other) if older_dies else (other, one)
            dies.kill()
            dies.wait()
        return f"processes {one.pid} and {other.pid}; {dies.pid} was killed"

    def trainers(self, client: str) -> list[int]:
        """Process ids of the client's workers, whoever started them.

        Without the children in which a worker tries what crashes: whoever kills one of these makes
        an innocent trajectory guilty.
        """
        found = find("worker", client, str(self.definitions))
        return [pid for pid in found if parent(pid) not in found]

    def children(self) -> list[int]:
        """Process ids of forked applications, whose parents may be gone."""
        running = {one.running.process.pid for one in self.applications.values() if one.running}
        specs = map(str, self.folder.glob("application-*.json"))
        return sorted({pid for spec in specs for pid in find(spec)} - running)

    def is_over(self, identity: Identity) -> bool:
        """Whether the process of this agent has ended, or will by itself before long."""
        number = identity.application
        return number >= FORKED or identity.incarnation < self.latest()[number]

    def keys(self, client: str) -> ClientKeys:
        """The keys of a client."""
        return ClientKeys(client)

    def start_trainer(self, client: str) -> int:
        """One more worker, beside the dispatcher's."""
        process = start_module(
            "rl4sys_stream",
            ["worker", "--client", client, "--workers-dir", str(self.definitions)],
            url=self.network.trainers_url,
            log=self.logs / "dispatcher.log",
        )
        self._extra.append(process)
        return process.pid

    def reap(self) -> None:
        """Wait for the extra workers that have ended."""
        self._extra = [process for process in self._extra if process.poll() is None]

    def lasting_agents(self, client: str) -> list[str]:
        """Agents of applications that run, by the ledgers; a forked child soon ends."""
        ledger = harness_ledger.read_ledgers(self.ledgers)
        return [
            agent.agent_id
            for identity, agent in ledger.agents.items()
            if agent.client == client and not self.is_over(identity)
        ]

    def note_destroyed(self, client: str, entries: dict[str, tuple[str, int]]) -> None:
        """Somebody destroyed these entries."""
        self.destroyed.setdefault(client, {}).update(entries)

    def are_settled(self, client: str, entries: dict[str, tuple[str, int]]) -> bool:
        """Whether the fate of these numbers is committed."""
        with self.network.broker.admin() as admin:
            ledgers = read_ledgers(admin, ClientKeys(client))
        for agent_id, seq in entries.values():
            record = ledgers.get(agent_id)
            if record is None or (seq > record.watermark and seq not in record.above):
                return False
        return True

    def latest(self) -> dict[int, int]:
        """Number of each application -> the life that it is in."""
        return {one.number: one.incarnation for one in self.applications.values()}

    def crashed(self) -> list[str]:
        """Applications that ended although nobody killed them."""
        return [
            f"{name}: exit code {application.running.process.poll()}"
            for name, application in self.applications.items()
            if application.running and application.running.process.poll() is not None
        ]

    def stop_training(self) -> None:
        """End the dispatcher and all workers in order."""
        stop_process(self._dispatcher, 40)
        for process in self._extra:
            stop_process(process, 10)

    def close(self) -> None:
        """End whatever still runs."""
        for application in self.applications.values():
            if application.running and application.running.process.poll() is None:
                application.running.kill()
        for pid in self.children():
            send(pid, signal.SIGKILL)
        if self._dispatcher.poll() is None:
            self._dispatcher.kill()
            self._dispatcher.wait()
        for process in self._extra:
            process.kill()
            process.wait()
        for client in self.clients():
            for pid in self.trainers(client):
                send(pid, signal.SIGKILL)
        self.network.close()
