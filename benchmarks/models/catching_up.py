"""What an agent reads that is some versions behind, or new: bytes and round trips at a socket."""

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.embedded import EmbeddedServer
from rl4sys_stream.broker.head import Head, head_fields, read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.config import WorkerSettings
from rl4sys_stream.model_store.publisher import Base, KeyframePolicy, Provenance, Publisher
from rl4sys_stream.model_store.retention import Limits, retain
from rl4sys_stream.model_store.route import FULL, plan_reads
from rl4sys_stream.model_store.subscriber import Model, ModelSubscriber
from rl4sys_stream.policy.extras import BehaviorExtras, ObservationNormalization
from rl4sys_stream.policy.mlp import actor_layout
from rl4sys_stream.wire.grid import round_to_grid
from rl4sys_stream.wire.snapshot import Weights

__all__ = ["CatchingUp", "measure_catching_up"]

TOKEN: Final = "1:a"
LINEAGE: Final = "line"
OBS_DIM: Final = 8
GRID: Final = -7
STEP: Final = 0.15 * 0.023
FARTHEST: Final = 1000
HEADS: Final = 40
"""Versions at which readers look: keyframes and all places between two of them."""


class CatchingUp(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of reader, at many versions.

    Attributes:
        codec: "compact" or "exact".
        behind: Versions; None: it has no model.
        keyframe_bytes: Median size of the newest keyframe.
        bytes_median: That came over the socket, protocol and manifest included.
        bytes_most: Likewise.
        keyframes_most: Largest share of them in the newest keyframe.
        frames_most: The same of snapshots and diffs alone.
        round_trips: Most.
    """

    codec: str
    behind: int | None
    keyframe_bytes: float
    bytes_median: float
    bytes_most: int
    keyframes_most: float
    frames_most: float
    round_trips: int


class _Meter:
    """Forwards connections to a port, and counts what comes back."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.received = self.round_trips = 0
        self._asked = False
        threading.Thread(target=self._serve, daemon=True).start()

    def reset(self) -> None:
        self.received = self.round_trips = 0

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                for source, sink, back in ((near, far, False), (far, near, True)):
                    arguments = (source, sink, back)
                    threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                # A request in several pieces is one, and so is a reply.
                if back:
                    self.received += len(data)
                elif not self._asked:
                    self.round_trips += 1
                self._asked = not back
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


class _Client:
    """Publishes as a worker does at its defaults, and remembers what it has published."""

    def __init__(self, broker: Broker, codec: str) -> None:
        settings = WorkerSettings()
        self._broker, self._exact = broker, codec == "exact"
        self._retained = settings.retain_versions
        self.keys = ClientKeys(f"catching-up-{codec}")
        policy = KeyframePolicy(settings.retain_versions, settings.keyframe_ratio)
        self._publisher = Publisher(broker, self.keys, policy)
        self._rng = np.random.default_rng(0)
        layout = actor_layout(OBS_DIM, (64, 64), 4)
        self._weights = Weights(layout, self._rng.normal(0, 0.15, layout.size).astype(np.float32))
        self.models: list[Model] = []
        self._base: Base | None = None

    def publish(self) -> Head:
        """The next version, made the head."""
        old, version = read_head(self._broker, self.keys), len(self.models) + 1
        flat = self._weights.flat
        moved = flat + self._rng.normal(0, STEP, flat.size).astype(np.float32)
        self._weights = Weights(self._weights.layout, moved)
        base, extras = self._published(version), self._extras()
        staged = self._publisher.stage(
            version=version,
            token=TOKEN,
            lineage=LINEAGE,
            weights=base.weights,
            exponents=base.exponents,
            extras=extras,
            base=self._base,
            manifest=old.manifest if old else (),
            provenance=Provenance(),
            metrics={},
            wall_ms=version,
            ttl_s=600,
        )
        kept = retain(staged.manifest, Limits(self._retained), ())
        self._broker.unlink(*(self.keys.model(one.version, one.token) for one in kept.pruned))
        head = Head(version, TOKEN, LINEAGE, staged.key, "none", kept.manifest)
        self._broker.hash_set(self.keys.head, head_fields(head))
        self._base = base
        self.models.append(Model(version, TOKEN, LINEAGE, base.weights, extras))
        return head

    def _published(self, version: int) -> Base:
        if self._exact:
            return Base(version, TOKEN, self._weights)
        model = round_to_grid(self._weights, [GRID] * len(self._weights.layout.names))
        return Base(version, TOKEN, model.weights, model.exponents)

    def _extras(self) -> BehaviorExtras:
        """With statistics of observations, which change with each version."""
        mean, scale = self._rng.uniform(0.5, 2, (2, OBS_DIM)).astype(np.float32)
        return BehaviorExtras(ObservationNormalization(mean, scale, 10.0))


def measure_catching_up() -> list[CatchingUp]:
    """Readers that are 1, 10 and 1000 versions behind, or new, over a real broker."""
    with (
        tempfile.TemporaryDirectory(prefix="rl4sys-behind-") as folder,
        EmbeddedServer(Path(folder) / "broker", appendfsync="no") as server,
        Broker(BrokerAddress.from_url(server.url, {}), name="publisher") as broker,
        _metered(server.url) as (meter, reader),
    ):
        return [
            found
            for codec in ("compact", "exact")
            for found in _measure(_Client(broker, codec), codec, meter, reader)
        ]


@contextmanager
def _metered(url: str) -> Iterator[tuple[_Meter, Broker]]:
    address = BrokerAddress.from_url(url, {})
    port = int(address.public_url.rsplit(":", 1)[1].partition("/")[0])
    meter = _Meter(port)
    metered = url.replace(f":{port}", f":{meter.port}")
    with Broker(BrokerAddress.from_url(metered, {}), name="reader") as reader:
        reader.call("PING")  # connecting is none of it
        yield meter, reader
    meter.close()


def _measure(client: _Client, codec: str, meter: _Meter, reader: Broker) -> list[CatchingUp]:
    for _ in range(FARTHEST):
        client.publish()
    found: dict[int | None, list[tuple[int, int, int, int]]] = {}
    for _ in range(HEADS):
        head = client.publish()
        keyframe = [entry.full_bytes for entry in head.manifest if entry.full_bytes][-1]
        for behind in (1, 10, FARTHEST, None):
            held = None if behind is None else client.models[-1 - behind]
            meter.reset()
            model = ModelSubscriber(reader, client.keys).refresh(held)
            wanted = client.models[-1].weights.flat
            if model is None or model.weights.flat.tobytes() != wanted.tobytes():
                raise RuntimeError(f"version {head.version} was not read as it was published")
            read = (keyframe, meter.received, _frame_bytes(head, held), meter.round_trips)
            found.setdefault(behind, []).append(read)
    return [
        CatchingUp(
            codec=codec,
            behind=behind,
            keyframe_bytes=float(np.median([keyframe for keyframe, _, _, _ in reads])),
            bytes_median=float(np.median([size for _, size, _, _ in reads])),
            bytes_most=max(size for _, size, _, _ in reads),
            keyframes_most=round(max(size / keyframe for keyframe, size, _, _ in reads), 3),
            frames_most=round(max(frames / keyframe for keyframe, _, frames, _ in reads), 3),
            round_trips=max(trips for _, _, _, trips in reads),
        )
        for behind, reads in found.items()
    ]


def _frame_bytes(head: Head, held: Model | None) -> int:
    """Of the frames on the way from `held` to the newest version."""
    have = None if held is None else (held.version, held.token)
    reads = plan_reads(head.manifest, len(head.manifest) - 1, have)
    return sum(
        read.entry.full_bytes if read.field == FULL else read.entry.diff_bytes for read in reads
    )
