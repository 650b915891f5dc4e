"""One tenure of a worker: from the acquired lease until it stops, is fenced, or loses the broker.

A session begins at the committed head and its checkpoint and holds nothing else that matters:
whatever goes wrong, it is thrown away, and the next one begins at the head again.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from rl4sys_stream.algorithms.base import Algorithm, PolicyExport, Sample, UpdateReport
from rl4sys_stream.broker.commit import Commit, CommitResult, commit, new_commit_id
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.head import Counts, Head, ManifestEntry
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import read_heartbeats
from rl4sys_stream.clock import Clock
from rl4sys_stream.errors import BrokerUnavailableError, FencedError, NonFiniteError
from rl4sys_stream.model_store.publisher import Base, Provenance, Publisher
from rl4sys_stream.telemetry import StateLog, log_event
from rl4sys_stream.worker.checkpoint import stage_checkpoint
from rl4sys_stream.worker.health import Health
from rl4sys_stream.worker.intake import Intake
from rl4sys_stream.worker.isolation import Attempts, ends_a_process, find_culprits
from rl4sys_stream.worker.plan import WorkerPlan
from rl4sys_stream.worker.settlement import Accepted, Books, Settlement
from rl4sys_stream.worker.statistics import RolloutStatistics

__all__ = ["Session", "Tenure"]

logger = logging.getLogger("rl4sys_stream.worker")

TAKE_TIMEOUT_S = 0.2
REFUSED_BATCH = 500
"""Entries settled without training that wait for the next version at most; then they get a commit
of their own, so that a stream full of unusable entries does not fill the broker."""
REFUSED_AGE_S = 1.0
MAX_GROWTH = 16
"""A rollout grows to this many times `n_steps` at most: its update takes as many times as long."""
RETRY_S = 0.2
LOOK_AT_AGENTS_S = 1.0
HEARTBEAT_AGE_MS = 10_000


@dataclass(frozen=True, slots=True)
class Tenure:
    """What a session works with; all of it belongs to this session alone.

    Attributes:
        broker: For everything but the blocking reads and the renewals.
        keys: Of the client.
        plan: What to train.
        token: Fencing token of the held lease.
        server: Identity of the server, asked before anything else was read; "" where it is not
            told.
        clock: For stamps and intervals.
        health: Renews the lease meanwhile.
        stopping: True once the process was asked to stop.
        attempts: Remembers which updates were begun, also when this process does not outlive one.
        pause: Waits that many seconds, or less if asked to stop.
    """

    broker: Broker
    keys: ClientKeys
    plan: WorkerPlan
    token: str
    server: str
    clock: Clock
    health: Health
    stopping: Callable[[], bool]
    attempts: Attempts
    pause: Callable[[float], None]


class Session:
    """Takes entries in, trains, commits. Used by one thread."""

    def __init__(
        self,
        tenure: Tenure,
        algorithm: Algorithm,
        head: Head | None,
        statistics: RolloutStatistics,
        books: Books,
        intake: Intake,
    ) -> None:
        """Continue `head` with an `algorithm` in exactly that state.

        Args:
            tenure: Surroundings.
            algorithm: Loaded from the head's checkpoint, or fresh where there is no head.
            head: What is committed, None before the first version.
            statistics: From the same checkpoint.
            books: Over the committed ledgers.
            intake: Started by `run`.
        """
        self._tenure = tenure
        self._algorithm = algorithm
        self._head = head
        self._statistics = statistics
        self._books = books
        self._intake = intake
        settings = tenure.plan.settings
        self._publisher = Publisher(
            tenure.broker, tenure.keys, retain_versions=settings.retain_versions
        )
        # Before the first update the algorithm holds exactly the weights of the head.
        self._base: Base | None = None
        if head is not None:
            weights = algorithm.export().weights
            self._base = Base(head.version, head.token, weights)
        self._observed_steps = self._observed_lag = 0
        self._wanted_steps: float | None = None
        self._failed_updates = 0
        self._suspicious = False
        self._look_at_agents = 0.0
        self._oldest_refusal = 0.0
        self._log = StateLog(logger, client=tenure.keys.client)

    def run(self) -> None:
        """Work until asked to stop.

        Raises:
            FencedError: A newer worker owns the client.
            CommitRefusedError: What is committed is not what this session started from.
            BrokerError: The broker cannot be used.
            NonFiniteError: Updates kept failing.
        """
        if self._head is not None:
            self._suspicious = self._tenure.attempts.resume(self._head)
        else:
            self._publish(Settlement((), (), {}, Counts(), Provenance()), None)
        self._intake.start()
        try:
            while not self._tenure.stopping():
                self._step()
        finally:
            self._intake.stop()
        if self._books.unsettled:
            self._settle_refused()

    def _step(self) -> None:
        if self._tenure.health.lost.is_set():
            raise FencedError(f"{self._tenure.keys.client}: a newer worker holds the lease")
        candidate = self._intake.take(TAKE_TIMEOUT_S)
        if candidate is not None:
            for accepted in self._books.accept(candidate, self._require_head()):
                self._observe(accepted)
        else:
            self._tenure.health.set_state("idle")
            if self._agents_wait_for_room():
                self._train()
                return
        if self._commit_is_full() or (self._algorithm.ready() and not self._grows()):
            self._train()
        elif self._refusals_due():
            self._settle_refused()

    def _observe(self, accepted: Accepted) -> None:
        self._algorithm.observe(Sample(accepted.trajectory, accepted.lag))
        self._observed_steps += len(accepted.trajectory.rewards)
        self._observed_lag = max(self._observed_lag, accepted.lag)

    def _commit_is_full(self) -> bool:
        """A rollout of very short trajectories must still fit into one commit."""
        limit = self._tenure.plan.settings.max_commit_entries
        return self._books.accepted > 0 and self._books.size >= limit

    def _agents_wait_for_room(self) -> bool:
        """Whether nothing more will come before something is settled.

        Agents hold back above their high-water mark. Where that is reached with less than a
        rollout in the stream, worker and agents would wait for each other for ever; a short
        rollout is better than none.
        """
        now = self._tenure.clock.monotonic()
        if not self._books.accepted or now < self._look_at_agents:
            return False
        self._look_at_agents = now + LOOK_AT_AGENTS_S
        now_ms = self._tenure.clock.wall_ms()
        waiting = any(
            said.broker == "paused" and not said.closed and now_ms - said.time_ms < HEARTBEAT_AGE_MS
            for said in read_heartbeats(self._tenure.broker, self._tenure.keys).values()
        )
        self._log.set(
            "worker.rollout",
            "cut_short" if waiting else "whole",
            level=logging.WARNING if waiting else logging.DEBUG,
            steps=self._observed_steps,
            why="agents are above their high-water mark",
        )
        return waiting

    def _grows(self) -> bool:
        """Whether the rollout takes in more than it needs, because much is waiting.

        After an outage the stream may hold dozens of rollouts of one policy. Trained one by one,
        each makes the next a version older, until the rest is too old and dropped. So a rollout
        grows until what waits is trained on within half of the versions that it has left.
        """
        if self._wanted_steps is None:
            plan = self._tenure.plan
            at_hand = self._observed_steps + self._intake.waiting_steps()
            left = plan.settings.max_policy_lag - self._observed_lag
            share = at_hand * 2 / max(left, 2)
            self._wanted_steps = min(share, MAX_GROWTH * plan.parameters.steps_per_update)
        return self._intake.waiting > 0 and self._observed_steps < self._wanted_steps

    def _refusals_due(self) -> bool:
        waiting = self._books.unsettled
        now = self._tenure.clock.monotonic()
        if not waiting:
            self._oldest_refusal = now
            return False
        return waiting >= REFUSED_BATCH or now - self._oldest_refusal >= REFUSED_AGE_S

    def _train(self) -> None:
        self._tenure.health.set_state("training")
        if self._suspicious and self._isolate_deadly():
            return
        self._tenure.attempts.begin(self._require_head())
        begun = self._tenure.clock.monotonic()
        try:
            report = self._algorithm.update()
        except Exception as error:  # noqa: BLE001 -- of whatever kind: the samples are to blame, or
            self._isolate(error)  # it comes again without them, and is raised then
            return
        self._observed_steps, self._observed_lag, self._wanted_steps = 0, 0, None
        self._failed_updates = 0
        for item in self._books.held():
            self._statistics.add(item.address.agent_id, item.trajectory)
        seconds = self._tenure.clock.monotonic() - begun
        settlement = self._books.settle_trained()
        timing = {"time/update_s": seconds, "stream/waiting": float(self._intake.waiting)}
        report = replace(report, metrics={**report.metrics, **timing})
        self._publish(settlement, report)

    def _isolate_deadly(self) -> bool:
        """Set aside what has ended the workers before this one; True if there was any.

        Their last words were that an update from this very head began.
        """
        self._suspicious = False
        held = self._books.held()
        if ends_a_process(self._algorithm.export) or not self._deadly(held):
            return False  # children cannot be used here; or the workers were killed by others
        culprits = find_culprits(held, self._deadly) or held
        self._set_aside(culprits, "updates on it end the worker's process")
        return True

    def _deadly(self, items: Sequence[Accepted]) -> bool:
        return ends_a_process(lambda: self._update_on(items))

    def _update_on(self, items: Sequence[Accepted]) -> None:
        self._algorithm.discard()
        for item in items:
            self._algorithm.observe(Sample(item.trajectory, item.lag))
        self._algorithm.update()

    def _isolate(self, error: Exception) -> None:
        """The update was rolled back: find the samples that it failed on, and keep the others."""
        held = self._books.held()
        before = self._algorithm.state()

        def fails(items: Sequence[Accepted]) -> bool:
            try:
                self._update_on(items)
            except Exception:  # noqa: BLE001 -- as above
                return True
            finally:
                self._algorithm.discard()
                self._algorithm.load_state(before)
            return False

        culprits = find_culprits(held, fails)
        if culprits is None or len(culprits) == len(held):
            self._give_up_rollout(error)
        else:
            self._set_aside(culprits, f"the update on it failed: {type(error).__name__}: {error}")

    def _set_aside(self, culprits: Sequence[Accepted], reason: str) -> None:
        """Quarantine `culprits`; the learner goes on with the rest of the rollout."""
        self._books.refuse_accepted(reason, culprits)
        self._algorithm.discard()
        self._observed_steps, self._observed_lag, self._wanted_steps = 0, 0, None
        for item in self._books.held():
            self._observe(item)
        log_event(
            logger,
            logging.ERROR,
            "worker.samples_set_aside",
            client=self._tenure.keys.client,
            reason=reason,
            quarantined=len(culprits),
            kept=self._books.accepted,
        )
        self._settle_refused()

    def _give_up_rollout(self, error: Exception) -> None:
        """No sample alone is to blame, or all are: they are set aside together."""
        self._failed_updates += 1
        self._algorithm.discard()
        self._observed_steps, self._observed_lag, self._wanted_steps = 0, 0, None
        kind = "was not finite" if isinstance(error, NonFiniteError) else "failed"
        entries = self._books.refuse_accepted(f"the update on it {kind}: {error}")
        log_event(
            logger,
            logging.ERROR,
            "worker.update_rolled_back",
            client=self._tenure.keys.client,
            error=error,
            failures=self._failed_updates,
            quarantined=entries,
        )
        self._settle_refused()
        if self._failed_updates >= self._tenure.plan.settings.max_failed_updates:
            if not isinstance(error, NonFiniteError):
                raise error
            raise NonFiniteError(
                f"{self._failed_updates} updates in a row were not finite ({error}); look at the "
                "rewards and observations in the quarantine, or lower learning_rate"
            ) from error

    def _publish(self, settlement: Settlement, report: UpdateReport | None) -> None:
        """Stage the algorithm as the next version, and commit it with what it was trained on."""
        tenure, old = self._tenure, self._head
        export = self._algorithm.export()
        version = old.version + 1 if old else 1
        metrics = dict(report.metrics) if report else {}
        metrics |= self._statistics.metrics()
        metrics["time/total_timesteps"] = float(settlement.counts.steps)
        now_ms = tenure.clock.wall_ms()
        checkpoint_key = tenure.keys.checkpoint(version, tenure.token)
        ttl_s = int(tenure.plan.settings.stage_ttl_s)
        state = self._algorithm.state()
        stage_checkpoint(tenure.broker, checkpoint_key, state, self._statistics, ttl_s=ttl_s)
        staged = self._publisher.stage(
            version=version,
            token=tenure.token,
            lineage=tenure.plan.lineage,
            weights=export.weights,
            extras=export.extras,
            base=self._base,
            manifest=old.manifest if old else (),
            provenance=settlement.provenance,
            metrics=metrics,
            wall_ms=now_ms,
            ttl_s=ttl_s,
        )
        head = Head(
            version=version,
            token=tenure.token,
            lineage=tenure.plan.lineage,
            model=staged.key,
            checkpoint=checkpoint_key,
            manifest=staged.manifest,
            counts=settlement.counts,
            updated_ms=now_ms,
        )
        record = {"version": version, "time_ms": now_ms, "metrics": metrics}
        notice = {"version": version, "token": tenure.token, "lineage": tenure.plan.lineage}
        self._commit(
            settlement,
            head,
            staged=(staged.key, checkpoint_key),
            pruned=self._pruned_keys(staged.pruned),
            metrics=msgspec.json.encode(record),
            notice=msgspec.json.encode(notice),
        )
        self._note_published(export, settlement, metrics)

    def _note_published(
        self, export: PolicyExport, settlement: Settlement, metrics: dict[str, float]
    ) -> None:
        head = self._require_head()
        self._base = Base(head.version, head.token, export.weights)
        log_event(
            logger,
            logging.INFO,
            "worker.committed",
            client=self._tenure.keys.client,
            version=head.version,
            trajectories=settlement.provenance.trajectories,
            steps=settlement.counts.steps,
            ep_rew_mean=_rounded(metrics.get("rollout/ep_rew_mean")),
            policy_lag_max=int(metrics.get("policy/lag_max", 0)),
        )

    def _pruned_keys(self, pruned: tuple[ManifestEntry, ...]) -> tuple[str, ...]:
        keys = self._tenure.keys
        return tuple(
            key
            for entry in pruned
            for key in (
                keys.model(entry.version, entry.token),
                keys.checkpoint(entry.version, entry.token),
            )
        )

    def _settle_refused(self) -> None:
        settlement = self._books.settle_refused()
        head = replace(
            self._require_head(),
            counts=settlement.counts,
            updated_ms=self._tenure.clock.wall_ms(),
        )
        self._commit(settlement, head)

    def _commit(
        self,
        settlement: Settlement,
        head: Head,
        *,
        staged: tuple[str, ...] = (),
        pruned: tuple[str, ...] = (),
        metrics: bytes = b"",
        notice: bytes = b"",
    ) -> None:
        old = self._head
        work = Commit(
            commit_id=new_commit_id(),
            token=self._tenure.token,
            expect_version=old.version if old else 0,
            expect_token=old.token if old else "",
            expect_commit=old.commit if old else "",
            expect_server=self._tenure.server,
            head=head,
            staged=staged,
            settled=settlement.entry_ids,
            refusals=settlement.refusals,
            deleted=settlement.entry_ids,
            watermarks=settlement.watermarks,
            pruned=pruned,
            metrics=metrics,
            notice=notice,
        )
        result = self._intake.settle(
            lambda: self._commit_until_answered(work), settlement.entry_ids
        )
        self._head = replace(head, commit=work.commit_id)
        # A stream that is never idle must not hide what a paused worker took under our name.
        self._intake.look_for_forgotten(result.pending)

    def _commit_until_answered(self, work: Commit) -> CommitResult:
        """Repeat a commit whose reply was lost: the broker recognises it by its id."""
        tenure = self._tenure
        while True:
            try:
                result = commit(tenure.broker, tenure.keys, work)
            except BrokerUnavailableError as error:
                self._log.set("worker.commit", "unanswered", error=error)
                if tenure.stopping():
                    raise
                tenure.pause(RETRY_S)
                continue
            self._log.set("worker.commit", "answered", level=logging.DEBUG)
            return result

    def _require_head(self) -> Head:
        if self._head is None:
            raise RuntimeError("no version was published")
        return self._head


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
