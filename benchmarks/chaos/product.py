"""The product as a site: dispatcher, workers, applications."""

import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.chaos.application import AgentSpec, ApplicationSpec
from benchmarks.chaos.processes import (
    ApplicationProcess,
    find,
    send,
    start_module,
    stop_process,
)
from benchmarks.chaos.settings import ChaosSettings, write_definition
from benchmarks.chaos.site import Network
from rl4sys_stream.broker.keys import GROUP, ClientKeys
from rl4sys_stream.broker.ledger import read_ledgers

__all__ = ["Application", "ProductSite"]

KEPT = "kept"


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

    def restart_producer(self, client: str) -> str:
        """Kill the client's application and start it again in the same spool folder."""
        application = self.applications.get(client)
        if application is None or application.running is None:
            return ""
        application.running.kill()
        self.start_application(application)
        return f"life {application.incarnation}"

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

    def trainers(self, client: str) -> list[int]:
        """Process ids of the client's workers, whoever started them."""
        return find("worker", client, str(self.definitions))

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
