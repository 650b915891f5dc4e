"""From an update to a commit: stage model and checkpoint, settle entries, move the head.

The committer knows what is committed; nothing else in a session does.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from rl4sys_stream.algorithms.base import Algorithm, PolicyExport
from rl4sys_stream.algorithms.grid_chooser import GridState
from rl4sys_stream.broker.commit import Commit, CommitResult, commit, new_commit_id
from rl4sys_stream.broker.control import Control, read_control
from rl4sys_stream.broker.head import Head
from rl4sys_stream.config import WorkerSettings
from rl4sys_stream.errors import BrokerUnavailableError, CommitRefusedError
from rl4sys_stream.model_store.notice import Notice
from rl4sys_stream.model_store.publisher import Base, KeyframePolicy, Publisher, StagedModel
from rl4sys_stream.model_store.retention import Limits, retain
from rl4sys_stream.telemetry import StateLog, log_event
from rl4sys_stream.worker.checkpoint import Checkpoint, stage_checkpoint
from rl4sys_stream.worker.intake import Intake
from rl4sys_stream.worker.retained import RetainedTail
from rl4sys_stream.worker.rounding import Rounding
from rl4sys_stream.worker.settlement import Settlement
from rl4sys_stream.worker.statistics import RolloutStatistics
from rl4sys_stream.worker.tenure import Tenure

__all__ = ["Committer", "Publication"]

logger = logging.getLogger("rl4sys_stream.worker")

RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Publication:
    """What a new version consists of.

    Attributes:
        export: The policy as it is published.
        checkpoint: What a session goes on from.
        settlement: What the commit settles.
        metrics: Of the update.
        exponents: Of the grid that the weights lie on, None if they lie on none.
    """

    export: PolicyExport
    checkpoint: Checkpoint
    settlement: Settlement
    metrics: dict[str, float]
    exponents: tuple[int, ...] | None = None


class Committer:
    """Makes updates real, one commit after the other. Used by one thread."""

    def __init__(
        self,
        tenure: Tenure,
        algorithm: Algorithm,
        head: Head | None,
        intake: Intake,
        tail: RetainedTail,
        grid: GridState | None,
    ) -> None:
        """Continue `head`.

        Args:
            tenure: Surroundings.
            algorithm: In exactly the state of `head`.
            head: What is committed, None before the first version.
            intake: Is told what was settled.
            tail: Entries that a replay buffer keeps in the stream, as they are.
            grid: Of the published weights of `head`, None if they lie on none.
        """
        self._tenure = tenure
        self._algorithm = algorithm
        self._head = head
        self._intake = intake
        self._tail = tail
        self._publisher = Publisher(
            tenure.broker, tenure.keys, _keyframe_policy(tenure.plan.settings)
        )
        self._rounding = Rounding(tenure.plan, grid)
        self._control = read_control(tenure.broker, tenure.keys)
        self._base: Base | None = None
        if head is not None:
            published = self._rounding.again(algorithm.export().weights)
            self._base = Base(head.version, head.token, *published)
        self._log = StateLog(logger, client=tenure.keys.client)

    @property
    def begun(self) -> bool:
        """Whether a version is committed."""
        return self._head is not None

    @property
    def head(self) -> Head:
        """What is committed; there must be a version."""
        if self._head is None:
            raise RuntimeError("no version was published")
        return self._head

    @property
    def control(self) -> Control:
        """What people ask for, as of the last look or commit."""
        return self._control

    def publish(
        self, settlement: Settlement, statistics: RolloutStatistics, metrics: dict[str, float]
    ) -> None:
        """Commit the algorithm as it stands as the next version, with what it was trained on.

        Args:
            settlement: What the commit settles.
            statistics: Of the rollouts, after it.
            metrics: Of the update.

        Raises:
            FencedError: A newer worker owns the client.
            CommitRefusedError: What is committed is not what this session started from.
            BrokerError: The broker cannot be used.
        """
        export = self._algorithm.export()
        trajectories = [item.trajectory for item in settlement.trained]
        weights, exponents = self._rounding.round(export, trajectories)
        publication = Publication(
            replace(export, weights=weights),
            Checkpoint(self._algorithm.state(), statistics, self._rounding.grid),
            settlement,
            {**metrics, **self._rounding.metrics()},
            exponents,
        )
        self.publish_as(publication, self.prune)

    def publish_as(
        self, publication: Publication, complete: Callable[[Commit, Control], Commit]
    ) -> None:
        """Commit `publication` as the next version, whatever the algorithm is.

        Args:
            publication: What it consists of.
            complete: From the commit without pruning and the control to what is carried out; asked
                again if the control was changed meanwhile. What it raises ends the attempt.

        Raises:
            FencedError: As for `publish`.
            CommitRefusedError: Likewise.
            BrokerError: Likewise.
        """
        tenure, old, settlement = self._tenure, self._head, publication.settlement
        version = old.version + 1 if old else 1
        metrics = {**publication.metrics, **publication.checkpoint.statistics.metrics()}
        metrics["time/total_timesteps"] = float(settlement.counts.steps)
        now_ms = tenure.clock.wall_ms()
        checkpoint = tenure.keys.checkpoint(version, tenure.token)
        ttl_s = int(tenure.plan.settings.stage_ttl_s)
        stage_checkpoint(tenure.broker, checkpoint, publication.checkpoint, ttl_s=ttl_s)
        staged = self._stage_model(publication, version, metrics, now_ms)
        deleted = self._delete(settlement)
        head = Head(
            version=version,
            token=tenure.token,
            lineage=tenure.plan.lineage,
            model=staged.key,
            checkpoint=checkpoint,
            manifest=staged.manifest,
            counts=settlement.counts,
            retained=len(self._tail),
            updated_ms=now_ms,
        )
        record = {"version": version, "time_ms": now_ms, "metrics": metrics}
        work = replace(
            self._work(settlement, head, deleted),
            staged=(staged.key, checkpoint),
            metrics=msgspec.json.encode(record),
            notice=self._notice(head, publication.export, staged.diff),
        )
        self._commit(work, complete)
        self._base = Base(version, tenure.token, publication.export.weights, publication.exponents)
        self._publisher.follow(self._base)
        self._tell(settlement, metrics)

    def _stage_model(
        self, publication: Publication, version: int, metrics: dict[str, float], now_ms: int
    ) -> StagedModel:
        tenure, old = self._tenure, self._head
        return self._publisher.stage(
            version=version,
            token=tenure.token,
            lineage=tenure.plan.lineage,
            weights=publication.export.weights,
            exponents=publication.exponents,
            extras=publication.export.extras,
            base=self._base,
            manifest=old.manifest if old else (),
            provenance=publication.settlement.provenance,
            metrics=metrics,
            wall_ms=now_ms,
            ttl_s=int(tenure.plan.settings.stage_ttl_s),
        )

    def _notice(self, head: Head, export: PolicyExport, diff: bytes) -> bytes:
        """What subscribers are told of a new version."""
        base, extras = self._base, export.extras.to_bytes()
        notice = Notice(version=head.version, token=head.token, lineage=head.lineage)
        if base is not None and diff:
            notice = msgspec.structs.replace(
                notice,
                base_version=base.version,
                base_token=base.token,
                digest=export.weights.digest(extras),
                extras=extras,
                diff=diff,
            )
        return notice.to_bytes()

    def settle(self, settlement: Settlement) -> None:
        """Commit a settlement without training: no new version.

        Raises:
            FencedError: As for `publish`.
            CommitRefusedError: Likewise.
            BrokerError: Likewise.
        """
        deleted = self._delete(settlement)
        head = replace(
            self.head,
            counts=settlement.counts,
            retained=len(self._tail),
            updated_ms=self._tenure.clock.wall_ms(),
        )
        self._commit(self._work(settlement, head, deleted))

    def look_at_control(self) -> Control:
        """What people ask for, read anew; commits prune accordingly.

        Raises:
            WireFormatError: If it does not decode.
            BrokerError: The broker cannot be used.
        """
        self._control = read_control(self._tenure.broker, self._tenure.keys)
        return self._control

    def _delete(self, settlement: Settlement) -> list[str]:
        """What leaves the stream: all that is settled, less what the replay buffer keeps."""
        trained = [(item.entry_id, item.size_bytes) for item in settlement.trained]
        fallen = self._tail.advance(trained, self._algorithm.retained)
        kept = {entry_id for entry_id, _ in trained}
        return [entry_id for entry_id in settlement.entry_ids if entry_id not in kept] + fallen

    def _tell(self, settlement: Settlement, metrics: dict[str, float]) -> None:
        log_event(
            logger,
            logging.INFO,
            "worker.committed",
            client=self._tenure.keys.client,
            version=self.head.version,
            trajectories=settlement.provenance.trajectories,
            steps=settlement.counts.steps,
            ep_rew_mean=_rounded(metrics.get("rollout/ep_rew_mean")),
            policy_lag_max=int(metrics.get("policy/lag_max", 0)),
        )

    def _work(self, settlement: Settlement, head: Head, deleted: list[str]) -> Commit:
        old = self._head
        return Commit(
            commit_id=new_commit_id(),
            token=self._tenure.token,
            expect_version=old.version if old else 0,
            expect_token=old.token if old else "",
            expect_commit=old.commit if old else "",
            expect_server=self._tenure.server,
            head=head,
            settled=settlement.entry_ids,
            refusals=settlement.refusals,
            deleted=deleted,
            watermarks=settlement.watermarks,
        )

    def prune(self, work: Commit, control: Control) -> Commit:
        """`work`, whose head lists all versions, with those pruned that `control` does not name."""
        head = work.head
        if head is None:
            return work
        keys, limits = self._tenure.keys, _limits(self._tenure.plan.settings, head.updated_ms)
        retention = retain(head.manifest, limits, control.protected)
        return replace(
            work,
            head=replace(head, manifest=retention.manifest),
            pruned=[keys.model(entry.version, entry.token) for entry in retention.pruned],
            useless=[
                keys.checkpoint(entry.version, entry.token)
                for entry in (*retention.pruned, *retention.bare)
            ],
            expect_control=control.revision,
        )

    def _commit(
        self, draft: Commit, complete: Callable[[Commit, Control], Commit] | None = None
    ) -> None:
        """Carry `draft` out, completed by what the control says if it depends on that."""
        work, result = self._intake.settle(
            lambda: self._commit_until_answered(draft, complete), draft.settled
        )
        if work.head is not None:
            self._head = replace(work.head, commit=work.commit_id)
        # A stream that is never idle must not hide what a paused worker took under our name.
        self._intake.look_for_forgotten(result.pending)

    def _commit_until_answered(
        self, draft: Commit, complete: Callable[[Commit, Control], Commit] | None
    ) -> tuple[Commit, CommitResult]:
        """Repeat a commit whose reply was lost: the broker recognises it by its id."""
        tenure = self._tenure
        work = complete(draft, self._control) if complete else draft
        while True:
            try:
                result = commit(tenure.broker, tenure.keys, work)
            except BrokerUnavailableError as error:
                self._log.set("worker.commit", "unanswered", error=error)
                if tenure.stopping():
                    raise
                tenure.pause(RETRY_S)
                continue
            except CommitRefusedError as error:
                if error.reason != "CONTROL" or complete is None:
                    raise
                work = complete(draft, self.look_at_control())
                continue
            self._log.set("worker.commit", "answered", level=logging.DEBUG)
            return work, result


def _keyframe_policy(settings: WorkerSettings) -> KeyframePolicy:
    return KeyframePolicy(settings.retain_versions, settings.keyframe_ratio, settings.direct_diffs)


def _limits(settings: WorkerSettings, now_ms: int) -> Limits:
    oldest = (
        None if settings.retain_model_s is None else now_ms - int(settings.retain_model_s * 1000)
    )
    return Limits(settings.retain_versions, settings.retain_model_bytes, oldest)


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
