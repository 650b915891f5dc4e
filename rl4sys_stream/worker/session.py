"""One tenure of a worker: from the acquired lease until it stops, is fenced, or loses the broker.

A session begins at the committed head and its checkpoint and holds nothing else that matters:
whatever goes wrong, it is thrown away, and the next one begins at the head again.
"""

import logging
from collections.abc import Sequence

from rl4sys_stream.algorithms.base import Algorithm, Sample
from rl4sys_stream.broker.registry import read_heartbeats
from rl4sys_stream.errors import FencedError, NonFiniteError
from rl4sys_stream.telemetry import StateLog, log_event
from rl4sys_stream.worker.committer import Committer
from rl4sys_stream.worker.intake import Intake
from rl4sys_stream.worker.isolation import ends_a_process, find_culprits
from rl4sys_stream.worker.obedience import Obedience
from rl4sys_stream.worker.rollback import roll_back
from rl4sys_stream.worker.settlement import Accepted, Books, Settlement
from rl4sys_stream.worker.statistics import RolloutStatistics
from rl4sys_stream.worker.tenure import Tenure

__all__ = ["Session"]

logger = logging.getLogger("rl4sys_stream.worker")

TAKE_TIMEOUT_S = 0.2
REFUSED_BATCH = 500
"""Entries settled without training that wait for the next version at most; then they get a commit
of their own, so that a stream full of unusable entries does not fill the broker."""
REFUSED_AGE_S = 1.0
MAX_GROWTH = 16
"""A rollout grows to this many times `n_steps` at most: its update takes as many times as long."""
LOOK_AT_AGENTS_S = 1.0
HEARTBEAT_AGE_MS = 10_000


class Session:
    """Takes entries in, trains, commits. Used by one thread."""

    def __init__(
        self,
        tenure: Tenure,
        algorithm: Algorithm,
        committer: Committer,
        statistics: RolloutStatistics,
        books: Books,
        intake: Intake,
        obedience: Obedience,
    ) -> None:
        """Continue what is committed with an `algorithm` in exactly that state.

        Args:
            tenure: Surroundings.
            algorithm: Loaded from the head's checkpoint, or fresh where there is no head.
            committer: Knows the head.
            statistics: From the same checkpoint.
            books: Over the committed ledgers.
            intake: Started by `run`.
            obedience: Looks at what people ask for.
        """
        self._tenure = tenure
        self._algorithm = algorithm
        self._committer = committer
        self._statistics = statistics
        self._books = books
        self._intake = intake
        self._obedience = obedience
        self._over = False
        self._observed_steps = self._observed_lag = 0
        self._wanted_steps: float | None = None
        self._failed_updates = 0
        self._suspicious = False
        self._look_at_agents = 0.0
        self._oldest_refusal = 0.0
        self._log = StateLog(logger, client=tenure.keys.client)

    def run(self) -> None:
        """Work until asked to stop, or until another version than this algorithm's is the head.

        Raises:
            FencedError: A newer worker owns the client.
            CommitRefusedError: What is committed is not what this session started from.
            BrokerError: The broker cannot be used.
            NonFiniteError: Updates kept failing.
        """
        if self._committer.begun:
            self._suspicious = self._tenure.attempts.resume(self._committer.head)
        else:
            self._committer.publish(Settlement(), self._statistics, {})
        self._intake.start()
        try:
            while not self._tenure.stopping() and not self._over:
                self._step()
        finally:
            self._intake.stop()
        if self._books.unsettled and not self._over:
            self._settle_refused()

    def _step(self) -> None:
        if self._tenure.health.lost.is_set():
            raise FencedError(f"{self._tenure.keys.client}: a newer worker holds the lease")
        if self._obeys():
            return
        candidate = self._intake.take(TAKE_TIMEOUT_S)
        if candidate is not None:
            for accepted in self._books.accept(candidate, self._committer.head):
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

    def _obeys(self) -> bool:
        """Whether what people ask for leaves nothing else to do just now."""
        control = self._obedience.look()
        if control.request is not None:
            if self._books.unsettled:
                self._settle_refused()
            self._over = roll_back(
                self._tenure, self._algorithm, self._committer, self._statistics, control.request
            )
            self._committer.look_at_control()
            return True
        pause = self._obedience.pause(control)
        if pause is not None:
            # What comes in stays pending: taken in now, it would be dropped for its age.
            self._tenure.health.set_state("paused", str(pause))
            self._tenure.pause(TAKE_TIMEOUT_S)
        return pause is not None

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
        if not self._tenure.plan.on_policy:
            return False  # no age matters
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
        self._tenure.attempts.begin(self._committer.head)
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
        self._committer.publish(settlement, self._statistics, {**report.metrics, **timing})

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

    def _settle_refused(self) -> None:
        self._committer.settle(self._books.settle_refused())
