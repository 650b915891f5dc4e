"""A model with all that says what it is for: what a file holds, whatever its format."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import require_registration
from rl4sys_stream.config import ClientSpec
from rl4sys_stream.errors import DigestError, WireFormatError
from rl4sys_stream.model_store.subscriber import ModelSubscriber
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.wire.json import decode_json
from rl4sys_stream.wire.snapshot import Weights

__all__ = ["ModelPackage", "Origin", "read_package"]

PACKAGE_FORMAT: Final = 1


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model was trained.

    Attributes:
        client: Name of the client.
        version: Model version.
        token: Of that version.
        lineage: Training history.
    """

    client: str
    version: int
    token: str
    lineage: str

    def __str__(self) -> str:
        """In words, for people and for provenance."""
        return f"version {self.version} of {self.client} ({self.token})"


class _PackageJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands beside the tensors of a file."""

    format: int
    spec: msgspec.Raw
    definition: dict[str, object]
    extras: str
    digest: str
    tensors: tuple[str, ...]
    origin: Origin


@dataclass(frozen=True, slots=True, eq=False)
class ModelPackage:
    """One version, complete.

    Attributes:
        weights: All parameters that acting needs.
        extras: What else acting needs.
        spec: What its client agreed on: algorithm, spaces, network.
        definition: With what it was trained; of no consequence for acting.
        origin: Where it was trained.
    """

    weights: Weights
    extras: BehaviorExtras
    spec: ClientSpec
    definition: Mapping[str, object]
    origin: Origin

    def describe(self) -> bytes:
        """Everything but the numbers, as JSON."""
        extras = self.extras.to_bytes()
        return msgspec.json.encode(
            _PackageJson(
                PACKAGE_FORMAT,
                msgspec.Raw(self.spec.to_bytes()),
                dict(self.definition),
                extras.decode(),
                self.weights.digest(extras),
                self.weights.layout.names,
                self.origin,
            )
        )

    @classmethod
    def from_parts(cls, description: bytes, tensors: Mapping[str, NDArray[np.float32]]) -> Self:
        """The package that `describe` and the tensors, in any order, make.

        Raises:
            WireFormatError: If they do not decode, or do not belong together.
            ConfigError: If the spec is none that this version knows.
            DigestError: If a number is not what was exported.
        """
        said = decode_json(description, _PackageJson, "the description of the model")
        if said.format != PACKAGE_FORMAT:
            raise WireFormatError(
                f"model file format {said.format} is unknown; this version reads {PACKAGE_FORMAT}: "
                "upgrade it"
            )
        if set(said.tensors) != set(tensors):
            raise WireFormatError(
                f"the file holds the tensors {', '.join(sorted(tensors)) or 'none'}, its "
                f"description says {', '.join(sorted(said.tensors))}"
            )
        weights = Weights.from_tensors({name: tensors[name] for name in said.tensors})
        extras = said.extras.encode()
        if weights.digest(extras) != said.digest:
            raise DigestError("the file does not match its digest: it was changed or cut")
        return cls(
            weights,
            BehaviorExtras.from_bytes(extras),
            ClientSpec.from_bytes(bytes(said.spec)),
            said.definition,
            said.origin,
        )


def read_package(broker: Broker, keys: ClientKeys, version: int) -> ModelPackage:
    """A retained version of a client, checked against its digest.

    Raises:
        UnknownClientError: If there is no such client.
        UnknownVersionError: If there is no such version; names those that there are.
        BrokerError: Safe to retry.
        WireError: If it does not decode.
    """
    registration = require_registration(broker, keys)
    model = ModelSubscriber(broker, keys).read(version)
    return ModelPackage(
        model.weights,
        model.extras,
        registration.spec,
        registration.definition,
        Origin(client=keys.client, version=model.version, token=model.token, lineage=model.lineage),
    )
