"""Bytes of every version of a training run, and what rounding did to its decisions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.models.training import Task, Version, train
from rl4sys_stream.algorithms.grid_chooser import GridChooser
from rl4sys_stream.policy.distance import policy_distance
from rl4sys_stream.policy.policy import build_policy
from rl4sys_stream.wire.compact import (
    apply_compact_diff,
    encode_compact_diff,
    encode_compact_snapshot,
)
from rl4sys_stream.wire.diff import encode_diff
from rl4sys_stream.wire.grid import GridWeights
from rl4sys_stream.wire.snapshot import Weights, encode_snapshot
from rl4sys_stream.wire.trajectory import Trajectory

__all__ = ["Run", "measure_run"]

KL_BUDGET = 1e-4
VALUE_ERROR_BUDGET = 1e-5


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One training run; sequences have an item a version, from the second on.

    Attributes:
        task: Its name.
        seed: Of everything.
        parameters: Of the published net.
        budget: Divergence in nats, or relative error of action values.
        diff_bytes: Compact diffs.
        exact_bytes: Exact diffs of the same versions.
        full_bytes: Compact snapshots.
        exact_full_bytes: Exact ones.
        held_out: Effect of rounding on steps that the choice of the grid did not see.
        steps: Environment steps before the version.
        returns: Mean return of the episodes that ended before it, None where none did.
        regrids: Versions in which a tensor's grid changed.
    """

    task: str
    seed: int
    parameters: int
    budget: float
    diff_bytes: list[int]
    exact_bytes: list[int]
    full_bytes: list[int]
    exact_full_bytes: list[int]
    held_out: list[float]
    steps: list[int]
    returns: list[float | None]
    regrids: int


@dataclass(slots=True, eq=False)
class _Publisher:
    """Rounds what is trained, and keeps an agent beside it that follows the diffs."""

    task: Task
    chooser: GridChooser
    model: GridWeights | None = None
    agent: Weights | None = None
    diff: bytes = b""

    def publish(self, version: Version) -> Weights:
        seen = [half for half, _ in map(_halves, version.trajectories)]
        before, self.model = self.model, self.chooser.choose(version.export, seen)
        if before is None or self.agent is None:
            self.agent = self.model.weights
            return self.agent
        diff = encode_compact_diff(before, self.model)
        if diff is None:
            raise RuntimeError(f"version {version.number} has no diff")
        self.diff = diff
        self.agent = apply_compact_diff(self.agent, diff)
        return self.agent


def _halves(trajectory: Trajectory) -> tuple[Trajectory, NDArray[np.float32]]:
    """Every other step for the choice of the grid, the others to hold it against."""
    return (
        replace(trajectory, observations=trajectory.observations[::2]),
        trajectory.observations[1::2],
    )


def measure_run(task: Task, *, seed: int) -> Run:
    """Train `task`, the agent acting by what was published, and measure every version."""
    chooser = GridChooser(task.spec, kl_budget=KL_BUDGET, value_error_budget=VALUE_ERROR_BUDGET)
    publisher = _Publisher(task, chooser)
    rows = list(_rows(task, publisher, seed))
    first = rows[0]
    return Run(
        task=task.name,
        seed=seed,
        parameters=first.parameters,
        budget=first.budget,
        diff_bytes=[row.diff for row in rows],
        exact_bytes=[row.exact for row in rows],
        full_bytes=[row.full for row in rows],
        exact_full_bytes=[row.exact_full for row in rows],
        held_out=[row.held_out for row in rows],
        steps=[row.steps for row in rows],
        returns=[row.mean_return for row in rows],
        regrids=sum(row.regrid for row in rows),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    parameters: int
    budget: float
    diff: int
    exact: int
    full: int
    exact_full: int
    held_out: float
    steps: int
    mean_return: float | None
    regrid: bool


def _rows(task: Task, publisher: _Publisher, seed: int) -> Iterator[_Row]:
    master: Weights | None = None
    exponents: tuple[int, ...] = ()
    recent: list[NDArray[np.float32]] = []
    for version in train(task, publisher.publish, seed=seed):
        weights, model = version.export.weights, publisher.model
        if model is None:
            raise RuntimeError("nothing was published")
        values = version.export.extras.head == "epsilon_greedy"
        recent = [*recent, *(rest for _, rest in map(_halves, version.trajectories))]
        if not values:  # whose distance needs no variance
            recent = recent[-len(version.trajectories) :]
        recent = recent[-64:]
        if master is not None:
            yield _Row(
                parameters=weights.layout.size,
                budget=VALUE_ERROR_BUDGET if values else KL_BUDGET,
                diff=len(publisher.diff),
                exact=len(encode_diff(master, weights)),
                full=len(encode_compact_snapshot(model)),
                exact_full=len(encode_snapshot(weights)),
                held_out=_effect(task, version, model.weights, recent),
                steps=version.steps,
                mean_return=float(np.mean(version.returns)) if version.returns else None,
                regrid=model.exponents != exponents,
            )
        master, exponents = weights, model.exponents


def _effect(
    task: Task, version: Version, published: Weights, recent: Sequence[NDArray[np.float32]]
) -> float:
    extras = version.export.extras
    observations = np.concatenate(recent)[-2048:]
    first, second = (
        build_policy(task.spec, each, extras, 1, "").outputs(observations)
        for each in (version.export.weights, published)
    )
    return policy_distance(task.spec.actions, extras.head, first, second)
