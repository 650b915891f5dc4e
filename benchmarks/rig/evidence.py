"""Who got what: the application's ledger against what was seen in the stream and committed.

Neither the agent's counters nor the worker's are used. The ledger says which ids were promised; an
observer reads every entry when it is appended and notes which id travels under which number; the
committed versions' provenance says which numbers were trained on.
"""

import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from benchmarks.rig.application import ID_SCALE, N_ACTIONS, OBS_DIM
from rl4sys_stream.broker.audit import audit_client
from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.stream import TrajectoryStream
from rl4sys_stream.clock import SystemClock
from rl4sys_stream.errors import BrokerError
from rl4sys_stream.wire.trajectory import TrajectorySpec, decode_address, decode_trajectory

Number = tuple[str, int]
"""agent_id, seq."""
RETRY_S = 0.05
BLOCK_MS = 500
DROPPED = re.compile(r"worker\.dropped .*?agent_id=(\S+) .*?seq=(\d+)")


class Observer:
    """Reads the stream beside the worker, without its group, and outlives the broker."""

    def __init__(self, url: str, keys: ClientKeys) -> None:
        self.seen: dict[Number, set[int]] = {}
        self._broker = Broker(BrokerAddress.from_url(url), name="observer")
        self._keys = keys
        self._after = "0-0"
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """End the benchmark if it sees nothing any more."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()
        self._broker.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._read()
            except BrokerError:
                self._stop.wait(RETRY_S)
            except Exception as error:  # noqa: BLE001 - on a thread; `check` raises it
                self._failure = error
                return

    def _read(self) -> None:
        key = self._keys.traj
        reply = self._broker.call(
            *("XREAD", "COUNT", 256, "BLOCK", BLOCK_MS, "STREAMS", key, self._after)
        )
        for entry_id, fields in (reply or {}).get(key.encode(), []):
            self._note(fields)
            self._after = entry_id.decode()

    def _note(self, fields: dict[bytes, bytes]) -> None:
        address = decode_address(fields)
        number = (address.agent_id, address.seq)
        self.seen.setdefault(number, set()).add(id_of(fields))


def id_of(fields: dict[bytes, bytes]) -> int:
    """The line of the ledger that a stream entry belongs to."""
    trajectory = decode_trajectory(fields, TrajectorySpec(OBS_DIM, N_ACTIONS))
    return round(float(trajectory.observations[0, 0]) * ID_SCALE)


@dataclass(frozen=True)
class Verdict:
    """The balance of the ledger.

    Attributes:
        promised: Lines of the ledger.
        trained: Of them, those in exactly one committed version.
        dropped: Those that the worker dropped for their policy lag, by its log.
        pending: Those in the stream.
        lost: Those that are nowhere; `lost_ids` are the first of them.
        twice: Those in more than one version, or twice in one.
        renumbered: Numbers under which two different trajectories travelled.
        unpromised: Trained or pending without a line: killed between the return and the line.
        audit_closes: What `rl4sys-stream audit` says.
        audit_agrees: Its counts of trained, pending and dropped are these.
        audit: Those counts.
    """

    promised: int
    trained: int
    dropped: int
    pending: int
    lost: int
    lost_ids: list[int]
    twice: int
    renumbered: int
    unpromised: int
    audit_closes: bool
    audit_agrees: bool
    audit: dict[str, int] = field(default_factory=dict)


def judge(broker: Broker, keys: ClientKeys, folder: Path, seen: dict[Number, set[int]]) -> Verdict:
    """Compare everything, when nothing moves any more."""
    ledger = [int(line) for line in (folder / "ledger").read_text().split()]
    promised = set(ledger)
    if len(promised) != len(ledger):
        raise SystemExit("the application gave an id twice: the benchmark is wrong")
    taken = committed_numbers(broker, keys)
    trained = Counter(one for number in taken.elements() for one in seen.get(number, ()))
    waiting = {
        (address.agent_id, address.seq)
        for address in (
            decode_address(entry.fields) for entry in TrajectoryStream(broker, keys).addresses()
        )
    } - set(taken)
    pending = {one for number in waiting for one in seen.get(number, ())}
    log = (folder / "worker.log").read_text(encoding="utf-8", errors="replace")
    refused = {(agent_id, int(seq)) for agent_id, seq in DROPPED.findall(log)} - set(taken)
    dropped = {one for number in refused for one in seen.get(number, ())}
    lost = promised - set(trained) - dropped - pending
    report = audit_client(broker, keys, now_ms=SystemClock().wall_ms())
    names = ("accepted", "trained", "quarantined", "dropped", "skipped", "pending", "lost")
    audit = {name: report.total(name) for name in (*names, "duplicates", "missing")}
    return Verdict(
        promised=len(promised),
        trained=len(promised & set(trained)),
        dropped=len(promised & dropped),
        pending=len(promised & pending),
        lost=len(lost),
        lost_ids=sorted(lost)[:20],
        twice=sum(1 for count in trained.values() if count > 1),
        renumbered=sum(1 for ids in seen.values() if len(ids) > 1),
        unpromised=len((set(trained) | pending | dropped) - promised),
        audit_closes=report.closes,
        audit_agrees=(audit["trained"], audit["pending"], audit["dropped"])
        == (len(trained), len(pending), len(dropped)),
        audit=audit,
    )


def committed_numbers(broker: Broker, keys: ClientKeys) -> Counter[Number]:
    """How often each number was trained on, by the versions in the line of heads.

    No version may have been pruned: `retain_versions` must be large.
    """
    head = read_head(broker, keys)
    found: Counter[Number] = Counter()
    for entry in head.manifest if head else ():
        (data,) = broker.hash_get(keys.model(entry.version, entry.token), "provenance")
        if data is None:
            raise SystemExit(f"version {entry.version} was pruned; raise retain_versions")
        for agent_id, numbers in msgspec.json.decode(data)["agents"].items():
            found.update((agent_id, seq) for seq in numbers)
    if head and [entry.version for entry in head.manifest] != list(range(1, head.version + 1)):
        raise SystemExit("versions were pruned; raise retain_versions")
    return found
