"""What is published of the learner's weights: themselves, or what of them lies on a grid."""

from collections.abc import Sequence

from rl4sys_stream.algorithms.base import PolicyExport
from rl4sys_stream.algorithms.grid_chooser import GridChooser, GridState
from rl4sys_stream.wire.grid import round_to_grid
from rl4sys_stream.wire.snapshot import Weights
from rl4sys_stream.wire.trajectory import Trajectory
from rl4sys_stream.worker.plan import WorkerPlan

__all__ = ["Rounding"]

Published = tuple[Weights, tuple[int, ...] | None]
"""Weights as they are published, and the exponents of their grid, None if they lie on none."""


class Rounding:
    """Rounds version by version, as the plan's `model_codec` says. Used by one thread.

    Attributes:
        grid: Of the last version, for its checkpoint; None if it lies on none.
    """

    def __init__(self, plan: WorkerPlan, grid: GridState | None) -> None:
        """Go on from `grid`, None if the last version lies on none or there is no version."""
        self._plan = plan
        self.grid = grid
        self._effect: float | None = None

    def again(self, weights: Weights) -> Published:
        """What was published of the last version, whose unrounded weights are `weights`."""
        if self.grid is None:
            return weights, None
        model = round_to_grid(weights, self.grid.exponents)
        return model.weights, model.exponents

    def round(self, export: PolicyExport, trajectories: Sequence[Trajectory]) -> Published:
        """What to publish of a new version.

        Args:
            export: What the learner has.
            trajectories: What it was trained on last.

        Raises:
            NonFiniteError: If a weight is NaN or infinite.
            WireError: If it is no policy of the client's, or no grid holds it.
        """
        settings = self._plan.settings
        if settings.model_codec == "exact":
            self.grid = self._effect = None
            return export.weights, None
        chooser = GridChooser(
            self._plan.spec,
            kl_budget=settings.kl_budget,
            value_error_budget=settings.value_error_budget,
            state=self.grid,
        )
        model = chooser.choose(export, trajectories)
        self.grid, self._effect = chooser.state, chooser.effect
        return model.weights, model.exponents

    def metrics(self) -> dict[str, float]:
        """What rounding did to the last version's decisions, where it was measured."""
        return {} if self._effect is None else {"publish/rounding_effect": self._effect}
