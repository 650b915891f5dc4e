"""Recording: which steps belong to which trajectory, and when a trajectory is complete.

The application's threads call it. Adding a step and setting a reward take no lock; ending, cutting
and late rewards take one for a moment, and encoding happens outside of it.
"""

import itertools
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.agent.handles import (
    CLOSED,
    OPEN,
    SETTLED,
    ActionHandle,
    Episode,
    Segment,
    TrajectoryHandle,
    settled_error,
)
from rl4sys_stream.agent.outbox import Outbox
from rl4sys_stream.agent.parcels import Sealed
from rl4sys_stream.agent.sealing import seal
from rl4sys_stream.clock import Clock
from rl4sys_stream.errors import TrajectoryStateError, WireError
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.telemetry import log_event
from rl4sys_stream.wire.format import End, TrajectoryCodec

__all__ = ["Recorder"]

logger = logging.getLogger("rl4sys_stream.agent")


@dataclass(frozen=True, slots=True, eq=False)
class _Last:
    """What the last step of a segment led to.

    Attributes:
        observation: `float32 [obs_dim]`; None if the episode terminated.
        mask: `bool [choices]`, what is allowed there; None if nobody said it.
    """

    observation: NDArray[np.float32] | None
    mask: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class _GivenUp:
    """One trajectory that never got its rewards."""

    episode: int
    steps: int
    missing: int


