"""`StreamAgent`: the object that an application embeds at its decision points."""

import logging
import os
import random
import threading
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self, SupportsFloat

from numpy.typing import ArrayLike

from rl4sys_stream.agent.decisions import Decider, Fallback
from rl4sys_stream.agent.handles import ActionHandle, TrajectoryHandle
from rl4sys_stream.agent.inputs import as_mask, foreign, no_handles, no_trajectory
from rl4sys_stream.agent.lifecycle import watch
from rl4sys_stream.agent.runtime import Dimensions, Runtime
from rl4sys_stream.agent.settlement import Settlement, wait_for_learner
from rl4sys_stream.agent.setup import Setup, make_setup
from rl4sys_stream.agent.slot import PolicySlot
from rl4sys_stream.agent.status import AgentStatus
from rl4sys_stream.clock import Clock, SystemClock
from rl4sys_stream.errors import ConfigError, SpoolError, UsageError
from rl4sys_stream.policy.policy import UniformPolicy
from rl4sys_stream.spaces import Observation, flat_dim, make_flattener
from rl4sys_stream.telemetry import log_event
from rl4sys_stream.wire.trajectory import End

__all__ = ["Fallback", "StreamAgent"]

logger = logging.getLogger("rl4sys_stream.agent")

RUNNING: Final = 0
ASLEEP: Final = 1
"""In a forked child before its first call: no thread runs yet."""
CLOSED: Final = 2


