"""The reader's side: the newest version by the shortest way, checked against its digest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.head import Head, ManifestEntry, read_head, unknown_version
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.errors import DigestError, UnknownVersionError, WireError, WireFormatError
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.wire.diff import apply_diff
from rl4sys_stream.wire.snapshot import Weights, decode_snapshot

__all__ = ["Model", "ModelSubscriber", "plan_reads"]

MAX_PARAMETERS = 1 << 28
"""Largest model that a reader takes in, in numbers (1 GiB as float32)."""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One version, whole and checked.

    Attributes:
        version: Model version; (version, token) names it, the number alone does not.
        token: Token that it was published under.
        lineage: Training history it belongs to.
        weights: All parameters that acting needs.
        extras: What else acting needs (normalisation, ε).
        after_loss: The version that the reader had before was published, and is no ancestor of this
            one: the broker has lost its last writes in between.
    """

    version: int
    token: str
    lineage: str
    weights: Weights
    extras: BehaviorExtras
    after_loss: bool = False


def plan_reads(
    manifest: Sequence[ManifestEntry], target: int, held: tuple[int, str] | None
) -> tuple[bool, Sequence[ManifestEntry]]:
    """The cheapest way to version `target` in bytes.

    Args:
        manifest: Retained versions, oldest first; each one's diff starts from the version before.
        target: Index in it of the version that is wanted.
        held: (version, token) that the reader has, None if none.

    Returns:
        Whether the first entry is read as a snapshot, and the entries to read in order (all but
        that one as diffs).

    Raises:
        UnknownVersionError: If the manifest holds no keyframe to start from.
    """
    keyframe = max((i for i in range(target + 1) if manifest[i].full_bytes), default=None)
    chain = None
    for index in range(target):
        if held == (manifest[index].version, manifest[index].token):
            chain = manifest[index + 1 : target + 1]
    if chain is not None and held is not None and _follows(chain, held[0]):
        chain_bytes = sum(entry.diff_bytes for entry in chain)
    else:
        chain, chain_bytes = None, 0
    if keyframe is None:
        if chain is None:
            raise UnknownVersionError("the manifest holds no keyframe to start from")
        return False, chain
    rest = manifest[keyframe + 1 : target + 1]
    whole_bytes = manifest[keyframe].full_bytes + sum(entry.diff_bytes for entry in rest)
    if chain is not None and chain_bytes <= whole_bytes:
        return False, chain
    return True, manifest[keyframe : target + 1]


def _follows(chain: Sequence[ManifestEntry], version: int) -> bool:
    """Whether the diffs of `chain` lead on from `version`.

    An entry without a diff breaks the chain: its layout differs from the one before. So does a
    version in between that was pruned.
    """
    return all(
        entry.diff_bytes and entry.version == version + place
        for place, entry in enumerate(chain, start=1)
    )


def _is_lost(head: Head, held: Model) -> bool:
    """Whether `held`, of the same lineage, was published and then undone.

    A manifest without its number cannot tell: it may as well have been pruned.
    """
    if head.version <= held.version:
        return True
    return any(
        entry.version == held.version and entry.token != held.token for entry in head.manifest
    )


class ModelSubscriber:
    """Reads versions of one client. Not thread-safe."""

    def __init__(self, broker: Broker, keys: ClientKeys) -> None:
        """Prepare; nothing is read yet."""
        self._broker = broker
        self._keys = keys

    def refresh(self, current: Model | None) -> Model | None:
        """The newest version, or None if `current` is it or there is none.

        A lower number under another token is taken like any other: the broker may have lost its
        last writes, and then numbers are issued again.

        Raises:
            BrokerError: Safe to retry.
            WireError: If the version does not decode even from its keyframe.
        """
        newest = self._newest()
        if newest is None or (current and newest == (current.version, current.token)):
            return None
        head = read_head(self._broker, self._keys)
        if head is None:
            return None
        held = current if current and current.lineage == head.lineage else None
        model = self._fetch(head, len(head.manifest) - 1, held)
        return replace(model, after_loss=held is not None and _is_lost(head, held))

    def read(self, version: int) -> Model:
        """One retained version.

        Raises:
            UnknownVersionError: If it was never published or is pruned; names what there is.
            BrokerError: Safe to retry.
            WireError: If it does not decode.
        """
        head, index = self._find(version)
        return self._fetch(head, index, None)

    def hold(self, version: int, token: str, current: Model | None) -> Model | None:
        """That very version, or None if `current` is it.

        Raises:
            UnknownVersionError: If it is not retained, or only another one of that number.
            BrokerError: Safe to retry.
            WireError: If it does not decode even from its keyframe.
        """
        if current and (current.version, current.token) == (version, token):
            return None
        head, index = self._find(version)
        found = head.manifest[index].token
        if found != token:
            raise UnknownVersionError(
                f"version {version} of {self._keys.client} is that of {found}, not of {token}"
            )
        held = current if current and current.lineage == head.lineage else None
        return self._fetch(head, index, held)

    def _find(self, version: int) -> tuple[Head, int]:
        head = read_head(self._broker, self._keys)
        manifest = head.manifest if head else ()
        for index, entry in enumerate(manifest):
            if head and entry.version == version:
                return head, index
        raise unknown_version(self._keys.client, manifest, version)

    def _newest(self) -> tuple[int, str] | None:
        version, token = self._broker.hash_get(self._keys.head, "version", "token")
        if version is None or token is None:
            return None
        try:
            return int(version), token.decode()
        except ValueError as error:
            raise WireFormatError(f"the head does not decode: {error}") from error

    def _fetch(self, head: Head, target: int, held: Model | None) -> Model:
        have = (held.version, held.token) if held else None
        from_snapshot, entries = plan_reads(head.manifest, target, have)
        if from_snapshot or held is None:
            return self._assemble(head, entries, None)
        try:
            return self._assemble(head, entries, held.weights)
        except WireError:
            # A gap or a base that is not the publisher's: start over from the keyframe.
            _, entries = plan_reads(head.manifest, target, None)
            return self._assemble(head, entries, None)

    def _assemble(
        self, head: Head, entries: Sequence[ManifestEntry], weights: Weights | None
    ) -> Model:
        extras, digest = b"", b""
        for entry in entries:
            key = self._keys.model(entry.version, entry.token)
            name = "full" if weights is None else "diff"
            frame, extras_field, digest_field = self._broker.hash_get(key, name, "extras", "digest")
            if frame is None or extras_field is None or digest_field is None:
                raise WireFormatError(f"{key} has no {name}: it was pruned or deleted")
            weights = (
                decode_snapshot(frame, max_parameters=MAX_PARAMETERS)
                if weights is None
                else apply_diff(weights, frame)
            )
            extras, digest = extras_field, digest_field
        if weights is None:
            raise WireFormatError(f"the manifest of {self._keys.client} is empty")
        if weights.digest(extras).encode() != digest:
            raise DigestError(f"version {entries[-1].version} does not match its digest")
        last = entries[-1]
        return Model(
            last.version, last.token, head.lineage, weights, BehaviorExtras.from_bytes(extras)
        )
