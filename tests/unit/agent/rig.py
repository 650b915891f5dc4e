"""A recorder with an outbox and a clock that the test moves, and short ways to act on it."""

import threading

import numpy as np

from rl4sys_stream.agent.handles import ActionHandle, TrajectoryHandle
from rl4sys_stream.agent.outbox import Outbox
from rl4sys_stream.agent.parcels import DropPolicy, OutboxCounts, OutboxLimits
from rl4sys_stream.agent.recorder import Recorder
from rl4sys_stream.spaces import Discrete
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.wire.trajectory import Trajectory, TrajectorySpec, decode_trajectory

OBS_DIM, N_ACTIONS = 3, 4
ACTIONS = ActionFormat.of(Discrete(N_ACTIONS))
SPEC = TrajectorySpec(OBS_DIM, ACTIONS, priors=True)


class ManualClock:
    """Time that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self.now_s

    def wall_ms(self) -> int:
        """See `Clock.wall_ms`."""
        return 1_700_000_000_000 + int(self.now_s * 1000)

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """See `Clock.wait`; it takes no time."""
        self.now_s += timeout_s
        return event.is_set()


class Rig:
    """One recorder and everything around it."""

    def __init__(
        self,
        *,
        max_steps: int = 100,
        max_entries: int = 100,
        max_bytes: int = 1 << 20,
        drop_policy: DropPolicy = "drop_oldest",
        block_timeout_s: float | None = None,
        reward_timeout_s: float = 60.0,
        reward_wait_steps: int = 1000,
        outbox: type[Outbox] = Outbox,
    ) -> None:
        self.clock = ManualClock()
        self.outbox = outbox(
            OutboxLimits(
                max_entries=max_entries,
                max_bytes=max_bytes,
                drop_policy=drop_policy,
                block_timeout_s=block_timeout_s,
            )
        )
        self.recorder = Recorder(
            self.outbox,
            obs_dim=OBS_DIM,
            actions=ACTIONS,
            max_steps=max_steps,
            reward_timeout_s=reward_timeout_s,
            reward_wait_steps=reward_wait_steps,
            clock=self.clock,
        )

    def request(
        self,
        handle: TrajectoryHandle,
        value: float = 0.0,
        *,
        version: int = 0,
        token: str = "",
        mask: list[bool] | None = None,
        prior: list[float] | None = None,
        log_prob: float = -1.5,
    ) -> ActionHandle:
        """An action chosen on the observation [value, value, value]."""
        action = ActionHandle(
            1,
            1,
            log_prob,
            version,
            token,
            np.full(OBS_DIM, value, np.float32),
            None if mask is None else np.array(mask),
            handle.episode,
            None if prior is None else np.array(prior, np.float32),
        )
        handle.segment.latest = action
        return action

    def step(
        self, handle: TrajectoryHandle, value: float = 0.0, reward: float | None = 1.0
    ) -> ActionHandle:
        """Request, add and, unless it is None, reward one action."""
        action = self.request(handle, value)
        self.recorder.add(handle, action)
        if reward is not None:
            action.update_reward(reward)
        return action

    @property
    def counts(self) -> OutboxCounts:
        """The books, after a check that they balance."""
        counts = self.outbox.counts()
        assert counts.accepted == (
            counts.sealing + counts.queued + counts.issued + counts.dropped + counts.quarantined
        )
        return counts

    def sent(self) -> list[Trajectory]:
        """Take and decode everything that is queued, as a worker would."""
        return [
            decode_trajectory(dict(entry.fields), SPEC) for entry in self.outbox.take(1000, 1 << 30)
        ]
