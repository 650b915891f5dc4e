"""What the application holds: one object an action, one an episode. The hot path lives here.

References run one way, so that a handle which the application drops is freed at once:

    TrajectoryHandle ──► Segment ──► ActionHandle     (until the segment is sealed)
           └──► Episode ◄───────────────┘
"""

import operator
from typing import TYPE_CHECKING, Any, Final, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import TrajectoryStateError, UsageError
from rl4sys_stream.spaces.actions import RawAction
from rl4sys_stream.wire.trajectory import End

if TYPE_CHECKING:
    from rl4sys_stream.agent.recorder import Recorder

__all__ = ["CLOSED", "OPEN", "SETTLED", "ActionHandle", "Episode", "Segment", "TrajectoryHandle"]

OPEN: Final = 0
"""The segment grows; rewards may be set and overwritten without a lock."""
CLOSED: Final = 1
"""It grows no more and waits for its rewards."""
SETTLED: Final = 2
"""It was sealed, quarantined or abandoned; nothing about it can change."""

MAX_REWARD: Final = float(np.finfo(np.float32).max)
"""Rewards travel as float32."""


class Episode:
    """What an episode's handle, segments and actions have in common.

    Attributes:
        ordinal: Within the agent, from 0.
        recorder: Who records it.
    """

    __slots__ = ("ordinal", "recorder")

    def __init__(self, ordinal: int, recorder: "Recorder") -> None:
        self.ordinal = ordinal
        self.recorder = recorder


class Segment:
    """The steps between two cuts of an episode: it becomes one trajectory.

    Attributes:
        episode: Whose steps these are.
        offset: Steps of the episode before this segment.
        steps: The recorded actions, in order; emptied when settled.
        latest: The newest action requested on the trajectory, recorded or not.
        state: OPEN, CLOSED or SETTLED.
        rewarded: Steps from the first on that are known to have their reward.
        end: Why it was closed.
        final_observation: `float32 [obs_dim]`, what the last action led to; None if terminated.
        final_mask: `bool [choices]`, what is allowed there; None if nobody said it.
        closed_at: Monotonic seconds.
        fate: Why its rewards cannot change any more, for the message.
    """

    __slots__ = (
        "closed_at",
        "end",
        "episode",
        "fate",
        "final_mask",
        "final_observation",
        "latest",
        "offset",
        "rewarded",
        "state",
        "steps",
    )

    def __init__(self, episode: Episode, offset: int) -> None:
        self.episode = episode
        self.offset = offset
        self.steps: list[ActionHandle] = []
        self.latest: ActionHandle | None = None
        self.state = OPEN
        self.rewarded = 0
        self.end = End.TERMINATED
        self.final_observation: NDArray[np.float32] | None = None
        self.final_mask: NDArray[np.bool_] | None = None
        self.closed_at = 0.0
        self.fate = ""

    def complete(self) -> bool:
        """Whether every step has its reward. Amortised over all calls: one look at each step."""
        steps, count = self.steps, len(self.steps)
        index = self.rewarded
        while index < count and steps[index].reward is not None:
            index += 1
        self.rewarded = index
        return index >= count


