"""The replay buffer: whole trajectories, from which transitions are drawn.

Lin 1992, Self-Improving Reactive Agents Based on Reinforcement Learning, Planning and Teaching. Two
rings of columns lie in memory that is allocated once: one element a step, and one *row* an
observation, of which a trajectory has one more than steps, so that no observation is stored twice.
Returns over several steps are summed when a trajectory comes in; drawing is nothing but gathering.

A trajectory with masks that goes on beyond its end, but does not say what is allowed there, gives
up its last step: that step's own observation, whose mask is known, is then the last one to
bootstrap from. A maximum over all actions of the final observation would go to forbidden ones,
whose values nothing ever corrects; a bootstrap from nothing would teach that the episode ends.

What is in the buffer follows from the sequence of trajectories alone: the newest ones whose steps
fit into the capacity. A trajectory leaves whole, and only when `evict` is called: until then all
that came in can be taken back by `rewind`.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from rl4sys_stream.algorithms.n_step import n_step_returns
from rl4sys_stream.errors import ConfigError, NonFiniteError
from rl4sys_stream.wire.trajectory import End, Trajectory

__all__ = ["ReplayBuffer", "Transitions"]

GROWTH: Final = 1.5
"""By which factor a ring grows that is too small, at least."""

STEPS_PER_ROW_TO_SPARE: Final = 8
"""Room for as many final observations as trajectories of this length have; shorter ones make the
ring of rows grow."""

MARK_BITS: Final = 53
"""Marks are numbers of a checkpoint, which holds integers up to 2^53."""


@dataclass(frozen=True, slots=True)
class Transitions:
    """M draws from the buffer. Columns keep an axis of length 1.

    Attributes:
        observations: float32 [M, obs_dim], raw.
        actions: int64 [M, 1], or float32 [M, action_dim].
        returns: float32 [M, 1], the discounted rewards of the next k steps, where k is `n_step`, or
            the steps that the trajectory has left if those are fewer.
        discounts: float32 [M, 1], γ^k; 0 where the episode terminated within the k steps.
        next_observations: float32 [M, obs_dim], raw, k steps later; zeros where there is none.
        next_masks: bool [M, n_actions], which actions are allowed there; None if nothing in the
            buffer was ever masked.
    """

    observations: Tensor
    actions: Tensor
    returns: Tensor
    discounts: Tensor
    next_observations: Tensor
    next_masks: Tensor | None

    def minibatches(self, size: int) -> Iterator["Transitions"]:
        """Consecutive parts of `size` transitions each, as views."""
        parts = len(self.actions) // size
        columns = zip(
            torch.split(self.observations, size),
            torch.split(self.actions, size),
            torch.split(self.returns, size),
            torch.split(self.discounts, size),
            torch.split(self.next_observations, size),
            [None] * parts if self.next_masks is None else torch.split(self.next_masks, size),
            strict=True,
        )
        for column in columns:
            yield Transitions(*column)


@dataclass(slots=True)
class _Ring:
    """Columns of equal length; position p, counted from the first ever, is at p modulo that length.

    Attributes:
        columns: By name, each [length, …].
        start: Position of the oldest element.
        stop: Position after the newest.
    """

    columns: dict[str, Tensor]
    start: int = 0
    stop: int = 0

    @property
    def length(self) -> int:
        return len(next(iter(self.columns.values())))

    def __len__(self) -> int:
        return self.stop - self.start

    def write(self, name: str, values: NDArray[np.generic] | float, count: int) -> None:
        """Put `count` values behind the newest; `stop` stays."""
        column = self.columns[name].numpy()
        first = self.stop % self.length
        whole = min(count, self.length - first)
        if isinstance(values, np.ndarray):
            column[first : first + whole] = values[:whole]
            column[: count - whole] = values[whole:]
        else:
            column[first : first + whole] = values
            column[: count - whole] = values

    def reserve(self, count: int) -> None:
        """Make room for `count` more elements."""
        needed = len(self) + count
        if needed <= self.length:
            return
        held = torch.arange(self.start, self.stop)
        old, new = held % self.length, held % (length := int(max(needed, GROWTH * self.length)))
        for name, column in self.columns.items():
            grown = column.new_empty((length, *column.shape[1:]))
            grown[new] = column[old]
            self.columns[name] = grown


@dataclass(frozen=True, slots=True)
class _Held:
    """A trajectory in the buffer.

    Attributes:
        length: Its steps.
        steps: Those that can be drawn: all, or all but the last.
        rows: Its rows.
        mark: The mark after it, if that is known.
    """

    length: int
    steps: int
    rows: int
    mark: int | None


class ReplayBuffer:
    """The newest trajectories, up to `capacity` steps of them, and what came in since `evict`."""

    def __init__(
        self,
        capacity: int,
        obs_dim: int,
        *,
        n_actions: int | None = None,
        action_dim: int | None = None,
        n_step: int = 1,
        gamma: float = 0.99,
        headroom: int = 4096,
    ) -> None:
        """Allocate an empty buffer.

        Args:
            capacity: Steps of the trajectories that `evict` leaves at most.
            obs_dim: Length of a flattened observation.
            n_actions: Size of a discrete action space, or None.
            action_dim: Length of a continuous action, or None.
            n_step: Steps whose rewards a return adds up.
            gamma: Discount.
            headroom: Steps beyond the capacity that come in between two calls of `evict`; where
                more do, the memory grows.

        Raises:
            ConfigError: If there is not so much memory.
        """
        self.capacity = capacity
        self._n_actions = n_actions
        self._n_step, self._gamma = n_step, gamma
        length = capacity + headroom
        rows = length + length // STEPS_PER_ROW_TO_SPARE
        actions = ((length, 1), torch.int64) if action_dim is None else ((length, action_dim), None)
        try:
            self._steps = _Ring(
                {
                    "actions": torch.empty(actions[0], dtype=actions[1] or torch.float32),
                    "returns": torch.empty(length, 1),
                    "discounts": torch.empty(length, 1),
                    "rows": torch.empty(length, 2, dtype=torch.int64),
                }
            )
            self._rows = _Ring({"observations": torch.empty(rows, obs_dim)})
        except RuntimeError as error:
            raise ConfigError(
                f"there is no memory for {capacity} steps with observations of {obs_dim} numbers: "
                f"make buffer_size smaller ({error})",
                path="buffer_size",
            ) from None
        self._held: deque[_Held] = deque()
        self._total = 0  # steps of the trajectories held, also those that cannot be drawn
        self._mark_before: int | None = 0  # the oldest trajectory held; None: not known
        self.mark = 0

    # What it holds -------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Transitions to draw from; may be above `capacity` until the next `evict`."""
        return len(self._steps)

    @property
    def positions(self) -> range:
        """Of the steps held, counted from the first ever; those of steps taken back come again."""
        return range(self._steps.start, self._steps.stop)

    @property
    def slots(self) -> int:
        """The step at position p is in slot p modulo this, until `reserve` makes it larger."""
        return self._steps.length

    @property
    def retained(self) -> int:
        """Trajectories that the next `evict` leaves."""
        return len(self._held) - self._excess()

    def _excess(self) -> int:
        over, count = self._total - self.capacity, 0
        for held in self._held:
            if over <= 0:
                break
            over -= held.length
            count += 1
        return count

    # Coming and going ----------------------------------------------------------------------------

    def reserve(self, trajectories: Sequence[Trajectory]) -> None:
        """Make room for `trajectories`, so that appending them moves nothing in memory."""
        steps = sum(len(trajectory.actions) for trajectory in trajectories)
        self._steps.reserve(steps)
        self._rows.reserve(steps + len(trajectories))

    def evict(self) -> None:
        """Let the oldest trajectories go until the capacity is kept."""
        for _ in range(self._excess()):
            oldest = self._held.popleft()
            self._steps.start += oldest.steps
            self._rows.start += oldest.rows
            self._total -= oldest.length
            self._mark_before = oldest.mark

    def append(self, trajectory: Trajectory) -> None:
        """Put a trajectory behind the newest.

        Raises:
            NonFiniteError: If a sum of its rewards is not finite: it would be drawn at any time
                later, when nobody could tell any more where it came from. Nothing was changed.
        """
        mark = _chain(self.mark, trajectory)
        self._store(trajectory, mark)
        self.mark = mark

    def refill(self, trajectories: Sequence[Trajectory], mark: int) -> None:
        """Hold `trajectories`, the newest ones before `mark`, oldest first, and nothing else."""
        self.clear(mark)
        self.reserve(trajectories)
        for index, trajectory in enumerate(trajectories, start=1):
            self._store(trajectory, mark if index == len(trajectories) else None)
        self.evict()

    def rewind(self, mark: int) -> bool:
        """Take back what was appended since the buffer had this `mark`.

        Returns:
            False, and nothing was changed, if it never had, or what it held then was evicted.
        """
        newer = 0
        for held in reversed(self._held):
            if held.mark == mark:
                break
            newer += 1
        else:
            if mark != self._mark_before:
                return False
        for _ in range(newer):
            newest = self._held.pop()
            self._steps.stop -= newest.steps
            self._rows.stop -= newest.rows
            self._total -= newest.length
        self.mark = mark
        return True

    def clear(self, mark: int = 0) -> None:
        """Hold nothing, as after a history that `mark` stands for."""
        self._held.clear()
        self._total = 0
        self._steps.start = self._steps.stop
        self._rows.start = self._rows.stop
        self.mark = self._mark_before = mark

    def _store(self, trajectory: Trajectory, mark: int | None) -> None:
        self.reserve([trajectory])
        steps, ring = _usable_steps(trajectory), self._steps
        returns, hops = n_step_returns(trajectory.rewards[:steps], self._n_step, self._gamma)
        if not np.isfinite(returns).all():
            raise NonFiniteError(f"the rewards of {self._n_step} steps became infinite or NaN")
        discounts = np.power(self._gamma, hops)
        row = self._rows.stop + np.arange(steps)
        after = row + hops
        if trajectory.end is End.TERMINATED:
            discounts[after == self._rows.stop + steps] = 0.0
        width = ring.columns["actions"].shape[1]
        ring.write("actions", trajectory.actions[:steps].reshape(steps, width), steps)
        ring.write("returns", returns[:, None], steps)
        ring.write("discounts", discounts[:, None], steps)
        ring.write("rows", np.stack((row, after), axis=1), steps)
        ring.stop += steps
        self._store_rows(trajectory, steps + 1)
        length = len(trajectory.actions)
        self._held.append(_Held(length, steps, steps + 1, mark))
        self._total += length

    def _store_rows(self, trajectory: Trajectory, count: int) -> None:
        """The first `count` observations, of which the final one is the last."""
        steps, ring = len(trajectory.actions), self._rows
        final, masks, final_mask = (
            trajectory.final_observation,
            trajectory.masks,
            trajectory.final_mask,
        )
        known = final_mask if masks is None else masks[0]
        if known is not None and "masks" not in ring.columns:
            # Only from here on: most clients never forbid anything.
            ring.columns["masks"] = torch.ones(ring.length, len(known)).bool()
        ring.write("observations", trajectory.observations, steps)
        if "masks" in ring.columns:
            ring.write("masks", True if masks is None else masks, steps)
        ring.stop += steps
        if count == steps:
            return
        ring.write("observations", 0.0 if final is None else final[None], 1)
        if "masks" in ring.columns:
            ring.write("masks", True if final_mask is None else final_mask[None], 1)
        ring.stop += 1

    # Drawing -------------------------------------------------------------------------------------

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Slots int64 [count] of steps, uniformly and with replacement."""
        offsets = torch.randint(len(self), (count,), generator=generator)
        return offsets.add_(self._steps.start).remainder_(self._steps.length)

    def gather(self, slots: Tensor) -> Transitions:
        """The transitions that begin at `slots`, int64 [M]."""
        steps, rows = self._steps, self._rows
        # [M, 2] -> [2 M]: first all observations, then all next ones, each contiguous.
        where = steps.columns["rows"].index_select(0, slots).t().reshape(-1)
        where.remainder_(rows.length)
        observations = rows.columns["observations"].index_select(0, where)
        count = len(slots)
        masks = rows.columns.get("masks")
        return Transitions(
            observations=observations[:count],
            actions=steps.columns["actions"].index_select(0, slots),
            returns=steps.columns["returns"].index_select(0, slots),
            discounts=steps.columns["discounts"].index_select(0, slots),
            next_observations=observations[count:],
            next_masks=None if masks is None else masks.index_select(0, where[count:]),
        )


def _usable_steps(trajectory: Trajectory) -> int:
    """How many steps, from the first, have a known end to bootstrap from."""
    goes_on = trajectory.end is not End.TERMINATED
    unknown = trajectory.masks is not None and trajectory.final_mask is None
    return len(trajectory.actions) - (goes_on and unknown)


def _chain(mark: int, trajectory: Trajectory) -> int:
    """The mark after `trajectory` where it was `mark` before: the same for the same history."""
    digest = xxhash.xxh3_64(seed=mark)
    for column in (
        trajectory.observations,
        trajectory.actions,
        trajectory.rewards,
        trajectory.masks,
        trajectory.final_observation,
        trajectory.final_mask,
    ):
        digest.update(b"" if column is None else np.ascontiguousarray(column).data)
    return digest.intdigest() >> (64 - MARK_BITS)
