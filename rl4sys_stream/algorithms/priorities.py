"""Drawing steps in proportion to their priorities.

Schaul, Quan, Antonoglou, Silver 2016, Prioritized Experience Replay (arXiv:1511.05952), with the
proportional variant of §3.3. The paper's binary tree takes as many passes as it has levels, twenty
for a million steps; here each node has `FAN_OUT` children, so that three passes do, each over
blocks of memory. Sums are taken anew from the children, never adjusted, so no error builds up.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl4sys_stream.errors import NonFiniteError

__all__ = ["Priorities"]

FAN_OUT: Final = 128
"""Children of a node."""

MIN_ERROR: Final = 1e-6
"""Added to each error, so that no step is never drawn again (ε of §3.3)."""

MAX_ERROR: Final = 1e15
"""Larger errors count as this: a checkpoint holds no number beyond 2^53."""


@dataclass(frozen=True, slots=True, eq=False)
class _Snapshot:
    """What was known when the buffer had `mark`."""

    mark: int
    largest: float
    positions: range
    slots: int
    leaves: NDArray[np.float64]


class Priorities:
    """One priority a step that a replay buffer holds, by the buffer's slots.

    Attributes:
        largest: Largest error so far, which new steps count as having: each is drawn soon.
    """

    def __init__(self, slots: int, alpha: float) -> None:
        """No steps yet.

        Args:
            slots: Length of the buffer's ring.
            alpha: Exponent of the errors.
        """
        self._alpha = alpha
        self.largest = 1.0
        self._positions = range(0)
        self._slots = slots
        self._levels = _make_levels(slots)
        self._mark = 0
        self._before = self._snapshot()

    def follow(self, positions: range, slots: int, mark: int) -> None:
        """Know the steps that the buffer holds now; what was known before can be recalled.

        To be called whenever steps were taken back, before others take their places.

        Args:
            positions: `ReplayBuffer.positions`.
            slots: `ReplayBuffer.slots`.
            mark: `ReplayBuffer.mark`.
        """
        if mark != self._mark:
            self._before, self._mark = self._snapshot(), mark
        if slots != self._slots:
            self._move(slots)
        known = self._positions
        first_kept = min(max(known.start, positions.start), known.stop)
        last_kept = max(min(known.stop, positions.stop), first_kept)
        self._fill(range(known.start, first_kept), 0.0)
        self._fill(range(last_kept, known.stop), 0.0)
        self._fill(range(max(last_kept, positions.start), positions.stop), self._new_priority)
        self._positions = positions

    def recall(self, mark: int) -> None:
        """Know again what was known at `mark`, if that was just before the last change."""
        if mark == self._mark or mark != self._before.mark:
            return
        before = self._before
        self._mark, self.largest = mark, before.largest
        self._positions, self._slots = before.positions, before.slots
        self._levels = _make_levels(before.slots)
        self._levels[0][:] = before.leaves
        self._sum_up(0, before.slots)

    def _snapshot(self) -> _Snapshot:
        leaves = self._levels[0].copy()
        return _Snapshot(self._mark, self.largest, self._positions, self._slots, leaves)

    @property
    def _new_priority(self) -> float:
        return float(self.largest**self._alpha)

    def draw(self, count: int, beta: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw steps, one from each of `count` equal shares of the sum of all priorities.

        Args:
            count: How many.
            beta: Exponent of the importance weights.
            generator: The only source of randomness.

        Returns:
            Slots int64 [count], and importance weights float32 [count, 1], of which the largest is
            1 (§3.4).
        """
        *_, top = self._levels
        total = float(top.sum())
        uniform = torch.rand(count, dtype=torch.float64, generator=generator).numpy()
        left = (np.arange(count) + uniform) * (total / count)
        node = np.zeros(count, np.int64)
        for level in reversed(self._levels):
            sums = level.reshape(-1, FAN_OUT)[node].cumsum(axis=1)
            # Rounding may take the threshold up to the sum, where no child is.
            left = np.minimum(left, np.nextafter(sums[:, -1], 0.0))
            child = (sums <= left[:, None]).sum(axis=1)
            below = np.take_along_axis(sums, np.maximum(child - 1, 0)[:, None], axis=1)[:, 0]
            left -= np.where(child > 0, below, 0.0)
            node = node * FAN_OUT + child
        probabilities = self._levels[0][node] / total
        weights = (len(self._positions) * probabilities) ** -beta
        weights /= weights.max()
        return torch.from_numpy(node), torch.from_numpy(weights.astype(np.float32)[:, None])

    def update(self, slots: Tensor, errors: Tensor) -> None:
        """Set the priorities of `slots`, int64 [B], by their temporal-difference errors.

        Args:
            slots: What `draw` gave.
            errors: float32 [B, 1].

        Raises:
            NonFiniteError: If one is not finite; nothing was changed.
        """
        magnitudes = errors.abs().double().numpy()[:, 0] + MIN_ERROR
        if not np.isfinite(magnitudes).all():
            raise NonFiniteError("a temporal-difference error became infinite or NaN")
        magnitudes = np.minimum(magnitudes, MAX_ERROR)
        self.largest = max(self.largest, float(magnitudes.max()))
        nodes = slots.numpy()
        self._levels[0][nodes] = magnitudes**self._alpha
        for level, above in zip(self._levels, self._levels[1:], strict=False):
            nodes = nodes // FAN_OUT
            above[nodes] = level.reshape(-1, FAN_OUT)[nodes].sum(axis=1)

    # The tree ------------------------------------------------------------------------------------

    def _fill(self, positions: range, priority: float) -> None:
        """Give the same priority to a stretch of steps, which may run over the ring's end."""
        first, count = positions.start % self._slots, len(positions)
        whole = min(count, self._slots - first)
        for start, stop in ((first, first + whole), (0, count - whole)):
            self._levels[0][start:stop] = priority
            self._sum_up(start, stop)

    def _sum_up(self, start: int, stop: int) -> None:
        if stop == start:
            return
        for level, above in zip(self._levels, self._levels[1:], strict=False):
            start, stop = start // FAN_OUT, (stop - 1) // FAN_OUT + 1
            above[start:stop] = level.reshape(-1, FAN_OUT)[start:stop].sum(axis=1)

    def _move(self, slots: int) -> None:
        """Into a ring of another length."""
        held = np.arange(self._positions.start, self._positions.stop)
        leaves = self._levels[0][held % self._slots]
        self._slots, self._levels = slots, _make_levels(slots)
        self._levels[0][held % slots] = leaves
        self._sum_up(0, slots)


def _make_levels(slots: int) -> list[NDArray[np.float64]]:
    """Zeros: the priorities, then sums of `FAN_OUT` each, up to one block. Lengths are padded."""
    levels: list[NDArray[np.float64]] = []
    count = slots
    while not levels or count > 1:
        blocks = -(-count // FAN_OUT)
        levels.append(np.zeros(blocks * FAN_OUT))
        count = blocks
    return levels