class ActionHandle:
    """One action that the agent chose. `env.step(action.action)` works, and so does `int(action)`.

    Attributes:
        action: What to do: an int for Discrete, `int64 [K]` for MultiDiscrete, `int8 [n]` for
            MultiBinary, float32 of a Box's shape and within its bounds.
        raw: The same as it is recorded and trained on; see `ActionFormat`.
        log_prob: Natural logarithm of its probability when it was chosen, or of its density.
        version: Model version that chose it; 0 before there was one.
        token: Token of that version.
        observation: `float32 [obs_dim]`, what it was chosen on, flattened.
        mask: `bool [choices]`, True = allowed, or None.
        prior: `float32 [choices]`, what was added to the logits, or None.
        reward: What `update_reward` was last given; None before.
        episode: Whose action it is; None for an evaluation action, which is never recorded.
        segment: Where it is recorded; None before `add_to_trajectory`. The agent's own.
    """

    __slots__ = (
        "action",
        "episode",
        "log_prob",
        "mask",
        "observation",
        "prior",
        "raw",
        "reward",
        "segment",
        "token",
        "version",
    )

    def __init__(
        self,
        action: Any,  # noqa: ANN401 - of the space; a union would burden every application
        raw: RawAction,
        log_prob: float,
        version: int,
        token: str,
        observation: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        episode: Episode | None,
        prior: NDArray[np.float32] | None = None,
    ) -> None:
        self.action = action
        self.raw = raw
        self.log_prob = log_prob
        self.version = version
        self.token = token
        self.observation = observation
        self.mask = mask
        self.episode = episode
        self.prior = prior
        self.reward: float | None = None
        self.segment: Segment | None = None

    @property
    def act(self) -> NDArray[Any] | np.int64:
        """The action as a numpy scalar or array, for code that calls `.item()` on it."""
        action = self.action
        return np.int64(action) if isinstance(action, int) else action

    def __int__(self) -> int:
        return int(self.action)

    def __index__(self) -> int:
        return operator.index(self.action)

    def __repr__(self) -> str:
        return (
            f"ActionHandle(action={self.action}, version={self.version}, "
            f"log_prob={self.log_prob:.4g}, reward={self.reward})"
        )

    def update_reward(self, reward: SupportsFloat) -> None:
        """Set what the action brought: at once, after further actions, or after the end.

        May be called from any thread, and again: the last value counts, until the trajectory is
        sealed (it has ended and all its rewards are set). Of two threads of which one ends the
        trajectory while the other overwrites a reward that was set before, either may be first.

        Args:
            reward: A finite number, also as float32.

        Raises:
            UsageError: If it is no finite number.
            TrajectoryStateError: If the trajectory is sealed, or given up by now.
        """
        if type(reward) is not float:
            reward = _number(reward)
        if not -MAX_REWARD <= reward <= MAX_REWARD:
            raise UsageError(f"a reward must be a finite number, also as float32; not {reward!r}")
        segment = self.segment
        if segment is None:
            self.reward = reward
            return
        if segment.state == OPEN:
            self.reward = reward
            # Looked at again after the write: whoever closes the segment writes the state first and
            # then looks for missing rewards, so one of the two sees the other and it gets sealed.
            if segment.state != OPEN:
                segment.episode.recorder.reward_at_end(segment)
        else:
            segment.episode.recorder.reward_after_end(self, segment, reward)


class TrajectoryHandle:
    """One episode of the application: it links actions until `mark_end_of_trajectory`.

    Used by one thread at a time (rewards apart); several may be open at once.

    Attributes:
        episode: Which one. The agent's own.
        segment: Where steps are recorded now; another one after each automatic cut.
        ended: No more actions can be added. `request_for_action` then starts a new trajectory.
    """

    __slots__ = ("__weakref__", "ended", "episode", "segment")

    def __init__(self, episode: Episode) -> None:
        self.episode = episode
        self.segment = Segment(episode, 0)
        self.ended = False

    def __len__(self) -> int:
        """Steps recorded so far, those already cut off and sent included."""
        return self.segment.offset + len(self.segment.steps)

    def __bool__(self) -> bool:
        """True: an empty trajectory is a trajectory all the same."""
        return True

    def __repr__(self) -> str:
        state = "ended" if self.ended else f"{len(self)} steps"
        return f"TrajectoryHandle(episode={self.episode.ordinal}, {state})"


def _number(reward: object) -> float:
    if isinstance(reward, str | bytes):
        raise UsageError(f"a reward must be a finite number, not {reward!r}")
    try:
        return float(reward)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"a reward must be a finite number, not {reward!r}: {error}") from None


def settled_error(segment: Segment) -> TrajectoryStateError:
    """Why a reward comes too late for `segment`."""
    return TrajectoryStateError(
        f"the reward comes too late: episode {segment.episode.ordinal} from step {segment.offset} "
        f"on was {segment.fate}; set all rewards before that"
    )
