"""Real agents and a worker on one client, and a ledger of what was ended that is the test's own."""

from collections.abc import Collection
from typing import Self

from rl4sys_stream import StreamAgent
from rl4sys_stream.broker.audit import AuditReport, audit_client
from rl4sys_stream.errors import BrokerError, UnknownClientError
from rl4sys_stream.testing import eventually
from tests.integration.agent.application import STEPS, play
from tests.integration.worker.world import ROLLOUT, World

QUICK: dict[str, object] = {
    "agent.poll_interval_s": 0.05,
    "agent.heartbeat_s": 0.05,
    "agent.retain_s": 60.0,
    "communication.timeout": 2.0,
}
"""Settings under which nothing takes long, and everything sent is retained."""


class Team:
    """Agents that play so many episodes, and what has to become of these."""

    def __init__(self, world: World, agents: int = 2, *, url: str = "", **settings: object) -> None:
        if not world.config.exists():
            world.define()
        self.world = world
        overrides = QUICK | {f"agent.{name}": value for name, value in settings.items()}
        self.agents = [
            StreamAgent(
                world.config, world.client, url or world.url, overrides=overrides, environ={}
            )
            for _ in range(agents)
        ]
        self.ended = 0
        """Ends that were marked, each agent's."""

    def play(self, episodes: int, *, steps: int = STEPS) -> None:
        """Each agent, as fast as it goes."""
        for agent in self.agents:
            play(agent, episodes, steps=steps)
        self.ended += episodes

    def flush(self) -> None:
        """Until the broker has answered everything."""
        assert all(agent.flush(30) for agent in self.agents)

    @property
    def numbers(self) -> set[tuple[str, int]]:
        """What has to be trained."""
        ids = [agent.agent_id for agent in self.agents]
        return {(agent_id, seq) for agent_id in ids for seq in range(1, self.ended + 1)}

    def report(self) -> AuditReport:
        """What the audit says."""
        return audit_client(self.world.broker, self.world.keys)

    def trained(self, missing: Collection[tuple[str, int]] = (), timeout_s: float = 30) -> None:
        """Wait until each number is in exactly one version of the line of heads, and none twice.

        Args:
            missing: Numbers that cannot be.
            timeout_s: When to give up.
        """
        wanted = self.numbers - set(missing)

        def done() -> bool:
            taken = self.world.taken()
            assert set(taken.values()) <= {1}, "trained twice"
            return set(taken) == wanted and self.report().closes

        eventually(done, timeout_s, "all is trained", ignoring=(BrokerError, UnknownClientError))
        report = self.report()
        assert report.total("trained") == len(wanted)
        assert report.total("lost") == 0
        assert all(agent.status().dropped == 0 for agent in self.agents)

    def up(self) -> None:
        """Wait until every agent sends."""
        eventually(lambda: all(a.status().broker == "up" for a in self.agents), 30, "agents are up")

    def close(self) -> None:
        """End the agents."""
        for agent in self.agents:
            agent.close(timeout_s=0.5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


__all__ = ["QUICK", "ROLLOUT", "Team"]
