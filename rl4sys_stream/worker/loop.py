"""The worker process: wait for its client, hold the lease, run sessions until asked to stop.

Workers wait for ever and loud: for the registration, for the lease, for a broker that is away.
What stops one for good is an order to stop, a definition that cannot work, or training that keeps
failing.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from rl4sys_stream.algorithms.base import Algorithm, PolicyExport
from rl4sys_stream.algorithms.registry import make_algorithm
from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.head import Counts, Head, read_head
from rl4sys_stream.broker.key_types import require_key_types
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.lease import Lease
from rl4sys_stream.broker.ledger import LedgerRecord, read_ledgers
from rl4sys_stream.broker.past import read_past
from rl4sys_stream.broker.retire import retire_agents
from rl4sys_stream.broker.server_facts import read_identity
from rl4sys_stream.broker.stream import TrajectoryStream
from rl4sys_stream.clock import Clock, SystemClock
from rl4sys_stream.config import ClientConfig
from rl4sys_stream.errors import (
    BrokerError,
    BrokerUnavailableError,
    CommitRefusedError,
    DigestError,
    LedgersLostError,
    StreamError,
    UnknownVersionError,
)
from rl4sys_stream.model_store.subscriber import ModelSubscriber
from rl4sys_stream.telemetry import StateLog, log_event
from rl4sys_stream.worker.checkpoint import read_checkpoint
from rl4sys_stream.worker.committer import Committer
from rl4sys_stream.worker.gate import Evidence
from rl4sys_stream.worker.health import Health, report_state
from rl4sys_stream.worker.intake import Intake
from rl4sys_stream.worker.isolation import Attempts
from rl4sys_stream.worker.obedience import Obedience
from rl4sys_stream.worker.plan import WorkerPlan, make_plan, record_plan
from rl4sys_stream.worker.retained import RetainedTail
from rl4sys_stream.worker.session import Session
from rl4sys_stream.worker.settlement import Books
from rl4sys_stream.worker.statistics import RolloutStatistics
from rl4sys_stream.worker.tenure import Tenure

__all__ = ["Worker"]

logger = logging.getLogger("rl4sys_stream.worker")

WAIT_S = 0.5
"""Between two looks at something that is waited for."""
MAX_WAITING_BYTES = 256 << 20
"""Entries read ahead of the learner, in bytes."""


class Worker:
    """The worker of one client. `run` is called once; `stop` from a signal handler or thread."""

    def __init__(
        self,
        address: BrokerAddress,
        client: str,
        config: ClientConfig | None,
        *,
        clock: Clock | None = None,
        algorithm_factory: Callable[..., Algorithm] = make_algorithm,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            address: Of the broker.
            client: Whose worker this is.
            config: The client's definition; None takes the parameters of the registration.
            clock: Time.
            algorithm_factory: Makes the learner; called as `make_algorithm` is.
        """
        self._keys = ClientKeys(client)
        self._address = address
        self._config = config
        self._clock = clock or SystemClock()
        self._make_algorithm = algorithm_factory
        self._broker = Broker(address, name=f"rl4sys-worker-{client}")
        self._stop = threading.Event()
        self._registered = False
        self._unreleased: Lease | None = None
        self._process = secrets.token_hex(8)
        self._log = StateLog(logger, client=client)

    def stop(self) -> None:
        """Finish what is being computed, commit it, release the lease, return from `run`."""
        self._stop.set()

    def run(self) -> None:
        """Train until `stop`.

        Raises:
            ConfigError: The definition cannot work or contradicts the registration.
            NonFiniteError: Updates kept failing.
            UnknownVersionError: The head's checkpoint is gone.
            KeyTypeError: Something else stands in the place of one of its keys.
            LedgersLostError: Watermarks are gone that the head counts on.
        """
        try:
            while not self._stop.is_set():
                try:
                    self._tenure()
                except CommitRefusedError as error:
                    # Not ours any more, or not what we started from: begin again at the head.
                    self._log.set("worker.commit", "refused", reason=error.reason, error=error)
                except BrokerError as error:
                    self._log.set("worker.broker", "down", error=error)
                    self._pause(WAIT_S)
        except StreamError as error:
            self._report("failed", detail=f"{type(error).__name__}: {error}")
            raise
        else:
            self._report("stopped")
            log_event(logger, logging.INFO, "worker.stopped", client=self._keys.client)
        finally:
            self._broker.close()

    def _pause(self, seconds: float) -> None:
        self._clock.wait(self._stop, seconds)

    def _report(self, state: str, detail: str = "") -> None:
        try:
            report_state(self._broker, self._keys, state, self._clock, detail=detail)
        except BrokerError as error:
            log_event(logger, logging.WARNING, "worker.report_failed", state=state, error=error)

    def _tenure(self) -> None:
        # What a broker refuses on account of a key sounds like a broker that will come back.
        require_key_types(self._broker, self._keys)
        plan = self._wait_for_plan()
        if plan is None:
            return
        lease = Lease(self._broker, self._keys, ttl_s=plan.settings.lease_s)
        if not self._wait_for_lease(lease):
            return
        try:
            # Read again under the fence: a reset may have begun a new lineage in between.
            plan = self._make_plan()
            if plan is not None:
                record_plan(self._broker, self._keys, plan, clock=self._clock)
                self._hold(plan, lease)
        finally:
            self._release(lease)

    def _hold(self, plan: WorkerPlan, lease: Lease) -> None:
        health_broker = Broker(self._address, name=f"rl4sys-health-{self._keys.client}")
        health = Health(
            health_broker,
            self._keys,
            lease,
            renew_s=plan.settings.lease_renew_s,
            clock=self._clock,
        )
        health.start()
        try:
            self._session(plan, lease.token, health)
        finally:
            # First stop renewing, then release: the other way round a renewal could bring the
            # lease back after the next worker saw it free.
            health.stop()
            health_broker.close()

    def _release(self, lease: Lease) -> None:
        try:
            lease.release()
        except BrokerError as error:
            # Tried again before the next one is asked for: else this worker would wait for itself.
            self._unreleased = lease
            log_event(logger, logging.INFO, "worker.lease_not_released", error=error)

    def _make_plan(self) -> WorkerPlan | None:
        # A client that was deleted under its worker, holding the lease or waiting for it, is not
        # brought back by the worker's own definition; an agent that registers it again is another
        # matter.
        plan = make_plan(
            self._broker,
            self._keys,
            self._config,
            clock=self._clock,
            may_register=not self._registered,
        )
        self._registered |= plan is not None
        return plan

    def _wait_for_plan(self) -> WorkerPlan | None:
        while not self._stop.is_set():
            plan = self._make_plan()
            self._log.set("worker.broker", "up", level=logging.INFO)
            if plan is not None:
                self._over("worker.client", "not_registered", now="registered")
                return plan
            if self._log.set("worker.client", "not_registered", broker=self._address.public_url):
                self._report("waiting", detail="the client is not registered")
            self._pause(WAIT_S)
        return None

    def _wait_for_lease(self, lease: Lease) -> bool:
        while not self._stop.is_set():
            if self._unreleased is not None:
                self._unreleased.release()
                self._unreleased = None
            if lease.acquire():
                self._over("worker.lease", "held_by_another", now="taken")
                return True
            self._log.set("worker.lease", "held_by_another", level=logging.INFO)
            self._pause(WAIT_S)
        return False

    def _over(self, name: str, waiting: str, *, now: str) -> None:
        """Say that a wait has ended, if there was one."""
        waited = self._log.get(name) == waiting
        self._log.set(name, now, level=logging.INFO if waited else logging.DEBUG)

    def _session(self, plan: WorkerPlan, token: str, health: Health) -> None:
        torch.set_num_threads(plan.settings.torch_threads)
        algorithm = self._make_algorithm(plan.spec, plan.parameters, seed=plan.seed)
        # First: what is read after this is at least as new as what this process knows.
        server = read_identity(self._broker)
        head = read_head(self._broker, self._keys)
        statistics = RolloutStatistics()
        if head is not None:
            statistics = self._continue(algorithm, head)
        log_event(
            logger,
            logging.INFO,
            "worker.session",
            client=self._keys.client,
            token=token,
            lineage=plan.lineage,
            version=head.version if head else 0,
        )
        # The blocking reads get a broker of their own, with a timeout above the longest block.
        reader = Broker(
            self._address,
            timeout_s=plan.settings.read_block_s + 5,
            name=f"rl4sys-intake-{self._keys.client}",
        )
        stream = TrajectoryStream(reader, self._keys)
        stream.ensure_group()
        self._retire_agents(plan, token)
        intake = _make_intake(stream, plan)
        with self._belonging_to(head):
            ledgers = self._read_ledgers(head)
        evidence = Evidence()
        gated = plan.settings.promotion_margin is not None
        books = Books(
            ledgers,
            head.counts if head else Counts(),
            lineage_epoch=plan.lineage_epoch,
            max_policy_lag=plan.settings.max_policy_lag if plan.on_policy else None,
            rescan=intake.rescan,
            witness=evidence.witness if gated else None,
        )
        tenure = Tenure(
            broker=self._broker,
            keys=self._keys,
            plan=plan,
            token=token,
            server=server,
            clock=self._clock,
            health=health,
            stopping=self._stop.is_set,
            attempts=Attempts(self._broker, self._keys, self._process),
            pause=self._pause,
        )
        tail = self._retained_tail(plan, algorithm, head, stream, books)
        committer = Committer(tenure, algorithm, head, intake, tail)
        obedience = Obedience(tenure, committer, evidence)
        try:
            Session(tenure, algorithm, committer, statistics, books, intake, obedience).run()
        finally:
            reader.close()

    def _continue(self, algorithm: Algorithm, head: Head) -> RolloutStatistics:
        """Put `algorithm` into the state of `head`; the statistics that belong to it."""
        if not head.checkpoint:  # it was imported, as a policy alone
            with self._belonging_to(head):
                model = ModelSubscriber(self._broker, self._keys).read(head.version)
            algorithm.load_policy(PolicyExport(model.weights, model.extras))
            return RolloutStatistics()
        with self._belonging_to(head):
            state, statistics = read_checkpoint(self._broker, head.checkpoint)
        algorithm.load_state(state)
        return statistics

    def _retained_tail(
        self,
        plan: WorkerPlan,
        algorithm: Algorithm,
        head: Head | None,
        stream: TrajectoryStream,
        books: Books,
    ) -> RetainedTail:
        """What a replay buffer has kept in the stream; the algorithm gets it back."""
        settings = plan.settings
        tail = RetainedTail(
            self._keys.client,
            max_bytes=settings.retained_bytes,
            max_deleted=settings.max_commit_entries,
        )
        if plan.on_policy and not stream.backlog().acknowledged:
            return tail  # as it should be; looking closer would read the whole backlog
        trajectories = tail.read(stream, plan.trajectory_spec, books.is_settled)
        if head is None or plan.on_policy:
            return tail  # nobody's, or another training history's: the first commits delete them
        # They may not be through with that: no more than this history has taken in is its own.
        own = min(len(trajectories), head.counts.trained)
        algorithm.replay(trajectories[len(trajectories) - own :])
        log_event(
            logger,
            logging.INFO if len(tail) >= head.retained else logging.WARNING,
            "worker.replay_buffer_filled",
            client=self._keys.client,
            trajectories=own,
            retained=head.retained,
        )
        return tail

    @contextmanager
    def _belonging_to(self, head: Head | None) -> Iterator[None]:
        """Read what belongs to `head`; what is gone with a head that was replaced is no damage.

        A reset, a newer worker, a broker that went back in time: all of them may come between.
        """
        try:
            yield
        except (UnknownVersionError, DigestError, LedgersLostError) as error:
            if read_head(self._broker, self._keys) == head:
                raise
            raise CommitRefusedError(
                f"{self._keys.client}: another head has come while what belongs to the last one "
                f"was read ({error})",
                reason="STALE",
            ) from error

    def _read_ledgers(self, head: Head | None) -> Mapping[str, LedgerRecord]:
        """The watermarks, if all are there that the head counts on.

        One commit writes both, so that anything less was deleted since, and an agent that still
        offers those numbers would have them trained a second time.
        """
        ledgers = read_ledgers(self._broker, self._keys)
        trained = sum(ledger.trained for ledger in ledgers.values())
        trained += read_past(self._broker, self._keys).trained
        if head is not None and head.counts.trained > trained:
            raise LedgersLostError(
                f"{self._keys.client}: version {head.version} was trained on "
                f"{head.counts.trained} trajectories, and {self._keys.seq} and {self._keys.past} "
                f"know of {trained}: the watermarks of the others were deleted, and what agents "
                "offer again would be trained twice; restore them from a backup, or run "
                f"`rl4sys-stream clients reset {self._keys.client}` to begin anew"
            )
        return ledgers

    def _retire_agents(self, plan: WorkerPlan, token: str) -> None:
        client = self._keys.client
        try:
            retired = retire_agents(
                self._broker,
                self._keys,
                token=token,
                wall_ms=self._clock.wall_ms(),
                after_ms=int(plan.settings.forget_agents_s * 1000),
            )
        except BrokerUnavailableError:
            raise
        except BrokerError as error:
            # Sums that somebody has damaged are no reason not to train.
            log_event(
                logger, logging.WARNING, "worker.agents_not_retired", client=client, error=error
            )
            return
        if retired:
            log_event(logger, logging.INFO, "worker.agents_retired", client=client, count=retired)


def _make_intake(stream: TrajectoryStream, plan: WorkerPlan) -> Intake:
    settings = plan.settings
    return Intake(
        stream,
        plan.trajectory_spec,
        max_entries=2 * settings.max_commit_entries,
        max_bytes=MAX_WAITING_BYTES,
        read_count=settings.read_entries,
        block_ms=int(settings.read_block_s * 1000),
    )
