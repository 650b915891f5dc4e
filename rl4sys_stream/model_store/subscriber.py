"""The reader's side: the newest version by the shortest way, checked against its digest."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.head import Head, read_head, unknown_version
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.errors import DigestError, UnknownVersionError, WireError, WireFormatError
from rl4sys_stream.model_store.route import FULL, Read, plan_reads
from rl4sys_stream.model_store.shelf import model_name, shared_weights
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.telemetry import log_event
from rl4sys_stream.wire.frames import apply_any_diff, decode_any_snapshot
from rl4sys_stream.wire.snapshot import Weights

__all__ = ["Model", "ModelSubscriber"]

logger = logging.getLogger("rl4sys_stream.model_store")

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
    """Reads versions of one client. Not thread-safe.

    Attributes:
        frames_refused: Times that diffs did not lead from what the reader had to what was wanted,
            so that it began again from a keyframe.
    """

    def __init__(self, broker: Broker, keys: ClientKeys) -> None:
        """Prepare; nothing is read yet."""
        self._broker = broker
        self._keys = keys
        self.frames_refused = 0

    def refresh(self, current: Model | None) -> Model | None:
        """The newest version, or None if `current` is it or there is none.

        A lower number under another token is taken like any other: the broker may have lost its
        last writes, and then numbers are issued again.

        Raises:
            BrokerError: Safe to retry.
            WireError: If the version does not decode even from its keyframe.
        """
        head = read_head(self._broker, self._keys)
        if head is None:
            return None
        if current and (head.version, head.token) == (current.version, current.token):
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

    def _fetch(self, head: Head, target: int, held: Model | None) -> Model:
        if not head.manifest:
            raise WireFormatError(f"the manifest of {self._keys.client} is empty")
        have = (held.version, held.token) if held else None
        reads = plan_reads(head.manifest, target, have)
        if held is None or reads[0].field == FULL:
            return self._assemble(head, reads, None)
        try:
            return self._assemble(head, reads, held.weights)
        except WireError as error:
            # A gap or a base that is not the publisher's: start over from the keyframe.
            self.frames_refused += 1
            model = self._assemble(head, plan_reads(head.manifest, target, None), None)
            log_event(
                logger,
                logging.WARNING,
                "model.diff_refused",
                client=self._keys.client,
                version=model.version,
                error=error,
            )
            return model

    def _assemble(self, head: Head, reads: Sequence[Read], weights: Weights | None) -> Model:
        """Follow `reads` from `weights`, or from the snapshot that the first one is."""
        keys = [self._keys.model(read.entry.version, read.entry.token) for read in reads]
        wanted = [(key, [read.field]) for key, read in zip(keys, reads, strict=True)]
        # How to act, and what it must come to, of the last one alone: a chain may be long.
        wanted.append((keys[-1], ["extras", "digest"]))
        *frames, (extras, digest) = self._broker.hash_get_each(wanted)
        for key, read, (frame,) in zip(keys, reads, frames, strict=True):
            if frame is None:
                raise WireFormatError(f"{key} has no {read.field}: it was pruned or deleted")
            weights = (
                decode_any_snapshot(frame, max_parameters=MAX_PARAMETERS)
                if weights is None
                else apply_any_diff(weights, frame)
            )
        if weights is None or extras is None or digest is None:
            raise WireFormatError(f"{keys[-1]} has no extras or digest: it was pruned or deleted")
        last = reads[-1].entry
        name = model_name(self._broker.address, self._keys, head.lineage, last.version, last.token)
        if weights.digest(extras).encode() != digest:
            raise DigestError(f"version {last.version} does not match its digest")
        weights = shared_weights().share(name, weights)
        return Model(
            last.version, last.token, head.lineage, weights, BehaviorExtras.from_bytes(extras)
        )
