"""A rollback: an older version becomes the next one, for the agents and for the learner.

It is asked for in the control, and carried out by whoever holds the fence, at a commit boundary.
The commit that makes the version also takes the request away, so that it happens once, whoever is
killed in between.
"""

import logging
import socket
from dataclasses import replace

from rl4sys_stream.algorithms.base import Algorithm, AlgorithmState, PolicyExport
from rl4sys_stream.algorithms.checkpoint import check_fits
from rl4sys_stream.broker.commit import Commit
from rl4sys_stream.broker.control import Control, Promotion, RollbackRequest
from rl4sys_stream.broker.control_log import ControlRecord
from rl4sys_stream.broker.head import Head
from rl4sys_stream.broker.steering import Cause, revised, withdraw_rollback
from rl4sys_stream.errors import UnknownVersionError, WireError
from rl4sys_stream.model_store.publisher import Provenance
from rl4sys_stream.model_store.subscriber import ModelSubscriber
from rl4sys_stream.telemetry import log_event
from rl4sys_stream.worker.checkpoint import read_checkpoint
from rl4sys_stream.worker.committer import Committer, Publication
from rl4sys_stream.worker.settlement import Settlement
from rl4sys_stream.worker.statistics import RolloutStatistics
from rl4sys_stream.worker.tenure import Tenure

__all__ = ["roll_back", "worker_name"]

logger = logging.getLogger("rl4sys_stream.worker")


class _WithdrawnError(Exception):
    """Nobody asks for it any more."""


def worker_name() -> str:
    """How a worker signs what it does."""
    return f"worker@{socket.gethostname()}"


def roll_back(
    tenure: Tenure,
    algorithm: Algorithm,
    committer: Committer,
    statistics: RolloutStatistics,
    request: RollbackRequest,
) -> bool:
    """Carry `request` out, or refuse it with the reason in the log of the control.

    Args:
        tenure: Surroundings.
        algorithm: Says what checkpoints fit; it is left as it is.
        committer: Publishes.
        statistics: Of the rollouts; those go on, since what they count has happened.
        request: What is asked for.

    Returns:
        True if the older version is the head now: the session must end, for the algorithm is not in
        that state.

    Raises:
        FencedError: A newer worker owns the client.
        CommitRefusedError: What is committed is not what this session started from.
        BrokerError: The broker cannot be used; the request stands.
    """
    try:
        export, state = _read(tenure, algorithm, request)
    except (UnknownVersionError, WireError) as error:
        cause = Cause(worker_name(), tenure.clock.wall_ms(), str(error))
        withdraw_rollback(
            tenure.broker,
            tenure.keys,
            request.request_id,
            cause,
            token=tenure.token,
            what="rollback refused",
        )
        _tell(tenure, logging.WARNING, "worker.rollback_refused", request, why=str(error))
        return False
    origin = f"rollback to version {request.version} of {request.token}"
    settlement = Settlement(counts=committer.head.counts, provenance=Provenance(origin=origin))

    def complete(work: Commit, control: Control) -> Commit:
        return _answering(committer, work, control, request)

    try:
        committer.publish_as(Publication(export, state, settlement, statistics, {}), complete)
    except _WithdrawnError:
        return False
    _tell(tenure, logging.INFO, "worker.rolled_back", request, version=committer.head.version)
    return True


def _read(
    tenure: Tenure, algorithm: Algorithm, request: RollbackRequest
) -> tuple[PolicyExport, AlgorithmState]:
    model = ModelSubscriber(tenure.broker, tenure.keys).read(request.version)
    state, _ = read_checkpoint(
        tenure.broker, tenure.keys.checkpoint(request.version, request.token)
    )
    check_fits(state, algorithm.state())
    return PolicyExport(model.weights, model.extras), state


def _answering(
    committer: Committer, work: Commit, control: Control, request: RollbackRequest
) -> Commit:
    """`work`, with the request answered in the control as it is."""
    head, asked = work.head, control.request
    if head is None or asked is None or asked.request_id != request.request_id:
        raise _WithdrawnError
    after = revised(replace(control, request=None, promoted=_promoted(control, head, request)))
    record = ControlRecord(
        what="rolled back",
        time_ms=head.updated_ms,
        by=worker_name(),
        reason=request.reason,
        version=head.version,
        token=head.token,
        request=request.request_id,
        detail=f"from version {request.version} of {request.token}, asked for by {request.by}",
    )
    # Pruned by what is named from now on, on the ground of what is there.
    pruned = replace(committer.prune(work, after), expect_control=control.revision)
    return replace(pruned, control=after, record=record)


def _promoted(control: Control, head: Head, request: RollbackRequest) -> Promotion | None:
    """Whoever rolls back wants agents to act by that, too, and not by what was promoted before."""
    if control.promoted is None:
        return None
    return Promotion(
        version=head.version,
        token=head.token,
        reason=request.reason,
        by=request.by,
        time_ms=head.updated_ms,
    )


def _tell(
    tenure: Tenure, level: int, name: str, request: RollbackRequest, **fields: object
) -> None:
    client, target = tenure.keys.client, request.version
    log_event(logger, level, name, client=client, target=target, **fields)