class Recorder:
    """The trajectories of one agent that are open or wait for rewards."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        obs_dim: int,
        actions: ActionFormat,
        max_steps: int,
        reward_timeout_s: float,
        reward_wait_steps: int = 1 << 18,
        codec: TrajectoryCodec = "columns",
        clock: Clock,
    ) -> None:
        """An empty recorder.

        Args:
            outbox: Takes the sealed trajectories, and keeps the books.
            obs_dim: Length of a flattened observation.
            actions: What an action is.
            max_steps: A longer trajectory is cut.
            reward_timeout_s: How long an ended trajectory waits for rewards.
            reward_wait_steps: Steps that may wait so in all; beyond it the oldest are given up.
            codec: How trajectories are encoded.
            clock: Times `reward_timeout_s`.
        """
        self._outbox = outbox
        self._obs_dim = obs_dim
        self._actions = actions
        self.max_steps = max_steps
        self._reward_timeout_s = reward_timeout_s
        self._reward_wait_steps = reward_wait_steps
        self._codec = codec
        self._clock = clock
        self._lock = threading.Lock()
        self._ordinals = itertools.count()
        # Whole-dict operations on these are atomic, so `begin` needs no lock.
        self._open: dict[Episode, tuple[weakref.ref[TrajectoryHandle], Segment]] = {}
        self._waiting: dict[Segment, None] = {}
        self._waiting_steps = 0
        self._put_off: deque[Sealed] = deque()
        # Held over "does it fit" and "put it off": the refresher and `close` both put these, and
        # one trajectory must not be put twice, nor put off when `close` has looked already.
        self._putting = threading.Lock()
        self.orphaned = False
        """This is a forked copy: the parent sends what is in it."""
        self.abandoned = 0
        """Open trajectories that were given up with nothing to send."""

    @property
    def open(self) -> int:
        """Trajectories that have not ended."""
        return len(self._open)

    def begin(self) -> TrajectoryHandle:
        """A new, empty trajectory."""
        handle = TrajectoryHandle(Episode(next(self._ordinals), self))
        self._open[handle.episode] = (weakref.ref(handle), handle.segment)
        return handle

    def add(self, handle: TrajectoryHandle, action: ActionHandle) -> None:
        """Record `action` as the next step, after an automatic cut if the trajectory is full.

        Raises:
            TrajectoryStateError: If the trajectory has ended, or the action is recorded already or
                was requested on another trajectory.
        """
        segment = handle.segment
        if handle.ended or action.episode is not handle.episode or action.segment is not None:
            raise _add_error(handle, action)
        if len(segment.steps) >= self.max_steps:
            segment = self._cut(handle, self._before(action))
        action.segment = segment
        segment.steps.append(action)

    def cut(
        self,
        handle: TrajectoryHandle,
        following: NDArray[np.float32],
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """Close what is recorded so far before the step on `following`; nothing if there is none.

        Args:
            handle: The trajectory.
            following: `float32 [obs_dim]`.
            mask: `bool [choices]`, what is allowed there; None if the application does not say.

        Raises:
            TrajectoryStateError: If the trajectory has ended.
        """
        if handle.ended:
            raise TrajectoryStateError(f"{handle!r} has ended; there is nothing to cut")
        if handle.segment.steps:
            self._cut(handle, _Last(following, mask))

    def _before(self, action: ActionHandle) -> _Last:
        """The end of a segment that `action` follows: without a mask it could be any."""
        mask = action.mask
        if mask is None and not self._actions.continuous:
            mask = np.ones(self._actions.choices, np.bool_)
        return _Last(action.observation, mask)

    def _cut(self, handle: TrajectoryHandle, last: _Last) -> Segment:
        """Close the recorded part; the episode goes on."""
        full = handle.segment
        handle.segment = fresh = Segment(handle.episode, full.offset + len(full.steps))
        self._open[handle.episode] = (weakref.ref(handle), fresh)
        self._close(full, End.CUT, last)
        return fresh

    def end(
        self,
        handle: TrajectoryHandle,
        action: ActionHandle | None,
        end: End,
        final_observation: NDArray[np.float32] | None,
        final_mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """End the episode; its last part is sealed as soon as it has all its rewards.

        Args:
            handle: The trajectory.
            action: Its last action, if the application says which.
            end: TERMINATED or TRUNCATED.
            final_observation: `float32 [obs_dim]`; None if terminated.
            final_mask: `bool [choices]`, what is allowed there; None if nobody says it.

        Raises:
            TrajectoryStateError: If it has ended before, holds no step, or `action` is not its
                last one.
        """
        segment = handle.segment
        if handle.ended:
            raise TrajectoryStateError(
                f"{handle!r} has ended already; request_for_action starts the next one"
            )
        if action is not None and action.segment is not segment:
            raise TrajectoryStateError(
                f"{action!r} is not recorded in {handle!r}; call add_to_trajectory before "
                "mark_end_of_trajectory"
            )
        if not segment.steps and segment.offset:
            if end is End.TERMINATED:
                raise TrajectoryStateError(
                    f"{handle!r} was cut after its last step, so the learner expects more to come; "
                    "cut only where the episode goes on"
                )
            handle.ended = True  # all of it was handed over, with what it led to
            self._open.pop(handle.episode, None)
            return
        if not segment.steps:
            raise TrajectoryStateError(
                f"{handle!r} is empty: add at least one action before its end, or drop the handle"
            )
        handle.ended = True
        self._open.pop(handle.episode, None)
        self._close(segment, end, _Last(final_observation, final_mask))

    def _close(self, segment: Segment, end: End, last: _Last) -> None:
        with self._lock:
            if segment.state != OPEN:  # closed by `close` or `sweep` at this instant
                return
            self._mark_closed(segment, end, last)
            ready = self._settle_if_complete(segment)
            given_up = self._give_up_oldest()
        if ready:
            self._hand_over(segment)
        self._tell(given_up)

    def _mark_closed(self, segment: Segment, end: End, last: _Last) -> None:
        segment.end = end
        segment.final_observation, segment.final_mask = last.observation, last.mask
        segment.closed_at = self._clock.monotonic()
        segment.latest = None
        segment.state = CLOSED
        self._waiting[segment] = None
        self._waiting_steps += len(segment.steps)
        if not self.orphaned:
            self._outbox.accept(len(segment.steps))

    def _settle_if_complete(self, segment: Segment) -> bool:
        """Under the lock: claim a closed segment for the one thread that seals it."""
        if segment.state != CLOSED or not segment.complete():
            return False
        self._settle(segment, "sealed: it had ended and had all its rewards")
        return True

    def _settle(self, segment: Segment, fate: str) -> None:
        segment.state, segment.fate = SETTLED, fate
        if segment in self._waiting:
            del self._waiting[segment]
            self._waiting_steps -= len(segment.steps)

    def reward_after_end(self, action: ActionHandle, segment: Segment, reward: float) -> None:
        """Set a reward of a segment that grows no more.

        Raises:
            TrajectoryStateError: If the segment is settled.
        """
        with self._lock:
            if segment.state == SETTLED:
                raise settled_error(segment)
            action.reward = reward
            ready = self._settle_if_complete(segment)
        if ready:
            self._hand_over(segment)

    def reward_at_end(self, segment: Segment) -> None:
        """Look again at a segment that was closed while one of its rewards was being set."""
        with self._lock:
            ready = self._settle_if_complete(segment)
        if ready:
            self._hand_over(segment)

    def _hand_over(self, segment: Segment, *, patient: bool = True) -> None:
        if not self.orphaned:
            try:
                sealed = seal(
                    segment,
                    obs_dim=self._obs_dim,
                    actions=self._actions,
                    wall_ms=self._clock.wall_ms(),
                    codec=self._codec,
                )
            except WireError as error:
                # The inputs were checked when they came in, so this is a fault of ours; the
                # application is not to suffer for it.
                self._outbox.quarantine()
                log_event(logger, logging.ERROR, "agent.seal_failed", error=error)
            else:
                self._put(sealed, patient=patient)
        segment.steps = []

    def _put(self, sealed: Sealed, *, patient: bool) -> None:
        if patient:
            self._outbox.put(sealed)
            return
        with self._putting:
            if not self._outbox.put(sealed, patient=False):
                self._put_off.append(sealed)

    def sweep(self) -> None:
        """Give up on rewards that are overdue, and cut trajectories whose handle is gone.

        Never waits, whatever the drop policy: what does not fit into the outbox is put off.
        """
        if not self._put_what_was_put_off():
            return
        deadline = self._clock.monotonic() - self._reward_timeout_s
        with self._lock:
            ready = [
                segment for segment in list(self._waiting) if self._settle_if_complete(segment)
            ]
            overdue = [segment for segment in self._waiting if segment.closed_at <= deadline]
            given_up = self._quarantine(
                overdue, f"given up {self._reward_timeout_s:g} s after its end"
            )
        for segment in ready:
            self._hand_over(segment, patient=False)
        self._tell(given_up)
        self._cut_short(lambda handle: handle is None, patient=False)

    def _put_what_was_put_off(self) -> bool:
        with self._putting:
            while self._put_off:
                if not self._outbox.put(self._put_off[0], patient=False):
                    return False
                self._put_off.popleft()
        return True

    def _give_up_oldest(self) -> list[_GivenUp]:
        """Under the lock: keep the steps that wait for rewards within their limit."""
        given_up: list[_GivenUp] = []
        while self._waiting_steps > self._reward_wait_steps and len(self._waiting) > 1:
            oldest = next(iter(self._waiting))
            given_up += self._quarantine([oldest], "given up: too many steps waited for rewards")
        return given_up

    def _quarantine(self, segments: Iterable[Segment], fate: str) -> list[_GivenUp]:
        """Under the lock: count them out. Whoever holds it tells the log afterwards."""
        found = []
        for segment in segments:
            missing = sum(step.reward is None for step in segment.steps)
            found.append(_GivenUp(segment.episode.ordinal, len(segment.steps), missing))
            self._settle(segment, fate)
            self._outbox.quarantine()
            segment.steps = []
        return found

    def _tell(self, given_up: Sequence[_GivenUp]) -> None:
        """One line for all of them: a log may be slow, and nobody reads thousands."""
        if given_up:
            log_event(
                logger,
                logging.WARNING,
                "agent.rewards_missing",
                trajectories=len(given_up),
                first_episode=given_up[0].episode,
                last_episode=given_up[-1].episode,
                steps=sum(one.steps for one in given_up),
                missing=sum(one.missing for one in given_up),
            )

    def _cut_short(
        self, wanted: Callable[[TrajectoryHandle | None], bool], *, patient: bool
    ) -> None:
        """Cut open trajectories where their rewards and a following observation allow it."""
        ready = []
        for episode, (reference, segment) in self._open.copy().items():
            handle = reference()
            if not wanted(handle):
                continue
            if handle is not None:
                handle.ended = True
            with self._lock:
                if self._open.pop(episode, None) is None or segment.state != OPEN:
                    continue
                steps, following = _longest_prefix(segment)
                if following is None:
                    self.abandoned += bool(segment.steps)
                    self._settle(segment, "given up while it was open: nothing could be sent")
                    segment.steps = []
                    continue
                segment.steps = steps
                self._mark_closed(segment, End.CUT, self._before(following))
                if self._settle_if_complete(segment):
                    ready.append(segment)
        for segment in ready:
            self._hand_over(segment, patient=patient)

    def close(self) -> None:
        """Cut and hand over what is complete, give up on the rest. Nothing can follow.

        The outbox blocks no longer by now.
        """
        self._put_what_was_put_off()
        self._cut_short(lambda _: True, patient=True)
        with self._lock:
            given_up = self._quarantine(list(self._waiting), "given up when the agent was closed")
        self._tell(given_up)

    def orphan(self) -> None:
        """After a fork, in the child: the parent sends these trajectories, this copy never does."""
        self._lock = threading.Lock()
        self._putting = threading.Lock()
        self._put_off.clear()
        self.orphaned = True


def _longest_prefix(segment: Segment) -> tuple[list[ActionHandle], ActionHandle | None]:
    """The steps up to the first missing reward, and the action that follows them; None if none do.

    After the last recorded step that is the next action that was requested; if none was, the last
    step itself has to serve as what follows those before it.
    """
    steps, latest = segment.steps, segment.latest
    if not segment.complete():
        count = segment.rewarded
    elif latest is not None and latest.segment is None:
        return steps, latest if steps else None
    else:
        count = max(len(steps) - 1, 0)
    return steps[:count], steps[count] if count else None


def _add_error(handle: TrajectoryHandle, action: ActionHandle) -> TrajectoryStateError:
    if action.episode is None:
        return TrajectoryStateError("an evaluation action is never recorded; do not add it")
    if handle.ended:
        return TrajectoryStateError(
            f"{handle!r} has ended; request_for_action starts the next one, and adds to that"
        )
    if action.episode is not handle.episode:
        return TrajectoryStateError(
            f"{action!r} was requested on episode {action.episode.ordinal}, not on {handle!r}"
        )
    return TrajectoryStateError(f"{action!r} is recorded already; add each action once")
