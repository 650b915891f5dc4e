"""The worker's side: write one version, decide about keyframes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.head import ManifestEntry
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.stage import stage
from rl4sys_stream.model_store.route import FULL, diff_field
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.wire.compact import encode_compact_diff, encode_compact_snapshot
from rl4sys_stream.wire.diff import encode_diff
from rl4sys_stream.wire.grid import GridWeights
from rl4sys_stream.wire.snapshot import Weights, encode_snapshot

__all__ = ["Base", "KeyframePolicy", "Provenance", "Publisher", "StagedModel"]

EXACT_CODEC = "exact"
COMPACT_CODEC = "compact"


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What a version was trained on.

    Attributes:
        first_id: Lowest entry id, "" for initial weights.
        last_id: Highest entry id.
        trajectories: How many.
        steps: Environment steps in them.
        agents: agent_id -> numbers taken from it.
        behavior: [version, token, steps] of each model that chose the actions.
        origin: Where it comes from if no update made it: "version 7 of 3:ab" after a rollback, or
            the client and version that were imported; "".
    """

    first_id: str = ""
    last_id: str = ""
    trajectories: int = 0
    steps: int = 0
    agents: Mapping[str, Sequence[int]] = {}
    behavior: Sequence[tuple[int, str, int]] = ()
    origin: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """A published version, which diffs start from.

    Attributes:
        version: Model version.
        token: Token it was published under.
        weights: As published.
        exponents: Of the grid that they lie on; None if they lie on none.
    """

    version: int
    token: str
    weights: Weights
    exponents: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class KeyframePolicy:
    """When a version gets a snapshot, and from where it gets diffs.

    Attributes:
        versions: Diffs in a row at most.
        ratio: Bytes of diffs in a row at most, as a multiple of a snapshot's.
        strides: A version whose number is a multiple of one of these gets a direct diff from as
            many versions before, too.
    """

    versions: int
    ratio: float = 1.0
    strides: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StagedModel:
    """A version that waits for its commit.

    Attributes:
        key: Of the staged hash.
        manifest: The head's manifest with it; see `retention.retain` for what of it stays.
        diff: From the version before, b"" if there is none.
    """

    key: str
    manifest: tuple[ManifestEntry, ...]
    diff: bytes


class Publisher:
    """Stages versions of one client. Not thread-safe."""

    def __init__(self, broker: Broker, keys: ClientKeys, policy: KeyframePolicy) -> None:
        """Prepare; nothing is written yet."""
        self._broker = broker
        self._keys = keys
        self._policy = policy
        self._landmarks: dict[int, Base] = {}

    def follow(self, base: Base) -> None:
        """Remember a version that was committed, for direct diffs from it."""
        for stride in self._policy.strides:
            if base.version % stride == 0:
                self._landmarks[stride] = base

    def stage(
        self,
        *,
        version: int,
        token: str,
        lineage: str,
        weights: Weights,
        extras: BehaviorExtras,
        base: Base | None,
        manifest: Sequence[ManifestEntry],
        provenance: Provenance,
        metrics: Mapping[str, float],
        wall_ms: int,
        ttl_s: int,
        exponents: tuple[int, ...] | None = None,
    ) -> StagedModel:
        """Write a version under its own key, with an expiry that the commit takes away.

        The version gets a diff if one leads there from the base, and a snapshot (it is a keyframe)
        if the diffs since the last keyframe add up to that keyframe's size: then nobody who joins
        reads more than two keyframes' worth, and nothing is written twice over. It is one, too, if
        there are as many diffs as versions are to be retained: only whole stretches are pruned, and
        each version in them has a checkpoint beside it.

        Raises:
            BrokerError: Nothing counts until the commit; safe to retry.
        """
        new = Base(version, token, weights, exponents)
        extras_bytes = extras.to_bytes()
        fields: dict[str, bytes | str | int] = {
            "version": version,
            "token": token,
            "lineage": lineage,
            "codec": EXACT_CODEC if exponents is None else COMPACT_CODEC,
            "digest": weights.digest(extras_bytes),
            "extras": extras_bytes,
            "parameters": weights.layout.size,
            "provenance": msgspec.json.encode(provenance),
            "metrics": msgspec.json.encode(dict(metrics)),
            "time_ms": wall_ms,
        }
        diff = b""
        if base is not None and (diff := _encode_diff(base, new)):
            fields |= {"base_version": base.version, "base_token": base.token}
            fields[diff_field()] = diff
        direct = self._encode_direct(new) if diff else {}
        fields |= {diff_field(start.version): frame for start, frame in direct.items()}
        full = b""
        if not diff or self._keyframe_due(manifest, len(diff)):
            full = _encode_snapshot(new)
            fields[FULL] = full
        key = self._keys.model(version, token)
        stage(self._broker, key, fields, ttl_s=ttl_s)
        sizes = tuple((start.version, start.token, len(each)) for start, each in direct.items())
        entry = ManifestEntry(version, token, len(diff), len(full), wall_ms, sizes)
        return StagedModel(key, (*manifest, entry), diff)

    def _encode_direct(self, new: Base) -> dict[Base, bytes]:
        """Direct diffs by what they start from."""
        found: dict[Base, bytes] = {}
        for stride in self._policy.strides:
            start = self._landmarks.get(stride)
            if start is not None and start.version == new.version - stride:
                frame = _encode_diff(start, new)
                if frame:
                    found[start] = frame
        return found

    def _keyframe_due(self, manifest: Sequence[ManifestEntry], diff_bytes: int) -> bool:
        since, diffs = diff_bytes, 1
        for entry in reversed(manifest):
            if entry.full_bytes:
                limit = self._policy.ratio * entry.full_bytes
                return since >= limit or diffs >= self._policy.versions
            since += entry.diff_bytes
            diffs += 1
        return True


def _encode_diff(base: Base, new: Base) -> bytes:
    """From `base` to `new`; b"" where none leads there.

    Onto a grid there is none from weights off it: an exact one would be as large as a snapshot.
    """
    if base.weights.layout != new.weights.layout:
        return b""
    if new.exponents is None:
        return encode_diff(base.weights, new.weights)
    if base.exponents is None:
        return b""
    grids = (GridWeights(one.weights, one.exponents or ()) for one in (base, new))
    return encode_compact_diff(*grids) or b""


def _encode_snapshot(new: Base) -> bytes:
    if new.exponents is None:
        return encode_snapshot(new.weights)
    return encode_compact_snapshot(GridWeights(new.weights, new.exponents))
