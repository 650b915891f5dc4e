"""What agents meet: a stream to read back, and a worker's publications made by hand."""

from dataclasses import dataclass, field

import msgspec
import numpy as np

from rl4sys_stream import Box, Discrete, StreamAgent
from rl4sys_stream.agent.agent import Fallback
from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.head import Head, ManifestEntry, head_fields, read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import AgentHeartbeat, read_heartbeats, read_registration
from rl4sys_stream.config import ClientSpec
from rl4sys_stream.model_store.publisher import KeyframePolicy, Provenance, Publisher
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.wire.diff import encode_diff
from rl4sys_stream.wire.snapshot import Weights
from rl4sys_stream.wire.trajectory import (
    EntryAddress,
    Trajectory,
    TrajectorySpec,
    decode_address,
    decode_trajectory,
)

OBS_DIM, N_ACTIONS = 3, 4
OBSERVATION_SPACE, ACTION_SPACE = Box((OBS_DIM,)), Discrete(N_ACTIONS)
SPEC = ClientSpec(observation_space=OBSERVATION_SPACE, action_space=ACTION_SPACE)
TRAJECTORIES = TrajectorySpec(OBS_DIM, ActionFormat.of(ACTION_SPACE), priors=True)
OBS = np.array([0.5, -0.5, 1.0], np.float32)

QUICK = {
    "agent.poll_interval_s": 0.05,
    "agent.heartbeat_s": 0.05,
    "agent.retain_s": 0.2,
    "communication.timeout": 2.0,
}
"""Settings under which nothing takes long."""


def weights(preferred: int = 0, *, hidden: int = 64, strength: float = 20.0) -> Weights:
    """An actor that prefers one action whatever it observes."""
    bias = np.zeros(N_ACTIONS, np.float32)
    bias[preferred] = strength
    rng = np.random.default_rng(preferred)
    return Weights.from_tensors(
        {
            "pi.0.weight": 0.1 * rng.standard_normal((OBS_DIM, hidden)).astype(np.float32),
            "pi.0.bias": np.zeros(hidden, np.float32),
            "pi.1.weight": 0.1 * rng.standard_normal((hidden, hidden)).astype(np.float32),
            "pi.1.bias": np.zeros(hidden, np.float32),
            "pi.2.weight": 0.01 * rng.standard_normal((hidden, N_ACTIONS)).astype(np.float32),
            "pi.2.bias": bias,
        }
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """One stream entry, decoded as a worker would."""

    address: EntryAddress
    trajectory: Trajectory
    fields: dict[bytes, bytes] = field(repr=False)


class World:
    """One client at one broker, seen from outside of the agent."""

    def __init__(self, url: str, client: str) -> None:
        self.url = url
        self.client = client
        self.keys = ClientKeys(client)
        self.broker = Broker(BrokerAddress.from_url(url, {}), name="test-world")

    def agent(
        self,
        *,
        fallback: Fallback | None = None,
        seed: int | None = None,
        observation_space: object = OBSERVATION_SPACE,
        action_space: object = ACTION_SPACE,
        squash: bool = False,
        **settings: object,
    ) -> StreamAgent:
        """An agent of this client; `settings` are the agent section's."""
        overrides = QUICK | {f"agent.{name}": value for name, value in settings.items()}
        if squash:
            overrides["network_architecture.squash_output"] = True
        return StreamAgent(
            None,
            self.client,
            self.url,
            observation_space,
            action_space,
            fallback=fallback,
            seed=seed,
            overrides=overrides,
            environ={},
        )

    def sent(self, spec: TrajectorySpec = TRAJECTORIES) -> list[Sent]:
        """All entries of the stream, oldest first."""
        found = []
        for _, values in self.broker.call("XRANGE", self.keys.traj, "-", "+"):
            fields = dict(values) if isinstance(values, dict) else pairs(values)
            trajectory = decode_trajectory(fields, spec)
            found.append(Sent(decode_address(fields), trajectory, fields))
        return found

    def numbers(self, agent_id: str) -> list[int]:
        """Numbers of one agent's entries, in stream order."""
        return [sent.address.seq for sent in self.sent() if sent.address.agent_id == agent_id]

    def heartbeat(self, agent_id: str) -> AgentHeartbeat | None:
        """What that agent last said."""
        return read_heartbeats(self.broker, self.keys).get(agent_id)

    def registered(self) -> bool:
        """Whether the client is in the registry."""
        return read_registration(self.broker, self.keys) is not None

    def publish(
        self,
        version: int,
        model: Weights,
        *,
        extras: BehaviorExtras | None = None,
        token: str = "1:worker",
        lineage: str = "first",
        notice: bool = True,
    ) -> None:
        """Make a version the newest, as a worker's commit does."""
        head = read_head(self.broker, self.keys)
        manifest = head.manifest if head and head.lineage == lineage else ()
        staged = Publisher(self.broker, self.keys, KeyframePolicy(1000)).stage(
            version=version,
            token=token,
            lineage=lineage,
            weights=model,
            extras=extras or BehaviorExtras(),
            base=None,
            manifest=manifest,
            provenance=Provenance(),
            metrics={},
            wall_ms=1,
            ttl_s=600,
        )
        checkpoint = self.keys.checkpoint(version, token)
        new = Head(version, token, lineage, staged.key, checkpoint, staged.manifest)
        self.broker.hash_set(self.keys.head, head_fields(new))
        if notice:
            payload = msgspec.json.encode({"version": version, "token": token, "lineage": lineage})
            self.broker.call("PUBLISH", self.keys.updates, payload)

    def publish_damaged(self, version: int, before: Weights, after: Weights) -> None:
        """Make a version the newest that has a snapshot, and a diff that does not decode."""
        self.publish(version, after, notice=False)
        diff = encode_diff(before, after)[:-1]
        self.broker.hash_set(self.keys.model(version, "1:worker"), {"diff": diff})
        head = read_head(self.broker, self.keys)
        assert head is not None
        newest = msgspec.structs.replace(head.manifest[-1], diff_bytes=1)
        manifest = msgspec.json.encode((*head.manifest[:-1], newest))
        self.broker.hash_set(self.keys.head, {"manifest": manifest})
        self.broker.call("PUBLISH", self.keys.updates, b"{}")

    def corrupt_head(self, version: int, token: str) -> None:
        """Make a version the newest whose model hash holds no model."""
        self.broker.hash_set(
            self.keys.model(version, token), {"full": b"RL4W?", "extras": b"{}", "digest": b"00"}
        )
        head = Head(version, token, "first", "", "", (ManifestEntry(version, token, 0, 5),))
        self.broker.hash_set(self.keys.head, head_fields(head))
        self.broker.call("PUBLISH", self.keys.updates, b"{}")

    def close(self) -> None:
        """Close the connection."""
        self.broker.close()


def pairs(values: list[bytes]) -> dict[bytes, bytes]:
    """A flat list of names and values as a mapping."""
    return dict(zip(values[::2], values[1::2], strict=True))


def play(agent: StreamAgent, episodes: int, *, steps: int = 3, tag: int = 0) -> None:
    """Complete, terminated episodes; rewards tell them apart: `tag` + the episode's index."""
    for episode in range(episodes):
        traj = None
        for _ in range(steps):
            traj, action = agent.request_for_action(traj, OBS)
            agent.add_to_trajectory(traj, action)
            action.update_reward(tag + episode)
        assert traj is not None
        agent.mark_end_of_trajectory(traj)
