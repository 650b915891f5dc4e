"""From the publication of a version to the decision that it makes, with many agents."""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from rl4sys_stream import Box, Discrete, StreamAgent
from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.embedded import EmbeddedServer
from rl4sys_stream.broker.head import Head, ManifestEntry, head_fields
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.model_store.notice import Notice
from rl4sys_stream.model_store.publisher import Base, KeyframePolicy, Provenance, Publisher
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.policy.mlp import actor_layout
from rl4sys_stream.testing import eventually
from rl4sys_stream.wire.grid import round_to_grid
from rl4sys_stream.wire.snapshot import Weights

__all__ = ["Latency", "measure_latency"]

CLIENT: Final = "latency"
PATIENCE_S: Final = 300.0
WARM_UP: Final = 10
"""First versions, which agents that are still starting take up by reading."""
GRID: Final = -7


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds from before a version is staged until an agent acts by it.

    Attributes:
        agents: How many.
        processes: In as many processes.
        versions: How many were published.
        diff_bytes: Median size of a diff.
        p50_ms: Over all agents and versions.
        p99_ms: Likewise.
        notice_p50_ms: The same from before the notice is sent, after the version is staged.
        notice_p99_ms: Likewise.
        first_p50_ms: Of the first agent of each version.
        commit_ms: Median time until the notice was sent.
        load: Runnable processes of the machine meanwhile, of all users (load average of a minute).
        cores: That the machine has for them.
    """

    agents: int
    processes: int
    versions: int
    diff_bytes: float
    p50_ms: float
    p99_ms: float
    notice_p50_ms: float
    notice_p99_ms: float
    first_p50_ms: float
    commit_ms: float
    load: float
    cores: int


def measure_latency(agents: int, processes: int, versions: int) -> Latency:
    """Publish `versions` over loopback to `agents` in `processes`."""
    with (
        tempfile.TemporaryDirectory(prefix="rl4sys-latency-") as folder,
        EmbeddedServer(Path(folder) / "broker", appendfsync="no") as server,
        Broker(BrokerAddress.from_url(server.url, {}), name="latency") as broker,
        _agents(server.url, agents, processes) as pipes,
    ):
        found = [_publish(broker, pipes, each) for each in _versions(broker, versions)]
    found = found[WARM_UP:]
    waits = np.array([taken.waits for taken in found])
    told = np.array([taken.told for taken in found])
    return Latency(
        agents=agents,
        processes=processes,
        versions=versions,
        diff_bytes=float(np.median([taken.diff_bytes for taken in found])),
        p50_ms=_ms(np.quantile(waits, 0.5)),
        p99_ms=_ms(np.quantile(waits, 0.99)),
        notice_p50_ms=_ms(np.quantile(waits - told[:, None], 0.5)),
        notice_p99_ms=_ms(np.quantile(waits - told[:, None], 0.99)),
        first_p50_ms=_ms(np.median(waits.min(axis=1))),
        commit_ms=_ms(np.median([taken.spent for taken in found])),
        load=round(os.getloadavg()[0], 1),
        cores=os.cpu_count() or 1,
    )


def _ms(seconds: float | np.floating) -> float:
    return round(1e3 * float(seconds), 3)


@dataclass(frozen=True, slots=True)
class _Taken:
    """One version's way; seconds from before it is staged.

    Attributes:
        waits: Until each agent acted.
        told: Until the notice was about to be sent.
        spent: Until it was out.
        diff_bytes: Size of the diff.
    """

    waits: list[float]
    told: float
    spent: float
    diff_bytes: int


def _versions(broker: Broker, count: int) -> "Iterator[_Publication]":
    rng = np.random.default_rng(0)
    keys, layout = ClientKeys(CLIENT), actor_layout(8, (64, 64), 4)
    publisher = Publisher(broker, keys, KeyframePolicy(count + 2, ratio=100))
    flat = rng.normal(0, 0.15, layout.size).astype(np.float32)
    base: Base | None = None
    manifest: tuple[ManifestEntry, ...] = ()
    for version in range(1, count + 2):
        publication = _Publication(publisher, keys, version, base, manifest, Weights(layout, flat))
        yield publication
        base, manifest = publication.done, publication.manifest
        flat = flat + rng.normal(0, 0.15 * 0.023, layout.size).astype(np.float32)


class _Publication:
    """One version, as a worker publishes it."""

    def __init__(
        self,
        publisher: Publisher,
        keys: ClientKeys,
        version: int,
        base: Base | None,
        manifest: tuple[ManifestEntry, ...],
        weights: Weights,
    ) -> None:
        self.version = version
        self._publisher = publisher
        self._keys = keys
        self._base = base
        self.manifest = manifest
        model = round_to_grid(weights, [GRID] * len(weights.layout.names))
        self.done = Base(version, "1:a", model.weights, model.exponents)

    def publish(self, broker: Broker) -> tuple[int, float]:
        """Bytes of the diff, and when the notice was about to be sent."""
        extras, done, base = BehaviorExtras(), self.done, self._base
        staged = self._publisher.stage(
            version=self.version,
            token="1:a",
            lineage="line",
            weights=done.weights,
            exponents=done.exponents,
            extras=extras,
            base=base,
            manifest=self.manifest,
            provenance=Provenance(),
            metrics={},
            wall_ms=0,
            ttl_s=600,
        )
        self.manifest = staged.manifest
        head = Head(self.version, "1:a", "line", staged.key, "none", staged.manifest)
        broker.hash_set(self._keys.head, head_fields(head))
        notice = Notice(version=self.version, token="1:a", lineage="line")
        if base is not None:
            notice = msgspec.structs.replace(
                notice,
                base_version=base.version,
                base_token=base.token,
                digest=done.weights.digest(extras.to_bytes()),
                extras=extras.to_bytes(),
                diff=staged.diff,
            )
        told_at = time.monotonic()
        broker.call("PUBLISH", self._keys.updates, notice.to_bytes())
        return len(staged.diff), told_at


def _publish(
    broker: Broker, pipes: "Sequence[Connection[int, list[float]]]", publication: _Publication
) -> _Taken:
    begun = time.monotonic()
    size, told_at = publication.publish(broker)
    spent = time.monotonic() - begun
    for pipe in pipes:
        pipe.send(publication.version)
    waits = [at - begun for pipe in pipes for at in pipe.recv()]
    return _Taken(waits, told_at - begun, spent, size)


@contextmanager
def _agents(
    url: str, agents: int, processes: int
) -> "Iterator[list[Connection[int, list[float]]]]":
    spawning = multiprocessing.get_context("spawn")
    children, pipes = [], []
    for index in range(processes):
        mine, theirs = spawning.Pipe()
        count = agents // processes + (index < agents % processes)
        child = spawning.Process(target=_live, args=(url, count, theirs), daemon=True)
        child.start()
        children.append(child)
        pipes.append(mine)
    try:
        for pipe in pipes:
            pipe.recv()
        yield pipes
    finally:
        for pipe in pipes:
            pipe.send(0)
        for child in children:
            child.join(PATIENCE_S)


def _live(url: str, count: int, pipe: "Connection[list[float], int]") -> None:
    """In a process of its own: agents, and when each of them began to act by a version."""
    with ExitStack() as stack:
        agents = [
            stack.enter_context(
                StreamAgent(
                    None,
                    CLIENT,
                    url,
                    Box((8,)),
                    Discrete(4),
                    overrides={"agent.poll_interval_s": 60.0},
                )
            )
            for _ in range(count)
        ]
        eventually(lambda: all(a.status().broker == "up" for a in agents), PATIENCE_S, "agents")
        pipe.send([])
        while version := pipe.recv():
            eventually(
                lambda number=version: all(agent.version == number for agent in agents),
                PATIENCE_S,
                f"version {version}",
            )
            slots = [agent._slot for agent in agents]  # noqa: SLF001 - the moment is told nowhere
            pipe.send([slot.installed_at for slot in slots])
