"""Publishing a model from a file as the next version of a client, with or without a worker."""

from collections.abc import Callable
from typing import Final

import msgspec

from rl4sys_stream.broker.commit import Commit, commit, new_commit_id
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.control_log import ControlRecord
from rl4sys_stream.broker.head import Counts, Head, read_head
from rl4sys_stream.broker.key_types import require_key_types
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.lease import Lease
from rl4sys_stream.broker.registry import (
    parse_definition,
    read_registration,
    register,
    require_registration,
)
from rl4sys_stream.broker.server_facts import read_identity
from rl4sys_stream.broker.steering import Cause
from rl4sys_stream.errors import BrokerUnavailableError, SpecMismatchError, UsageError
from rl4sys_stream.exchange.package import ModelPackage
from rl4sys_stream.model_store.publisher import KeyframePolicy, Provenance, Publisher
from rl4sys_stream.policy.policy import build_policy

__all__ = ["import_model"]

LEASE_S: Final = 30.0
STAGE_TTL_S: Final = 120
ATTEMPTS: Final = 5
RETAIN_ALL: Final = 1 << 30


def import_model(
    broker: Broker,
    keys: ClientKeys,
    package: ModelPackage,
    cause: Cause,
    *,
    force: bool,
    pause: Callable[[], None],
) -> Head:
    """Publish `package` as the client's next version.

    A client that is not registered is registered with the model's spec. The lease is taken for as
    long as it takes. A version that is imported has no checkpoint: a worker that starts from it
    begins with its actor, and with a critic and an optimizer of its own.

    Args:
        broker: Where the client is.
        keys: Of the client.
        package: The model.
        cause: Who and why.
        force: Take the lease over from a worker that trains the client; it goes on from the import.
        pause: Waits a moment, before a commit whose reply was lost is repeated.

    Returns:
        The new head.

    Raises:
        SpecMismatchError: If the client agreed on something else; names the fields.
        WireFormatError: If the model does not fit its own spec.
        ConfigError: If the client is not registered, and what the model was trained with is not
            known to this version.
        UsageError: If a worker holds the client and `force` is not given.
        FencedError: If a worker took the client over meanwhile.
        BrokerError: Nothing was published, or the reply was lost: look at the head.
    """
    require_key_types(broker, keys)
    build_policy(package.spec, package.weights, package.extras, 1, "import")
    registration = read_registration(broker, keys)
    if registration is None:
        # A worker without a definition of its own goes by this one, and could not go by nonsense.
        parse_definition(package.spec.algorithm, package.definition)
        registration = register(
            broker, keys, package.spec, package.definition, wall_ms=cause.time_ms
        )
    if fields := registration.spec.differences(package.spec):
        raise SpecMismatchError(
            f"{package.origin} does not fit client {keys.client!r}: it was made for a different "
            f"{', '.join(fields)}; export one that fits, or import it under another client id",
            fields=fields,
        )
    lease = Lease(broker, keys, ttl_s=LEASE_S)
    if not lease.acquire(force=force):
        raise UsageError(
            f"a worker trains {keys.client!r}; stop it, or give --force: then it goes on from the "
            "imported actor"
        )
    try:
        # Read again under the lease: a reset may have begun a new lineage in between.
        lineage = require_registration(broker, keys).lineage
        return _publish(broker, keys, package, cause, lineage, lease.token, pause)
    finally:
        lease.release()


def _publish(
    broker: Broker,
    keys: ClientKeys,
    package: ModelPackage,
    cause: Cause,
    lineage: str,
    token: str,
    pause: Callable[[], None],
) -> Head:
    server, old = read_identity(broker), read_head(broker, keys)
    version = old.version + 1 if old else 1
    staged = Publisher(broker, keys, KeyframePolicy(RETAIN_ALL)).stage(
        version=version,
        token=token,
        lineage=lineage,
        weights=package.weights,
        extras=package.extras,
        base=None,
        manifest=old.manifest if old else (),
        provenance=Provenance(origin=f"import of {package.origin}"),
        metrics={},
        wall_ms=cause.time_ms,
        ttl_s=STAGE_TTL_S,
    )
    head = Head(
        version=version,
        token=token,
        lineage=lineage,
        model=staged.key,
        checkpoint="",
        manifest=staged.manifest,
        counts=old.counts if old else Counts(),
        retained=old.retained if old else 0,
        updated_ms=cause.time_ms,
    )
    work = Commit(
        commit_id=new_commit_id(),
        token=token,
        expect_version=old.version if old else 0,
        expect_token=old.token if old else "",
        expect_commit=old.commit if old else "",
        expect_server=server,
        head=head,
        staged=(staged.key,),
        notice=msgspec.json.encode({"version": version, "token": token, "lineage": lineage}),
        record=ControlRecord(
            what="import",
            time_ms=cause.time_ms,
            by=cause.by,
            reason=cause.reason,
            version=version,
            token=token,
            detail=str(package.origin),
        ),
    )
    _commit(broker, keys, work, pause)
    return head


def _commit(broker: Broker, keys: ClientKeys, work: Commit, pause: Callable[[], None]) -> None:
    for attempt in range(ATTEMPTS):
        try:
            commit(broker, keys, work)
        except BrokerUnavailableError:
            # The same again, by its id: whether it was carried out is not known.
            if attempt == ATTEMPTS - 1:
                raise
            pause()
        else:
            return
