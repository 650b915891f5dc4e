"""Targets: what the broker's hashes hold of a client, its agents, its workers."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from rl4sys_stream.broker.audit import balance_agent
from rl4sys_stream.broker.control import (
    Control,
    Promotion,
    RollbackRequest,
    Rule,
    Selection,
    control_fields,
    parse_control,
)
from rl4sys_stream.broker.embedded import EmbeddedServer
from rl4sys_stream.broker.head import Counts, Head, ManifestEntry, head_fields, parse_head
from rl4sys_stream.broker.ledger import AgentLedger, LedgerRecord, Outcome, parse_ledgers
from rl4sys_stream.broker.metrics import MetricsRecord, parse_metrics
from rl4sys_stream.broker.registry import (
    AgentHeartbeat,
    WorkerReport,
    make_definition,
    parse_definition,
    parse_heartbeats,
    parse_registration,
    parse_worker_report,
)
from rl4sys_stream.config import (
    ClientSpec,
    NetworkSpec,
    PPOParameters,
    WorkerSettings,
)
from rl4sys_stream.dispatcher.report import DispatcherReport, parse_dispatchers
from rl4sys_stream.errors import ConfigError, UnknownVersionError, WireError, WireFormatError
from rl4sys_stream.exchange.npz import decode_npz, encode_npz
from rl4sys_stream.exchange.package import ModelPackage, Origin
from rl4sys_stream.model_store.subscriber import plan_reads
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.spaces import (
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Tuple,
)
from rl4sys_stream.wire.snapshot import Weights
from tests.fuzz.containers import pack, unpack
from tests.fuzz.target import Target

__all__ = ["BROKER_TARGETS"]

SPEC = ClientSpec(
    observation_space=Box((8,), -1.0, 1.0),
    action_space=Discrete(4),
    network=NetworkSpec(hidden_sizes=(64, 64), critic_hidden_sizes=(32,)),
)
NESTED_SPEC = ClientSpec(
    observation_space=Dict(
        {
            "load": Box((2,), (-1.0, 0.0), 1.0),
            "all": Tuple((MultiDiscrete((3, 2)), MultiBinary(4), Discrete(3))),
        }
    ),
    action_space=Discrete(4),
)
NOW_MS = 1_700_000_000_000


# -- head, ledgers, reports ----------------------------------------------------------------------


def _decode_head(data: bytes) -> None:
    head = parse_head(dict(unpack(data)))
    if head is None:
        return
    head_fields(head)
    if head.manifest:
        plan_reads(head.manifest, len(head.manifest) - 1, (head.version, head.token))


def _heads() -> tuple[bytes, ...]:
    head = Head(
        version=17,
        token="3:b2c9",
        lineage="00112233aabbccdd",
        model="{rl4sys_stream:c}:model:17:3:b2c9",
        checkpoint="{rl4sys_stream:c}:ckpt:17:3:b2c9",
        manifest=(ManifestEntry(16, "3:b2c9", 0, 9000), ManifestEntry(17, "3:b2c9", 700, 0)),
        counts=Counts(trained=100, quarantined=3, steps=2560, episodes=12),
        retained=4,
        updated_ms=NOW_MS,
    )
    fields = [
        (name.encode(), value if isinstance(value, bytes) else str(value).encode())
        for name, value in head_fields(head).items()
    ]
    return (pack(fields),)


def _decode_ledger(data: bytes) -> None:
    for agent_id, record in parse_ledgers("seq", dict(unpack(data))).items():
        ledger = AgentLedger(record)
        ledger.has_gap_below(5, (3,))
        ledger.skip_below(5, (3,))
        if not ledger.is_settled(6):
            ledger.settle(6, Outcome.TRAINED, steps=3)
        msgspec.json.encode(ledger.record())
        balance_agent(agent_id, None, record, (1, 6), now_ms=NOW_MS)


def _ledgers() -> tuple[bytes, ...]:
    records = {
        b"agent-1": LedgerRecord(watermark=9, above=(11, 12), trained=8, skipped=3, steps=64),
        b"agent-2": LedgerRecord(),
    }
    return (pack((name, msgspec.json.encode(each)) for name, each in records.items()),)


def _decode_heartbeats(data: bytes) -> None:
    ledger = LedgerRecord(watermark=2, above=(5,), trained=3)
    for agent_id, heartbeat in parse_heartbeats(dict(unpack(data))).items():
        balance_agent(agent_id, heartbeat, ledger, (4,), known=3, now_ms=NOW_MS)


def _heartbeats() -> tuple[bytes, ...]:
    heartbeat = AgentHeartbeat(
        agent_id="agent-1",
        host="edge-7",
        pid=4242,
        time_ms=NOW_MS,
        version=3,
        token="1:ab",
        accepted=9,
        issued=7,
        queued=2,
        steps=300,
    )
    return (pack(((b"agent-1", msgspec.json.encode(heartbeat)),)),)


def _worker_reports() -> tuple[bytes, ...]:
    return (msgspec.json.encode(WorkerReport(state="training", host="h", pid=1, token="3:b2c9")),)


def _decode_dispatchers(data: bytes) -> None:
    for report in parse_dispatchers(dict(unpack(data))):
        report.live(NOW_MS)


def _dispatchers() -> tuple[bytes, ...]:
    reports = (
        DispatcherReport(dispatcher_id="d1", host="h", pid=1, capacity=4, clients=("a", "b")),
        DispatcherReport(dispatcher_id="d2", time_ms=NOW_MS),
    )
    return (pack((each.dispatcher_id.encode(), msgspec.json.encode(each)) for each in reports),)


def _decode_metrics(data: bytes) -> None:
    parse_metrics([(b"1-0", dict(unpack(data)))])


def _metrics() -> tuple[bytes, ...]:
    record = MetricsRecord(version=3, time_ms=NOW_MS, metrics={"train/approx_kl": 0.01})
    return (pack(((b"m", msgspec.json.encode(record)),)),)


# -- control, and models as files ------------------------------------------------------------------


def _decode_control(data: bytes) -> None:
    fields = dict(unpack(data))
    control = parse_control(fields)
    control.directive("host-7-ab")
    again = {name.encode(): value for name, value in control_fields(control).items()}
    if parse_control(again) != control:
        raise AssertionError("a control does not survive its own encoding")


def _controls() -> tuple[bytes, ...]:
    control = Control(
        revision="ab",
        salt="cd",
        rules=(
            Rule(rule_id="1", action="fallback", agents=Selection("sick-*")),
            Rule(rule_id="2", action="pin", agents=Selection("", 10.0), version=3, token="1:ab"),
        ),
        promoted=Promotion(version=3, token="1:ab", reason="good", by="a@b", time_ms=NOW_MS),
        request=RollbackRequest(request_id="3", version=2, token="1:ab"),
    )
    stored = [(name.encode(), value) for name, value in control_fields(control).items()]
    return (pack(stored), pack(()))


def _archives() -> tuple[bytes, ...]:
    weights = Weights.from_tensors({"pi.0.weight": np.ones((3, 2), np.float32)})
    origin = Origin(client="c", version=1, token="1:ab", lineage="l")
    return (encode_npz(ModelPackage(weights, BehaviorExtras(), SPEC, {}, origin)),)


# -- registration --------------------------------------------------------------------------------


def _decode_registration(data: bytes) -> None:
    registration = parse_registration("client", dict(unpack(data)))
    if registration is not None:
        registration.spec.differences(SPEC)
        parse_definition(registration.spec.algorithm, registration.definition)


def _registrations() -> tuple[bytes, ...]:
    definition = make_definition(PPOParameters(), WorkerSettings())
    return (
        pack((
            (b"spec", msgspec.json.encode(SPEC.to_json())),
            (b"definition", msgspec.json.encode(definition)),
            (b"lineage", b"00112233aabbccdd"),
            (b"lineage_epoch", b"2"),
            (b"created_ms", b"1700000000000"),
        )),
    )  # fmt: skip


def _decode_spec(data: bytes) -> None:
    spec = ClientSpec.from_bytes(data)
    if ClientSpec.from_bytes(spec.to_bytes()) != spec:
        raise AssertionError("a spec does not survive its own encoding")


# -- the embedded server's own note ---------------------------------------------------------------


def _server_note() -> Callable[[bytes], None]:
    folder = tempfile.TemporaryDirectory(prefix="rl4sys-fuzz-")  # as long as `decode` lives
    server = EmbeddedServer(folder.name)

    def decode(data: bytes) -> None:
        (Path(folder.name) / "server.json").write_bytes(data)
        server._read_record()

    return decode


_NOTE = b'{"pid":1,"port":40001,"unix_socket":"/tmp/s","password":"aa"}'

BROKER_TARGETS = (
    Target("head", _decode_head, (WireFormatError, UnknownVersionError), _heads(), fields=True),
    Target("ledger", _decode_ledger, WireFormatError, _ledgers(), fields=True),
    Target("heartbeat", _decode_heartbeats, WireFormatError, _heartbeats(), fields=True),
    Target("worker_report", parse_worker_report, WireFormatError, _worker_reports()),
    Target("dispatcher_report", _decode_dispatchers, WireFormatError, _dispatchers(), fields=True),
    Target("control", _decode_control, WireFormatError, _controls(), honest=2, fields=True),
    Target("model_archive", decode_npz, (WireError, ConfigError), _archives()),
    Target("metrics", _decode_metrics, WireFormatError, _metrics(), fields=True),
    Target(
        "registration",
        _decode_registration,
        (WireFormatError, ConfigError),
        _registrations(),
        fields=True,
    ),
    Target("client_spec", _decode_spec, ConfigError, (SPEC.to_bytes(), NESTED_SPEC.to_bytes())),
    Target("server_note", _server_note(), WireFormatError, (_NOTE,)),
)
