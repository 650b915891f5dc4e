"""The worker's side: write one version, decide about keyframes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.head import ManifestEntry
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.stage import stage
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.wire.diff import encode_diff
from rl4sys_stream.wire.snapshot import Weights, encode_snapshot

__all__ = ["Base", "Provenance", "Publisher", "StagedModel"]

EXACT_CODEC = "exact"


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


@dataclass(frozen=True, slots=True)
class Base:
    """The version that a diff starts from."""

    version: int
    token: str
    weights: Weights


@dataclass(frozen=True, slots=True)
class StagedModel:
    """A version that waits for its commit.

    Attributes:
        key: Of the staged hash.
        manifest: The head's manifest with it; see `retention.retain` for what of it stays.
    """

    key: str
    manifest: tuple[ManifestEntry, ...]


class Publisher:
    """Stages versions of one client. Not thread-safe."""

    def __init__(self, broker: Broker, keys: ClientKeys, *, retain_versions: int) -> None:
        """Args: `retain_versions` is how many of the newest versions stay readable, at least."""
        self._broker = broker
        self._keys = keys
        self._retain = retain_versions

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
    ) -> StagedModel:
        """Write a version under its own key, with an expiry that the commit takes away.

        The version gets a diff if there is a base with the same layout, and a snapshot (it is a
        keyframe) if the diffs since the last keyframe add up to that keyframe's size: then nobody
        who joins reads more than two keyframes' worth, and nothing is written twice over. It is
        one, too, if there are as many diffs as versions are to be retained: only whole stretches
        are pruned, and each version in them has a checkpoint beside it.

        Raises:
            BrokerError: Nothing counts until the commit; safe to retry.
        """
        extras_bytes = extras.to_bytes()
        fields: dict[str, bytes | str | int] = {
            "version": version,
            "token": token,
            "lineage": lineage,
            "codec": EXACT_CODEC,
            "digest": weights.digest(extras_bytes),
            "extras": extras_bytes,
            "parameters": weights.layout.size,
            "provenance": msgspec.json.encode(provenance),
            "metrics": msgspec.json.encode(dict(metrics)),
            "time_ms": wall_ms,
        }
        diff = b""
        if base is not None and base.weights.layout == weights.layout:
            diff = encode_diff(base.weights, weights)
            fields |= {"base_version": base.version, "base_token": base.token, "diff": diff}
        full = b""
        if not diff or self._keyframe_due(manifest, len(diff)):
            full = encode_snapshot(weights)
            fields["full"] = full
        key = self._keys.model(version, token)
        stage(self._broker, key, fields, ttl_s=ttl_s)
        return StagedModel(key, (*manifest, ManifestEntry(version, token, len(diff), len(full))))

    def _keyframe_due(self, manifest: Sequence[ManifestEntry], diff_bytes: int) -> bool:
        since, diffs = diff_bytes, 1
        for entry in reversed(manifest):
            if entry.full_bytes:
                return since >= entry.full_bytes or diffs >= self._retain
            since += entry.diff_bytes
            diffs += 1
        return True