class StreamAgent:
    """Acts with the newest policy, records what happened, and sends it in the background.

        with StreamAgent("luna_conf.json", client_id="lunar_lander") as agent:
            traj = None
            while running:
                traj, action = agent.request_for_action(traj, obs)
                obs, reward, terminated, truncated, _ = env.step(action.action)
                agent.add_to_trajectory(traj, action)
                action.update_reward(reward)
                if terminated or truncated:
                    agent.mark_end_of_trajectory(traj, action, truncated, final_obs=obs)

    Broker, network and worker never make a call fail, and never make it wait unless `drop_policy`
    is "block"; see `status()` for what became of everything. Wrong calls raise `UsageError`.

    All methods may be called from any thread; one trajectory belongs to one thread at a time,
    except for its rewards. After a fork the child goes on as a new agent with an empty queue, from
    its first call on; trajectories that were open stay the parent's, and the child's next
    `request_for_action` begins another one. Call `close()` in children that end by `os._exit`, as
    those of multiprocessing do.
    """

    def __init__(
        self,
        conf_path: str | os.PathLike[str] | None = None,
        client_id: str | None = None,
        redis_url: str | None = None,
        observation_space: object = None,
        action_space: object = None,
        *,
        fallback: Fallback | None = None,
        seed: int | None = None,
        overrides: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Start acting; with both spaces known, no network is touched before this returns.

        Args:
            conf_path: JSON configuration; None for none. Arguments go before it.
            client_id: Name of the client.
            redis_url: The broker; default redis://localhost:6379.
            observation_space: A space: ours, as JSON or Gymnasium's. If neither this nor the
                configuration says it, the registered spec does: one short look-up.
            action_space: Likewise; no Dict and no Tuple.
            fallback: Decides until the first model arrives, and where a model takes longer than
                `agent.deadline_s`. Without it actions are uniform at first over the allowed ones.
                An on-policy learner does not train on the fallback's decisions, because their
                probabilities are unknown.
            seed: Of the sampling of actions; None: the configuration's, else fresh.
            overrides: Any other setting by its dotted path: `{"agent.queue_entries": 100}`.
            environ: Instead of `os.environ`.
            clock: Instead of the system's.

        Raises:
            ConfigError: If a setting is unknown, mistyped, impossible, or missing everywhere, or
                there is a deadline without a fallback.
            SpoolError: If `agent.spool_dir` cannot be used.
        """
        overrides = dict(overrides or {})
        if seed is not None:
            overrides["agent.seed"] = seed
        setup = make_setup(
            conf_path,
            client_id=client_id,
            redis_url=redis_url,
            observation_space=observation_space,
            action_space=action_space,
            overrides=overrides,
            environ=os.environ if environ is None else environ,
        )
        if setup.config.agent.deadline_s is not None and fallback is None:
            raise ConfigError(
                "what a model decides too late the fallback decides instead: pass fallback=, or "
                "leave deadline_s out",
                path="agent.deadline_s",
            )
        self._setup: Setup = setup
        self._flatten = make_flattener(setup.observation_space)
        self._fallback = fallback
        self._clock: Clock = clock or SystemClock()
        self._state = ASLEEP
        self._forked = False
        self._state_lock = threading.Lock()
        self._random = random.Random(setup.config.agent.seed).random  # noqa: S311 - sampling
        self._begin(PolicySlot(UniformPolicy(setup.actions)))
        self._wake()
        watch(self)

    def _begin(self, slot: PolicySlot) -> None:
        """Become a new agent, with an id and an outbox of its own; no thread runs yet."""
        setup = self._setup
        self._runtime = Runtime(
            setup.config,
            address=setup.address,
            keys=setup.keys,
            dimensions=Dimensions(flat_dim(setup.observation_space), setup.actions),
            slot=slot,
            clock=self._clock,
        )
        self._slot = slot
        self._recorder = self._runtime.recorder
        self._decider = Decider(
            slot,
            self._runtime.tally,
            observation_space=setup.observation_space,
            actions=setup.actions,
            no_prior=setup.no_prior,
            fallback=self._fallback,
            deadline_s=setup.config.agent.deadline_s,
            now=self._clock.monotonic,
            uniform=self._random,
        )
        # If the application drops the agent without closing it, its threads must not go on.
        weakref.finalize(self, self._runtime.abandon).atexit = False

    def _wake(self) -> None:
        with self._state_lock:
            if self._state == CLOSED:
                raise UsageError("the agent is closed; make another one")
            if self._state == ASLEEP:
                self._start()
                self._state = RUNNING

    def _start(self) -> None:
        try:
            self._runtime.start()
        except SpoolError as error:
            if not self._forked:
                raise
            # The application is in the middle of a decision: it goes on without a spool.
            log_event(logger, logging.ERROR, "agent.spool_refused", error=error)
            self._runtime.start()

    def start_over_after_fork(self) -> None:
        """In a forked child: leave everything to the parent and be a new agent from now on."""
        old = self._slot
        self._forked = True
        self._runtime.orphan()
        self._state_lock = threading.Lock()
        slot = PolicySlot(old.policy)
        if old.model is not None:
            slot.model, slot.installed_at = old.model, old.installed_at
            slot.arrived.set()
        seed = self._setup.config.agent.seed
        # Otherwise parent and child would draw the same numbers.
        fresh = None if seed is None else f"{seed}/{os.getpid()}"
        self._random = random.Random(fresh).random  # noqa: S311 - sampling
        self._begin(slot)
        if self._state == RUNNING:
            self._state = ASLEEP

    # -- the decision path: no lock, no system call ---------------------------------------------

    def request_for_action(
        self,
        traj: TrajectoryHandle | None = None,
        obs: Observation | None = None,
        mask: ArrayLike | None = None,
        prior: ArrayLike | None = None,
    ) -> tuple[TrajectoryHandle, ActionHandle]:
        """Choose an action with the newest policy. It is recorded by `add_to_trajectory` only.

        Args:
            traj: The trajectory to continue; None or an ended one begins a new one.
            obs: An element of the observation space: anything array-like; it is copied.
            mask: Allowed actions, `[choices]` of bool or 0 and 1; None allows all.
            prior: Logits that are added to the network's, `[choices]` within ±1000: what the
                application would do by itself. Before the first model chance draws by them.

        Returns:
            The trajectory to go on with, and the action.

        Raises:
            ObservationError: If the observation has the wrong shape, or is not finite.
            MaskError: If the mask has the wrong shape, or forbids everything.
            PriorError: If the prior has the wrong shape, is not finite, or the client takes none:
                its algorithm has no logits.
            TrajectoryStateError: If the trajectory is another agent's.
            UsageError: If the agent is closed, or the fallback decides for no allowed action.
        """
        if self._state:
            self._wake()
        if traj is not None and traj.__class__ is not TrajectoryHandle:
            raise no_trajectory(traj)
        question = self._decider.ask(obs, mask, prior)
        if traj is None:
            traj = self._recorder.begin()
        elif traj.ended or traj.episode.recorder is not self._recorder:
            traj = self._next_trajectory(traj)
        action = self._decider.decide(question, traj.episode)
        traj.segment.latest = action
        return traj, action

    def _next_trajectory(self, traj: TrajectoryHandle) -> TrajectoryHandle:
        recorder = traj.episode.recorder
        if recorder is not self._recorder and not recorder.orphaned and not traj.ended:
            raise foreign(traj)
        return self._recorder.begin()

    def add_to_trajectory(self, traj: TrajectoryHandle, action: ActionHandle) -> None:
        """Record `action` as the next step of `traj`.

        A trajectory of `max_trajectory_steps` is cut here: its steps are sent as one trajectory
        that bootstraps from this action's observation, and the same handle goes on.

        Raises:
            TrajectoryStateError: If the trajectory has ended, or the action is recorded already,
                was requested on another trajectory, or is an evaluation action.
        """
        if traj.__class__ is not TrajectoryHandle or action.__class__ is not ActionHandle:
            raise no_handles("add_to_trajectory", traj, action)
        recorder = traj.episode.recorder
        if recorder is not self._recorder and not recorder.orphaned:
            raise foreign(traj)
        recorder.add(traj, action)

    def update_action_reward(self, action: ActionHandle, reward: SupportsFloat) -> None:
        """The same as `action.update_reward(reward)`."""
        if action.__class__ is not ActionHandle:
            raise UsageError(f"the first argument is an action, not {type(action).__name__}")
        action.update_reward(reward)

    # -- ends -------------------------------------------------------------------------------------

    def mark_end_of_trajectory(
        self,
        traj: TrajectoryHandle,
        action: ActionHandle | None = None,
        truncated: bool = False,
        final_obs: Observation | None = None,
        final_mask: ArrayLike | None = None,
    ) -> None:
        """End the episode. It is sent as soon as all its rewards are set.

        Args:
            traj: The trajectory.
            action: Its last action, if given: then it must be recorded in it.
            truncated: The episode was stopped from outside (a time limit): its end has a value,
                which is estimated from `final_obs`. False: it reached an end of its own.
            final_obs: What the last action led to; needed if truncated, else checked and not sent.
            final_mask: Actions allowed there, if masks are used; read if truncated only. Without it
                DQN leaves the last step of a trajectory with masks out.

        Raises:
            TrajectoryStateError: If the trajectory has ended before or is empty, `action` is not
                recorded in it, or it terminates right after a cut, which said that it goes on.
            ObservationError: If `final_obs` has the wrong shape, or is not finite.
            MaskError: If truncated, and `final_mask` has the wrong shape, or forbids everything.
            UsageError: If truncated without `final_obs`.
        """
        known = action is None or action.__class__ is ActionHandle
        if traj.__class__ is not TrajectoryHandle or not known:
            raise no_handles("mark_end_of_trajectory", traj, action)
        recorder = traj.episode.recorder
        if recorder is not self._recorder and not recorder.orphaned:
            raise foreign(traj)
        final = None if final_obs is None else self._flatten(final_obs)
        if not truncated:
            recorder.end(traj, action, End.TERMINATED, None)
        elif final is None:
            raise UsageError(
                "a truncated trajectory needs final_obs=, the observation that the last action "
                "led to: the learner estimates from it what would have followed"
            )
        else:
            allowed = None if final_mask is None else as_mask(final_mask, self._setup.actions)
            recorder.end(traj, action, End.TRUNCATED, final, allowed)

    def cut_trajectory(
        self, traj: TrajectoryHandle, next_obs: Observation, next_mask: ArrayLike | None = None
    ) -> None:
        """Send what is recorded so far as one trajectory; the same handle goes on.

        What full trajectories do by themselves (`max_trajectory_steps`), now: for tasks that never
        end, or a simulator that is about to wait for its learner. It costs the learner nothing but
        an estimate of what follows. Without a recorded step nothing happens.

        Args:
            traj: The trajectory.
            next_obs: What the last recorded action led to.
            next_mask: Actions allowed there, if masks are used: see `mark_end_of_trajectory`.

        Raises:
            TrajectoryStateError: If the trajectory has ended.
            ObservationError: If `next_obs` has the wrong shape, or is not finite.
            MaskError: If `next_mask` has the wrong shape, or forbids everything.
        """
        if traj.__class__ is not TrajectoryHandle:
            raise no_trajectory(traj)
        recorder = traj.episode.recorder
        if recorder is not self._recorder and not recorder.orphaned:
            raise foreign(traj)
        allowed = None if next_mask is None else as_mask(next_mask, self._setup.actions)
        recorder.cut(traj, self._flatten(next_obs), allowed)

    def evaluate(
        self,
        obs: Observation,
        mask: ArrayLike | None = None,
        prior: ArrayLike | None = None,
        *,
        deterministic: bool = True,
    ) -> ActionHandle:
        """An action that belongs to no trajectory and is never recorded or sent.

        Args:
            obs: As for `request_for_action`.
            mask: Likewise.
            prior: Likewise.
            deterministic: The most probable action; False samples one. Before the first model
                either way the fallback decides, or chance.

        Raises:
            ObservationError: See `request_for_action`.
            MaskError: Likewise.
            PriorError: Likewise.
            UsageError: Likewise.
        """
        if self._state:
            self._wake()
        question = self._decider.ask(obs, mask, prior)
        decider = self._decider
        return decider.choose(question) if deterministic else decider.draw(question, None)

    # -- looking and leaving ----------------------------------------------------------------------

    @property
    def client_id(self) -> str:
        """Name of the client."""
        return self._setup.keys.client

    @property
    def agent_id(self) -> str:
        """Name of this running agent; another one after a fork."""
        return self._runtime.agent_id

    @property
    def version(self) -> int:
        """Model version that acts; 0 before any."""
        return self._slot.policy.version

    def status(self) -> AgentStatus:
        """What became of everything, and how the broker is. Asks nobody."""
        return self._runtime.status()

    def wait_for_model(self, timeout_s: float) -> bool:
        """Wait for the first model; False if none came within `timeout_s`."""
        if self._state:
            self._wake()
        return self._slot.arrived.wait(timeout_s)

    def settlement(self) -> Settlement:
        """What the worker has settled of this agent's steps, as it last heard. Asks nobody.

        For simulators, which can wait for their learner. It is followed from the first call on.
        """
        return self._runtime.settlement()

    def wait_for_settlement(self, known: Settlement, timeout_s: float) -> bool:
        """Wait until the worker has settled something else than `known` says.

        The model of that commit acts by then, if it came with one.

        Returns:
            False if there was no such news within `timeout_s`.
        """
        return self._runtime.session.news.wait(known.settled, timeout_s)

    def wait_for_learner(self, timeout_s: float) -> bool:
        """Wait until no newer version of this agent's steps is on its way; for simulators.

        That is, until less than one update's steps of it (a rollout on-policy, `update_steps`
        off-policy) are unsettled. The model of the last update acts by then. Only trajectories that
        have ended or were cut count, with all their rewards.

        Args:
            timeout_s: Longest silence: so long a worker may take from one settlement to the next.

        Returns:
            False if nothing was settled for so long; calling again goes on waiting.
        """
        news = self._runtime.session.news
        return wait_for_learner(self._runtime.settlement, news.wait, timeout_s)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until the broker has answered all that is sealed by now.

        Returns:
            False if that was not within `timeout_s`; it is still being tried then.
        """
        return self._runtime.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what can be sent, and end the agent. Closing again does nothing.

        Open trajectories are cut after their last complete step and sent; ended ones whose rewards
        are missing are quarantined. What the broker has not answered in time is lost, and logged.
        Without this call the end of the process closes the agent, with less time.

        Args:
            timeout_s: Longest wait for the broker.
        """
        with self._state_lock:
            if self._state == CLOSED:
                return
            self._state = CLOSED
        delivered = self._runtime.close(timeout_s)
        status = self._runtime.status()
        log_event(
            logger,
            logging.INFO if delivered else logging.WARNING,
            "agent.closed",
            client=self.client_id,
            agent=self.agent_id,
            accepted=status.accepted,
            dropped=status.dropped,
            quarantined=status.quarantined,
            undelivered=status.queued + status.unanswered,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
