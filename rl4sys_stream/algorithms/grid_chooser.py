"""How finely weights are published: as coarsely as a measured budget allows.

Published weights lie on a grid for each tensor (see `rl4sys_stream.wire.grid`). A coarser grid
makes smaller diffs and another policy. By how much another is measured on recent observations: the
mean Kullback-Leibler divergence from the learner's policy to the published one, or for action
values the relative squared error (`rl4sys_stream.policy.distance`). It stays below a budget.

Rounding errors of a tensor with the step s = 2^e are about uniform, and their effect is about
k s², with a sensitivity k that is measured by rounding that tensor alone. The effects add up. The
bits of a diff are the sum of -n e over the tensors of n weights. Under a budget B for Σ k s² fewest
bits are needed where each tensor has the share k s² = B n / N (Lagrange); floored to powers of two,
and filled up one tensor at a time by how many bits that saves for what it costs.

A grid that has become too coarse is refined at once. It is made coarser only after it could have
been for several versions on end. The learner goes on from its own float32 weights, so errors do not
accumulate; and agents log the probabilities under what was published, so importance ratios stay
true.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.algorithms.base import PolicyExport
from rl4sys_stream.config import ClientSpec
from rl4sys_stream.errors import WireFormatError
from rl4sys_stream.policy.distance import policy_distance
from rl4sys_stream.policy.mlp import LOG_STD
from rl4sys_stream.policy.policy import build_policy
from rl4sys_stream.spaces import flat_dim
from rl4sys_stream.wire.grid import (
    MAX_EXPONENT,
    MIN_EXPONENT,
    GridWeights,
    power,
    round_to_grid,
    spans,
)
from rl4sys_stream.wire.snapshot import Weights
from rl4sys_stream.wire.trajectory import Trajectory

__all__ = ["GridChooser", "GridState"]

OBSERVATIONS: Final = 512
"""On which the effect of rounding is measured."""

FRESH_VALUES: Final = 128
"""How many of them an update replaces at most where decisions are made of action values: errors are
relative to their variance, and those of one update may be a single episode's, which hardly vary."""

POOL_BYTES: Final = 4 << 20
"""What they take up in a checkpoint at most; of large observations there are fewer."""

FULL: Final = 0.9
"""Share of the budget that a measured effect may take: other observations are not the same ones."""

FILL: Final = 0.8
"""Share that a grid is chosen for; between the two it is left as it is."""

PATIENCE: Final = 3
"""Versions for which a coarser grid must have been possible before it is taken."""

FIRST_BITS: Final = 9
"""Steps of a grid, as a power of two, that make up a tensor's typical weight as long as nothing was
measured: as fine as bfloat16."""

LAST_BITS: Final = 2
"""The same of the coarsest grid that is taken, whatever the budget: where decisions hardly depend
on a tensor yet, a coarser one would save next to nothing."""

PROBED_PARAMETERS: Final = 1 << 17
"""Sensitivities are measured of as many tensors at a time that their forward passes together have
about this many parameters; the others' follow with later versions. They only say how the budget is
shared out; that it is kept is measured at each version."""

SMOOTHING: Final = 0.8
"""Weight of the older sensitivities, as powers of two, against a new one."""

LEAST_EFFECT: Final = 1e-13
"""Smaller ones are the noise of float32."""


class ObservationPool(msgspec.Struct, frozen=True, kw_only=True):
    """Recent observations, oldest first.

    Attributes:
        observations: `<f4 [N, obs_dim]`, raw.
        masks: `|u1 [N, choices]`, 1 = allowed; b"" if nothing was forbidden.
    """

    observations: bytes = b""
    masks: bytes = b""

    def arrays(self, spec: ClientSpec) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """`float32 [N, obs_dim]`, and `bool [N, choices]` or None.

        Raises:
            WireFormatError: If they are another client's.
        """
        rows = _rows(self.observations, np.dtype("<f4"), flat_dim(spec.observation_space))
        if not self.masks:
            return rows.astype(np.float32, copy=False), None
        masks = _rows(self.masks, np.dtype(np.uint8), spec.actions.choices)
        if len(masks) != len(rows):
            raise WireFormatError(f"{len(rows)} observations with {len(masks)} masks")
        return rows.astype(np.float32, copy=False), masks.astype(np.bool_)

    def with_newest(
        self, spec: ClientSpec, trajectories: Sequence[Trajectory], most: int = OBSERVATIONS
    ) -> "ObservationPool":
        """The pool after an update on `trajectories`: up to `most` of their steps come in."""
        steps = sum(len(trajectory.observations) for trajectory in trajectories)
        if not steps:
            return self
        old, old_masks = self.arrays(spec)
        limit = min(OBSERVATIONS, max(1, POOL_BYTES // (4 * old.shape[1])))
        fresh = min(steps, limit, most if len(old) else limit)
        chosen = np.linspace(0, steps, fresh, endpoint=False).astype(np.int64)
        new = np.concatenate([each.observations for each in trajectories])[chosen]
        rows = np.concatenate((old, new))[-limit:]
        masks = b""
        if old_masks is not None or any(each.masks is not None for each in trajectories):
            choices = spec.actions.choices
            given = [_masks(each, choices) for each in trajectories]
            kept = np.ones((len(old), choices), np.bool_) if old_masks is None else old_masks
            both = np.concatenate((kept, np.concatenate(given)[chosen]))[-limit:]
            masks = both.astype(np.uint8).tobytes()
        return ObservationPool(observations=rows.astype("<f4", copy=False).tobytes(), masks=masks)


def _rows(data: bytes, dtype: "np.dtype[np.generic]", width: int) -> NDArray[np.generic]:
    if not width or len(data) % (width * dtype.itemsize):
        raise WireFormatError(f"{len(data)} bytes are no rows of {width} {dtype}")
    return np.frombuffer(data, dtype).reshape(-1, width)


def _masks(trajectory: Trajectory, choices: int) -> NDArray[np.bool_]:
    if trajectory.masks is None:
        return np.ones((len(trajectory.observations), choices), np.bool_)
    return trajectory.masks


class GridState(msgspec.Struct, frozen=True, kw_only=True):
    """What the next choice depends on; part of a version's checkpoint.

    Attributes:
        exponents: Of each tensor, in the layout's order; () before the first version.
        sensitivities: log2 of each tensor's, None where it was not measured yet.
        next_probe: The tensor whose sensitivity is measured next.
        excess: By how much the measured effect exceeds the sum of the tensors' ones, as a factor.
        patience: Versions on end for which a coarser grid was possible.
        pool: Recent observations.
    """

    exponents: tuple[int, ...] = ()
    sensitivities: tuple[float | None, ...] = ()
    next_probe: int = 0
    excess: float = 1.0
    patience: int = 0
    pool: ObservationPool = ObservationPool()

    def to_bytes(self) -> bytes:
        """As MessagePack; numbers survive exactly."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> "GridState":
        """The inverse of `to_bytes`.

        Raises:
            WireFormatError: If it is something else, or no grid has such exponents.
        """
        try:
            state = msgspec.msgpack.decode(data, type=cls)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise WireFormatError(
                f"the state of the published grid does not decode: {error}"
            ) from None
        fits = len(state.sensitivities) == len(state.exponents)
        if not fits or any(not MIN_EXPONENT <= e <= MAX_EXPONENT for e in state.exponents):
            raise WireFormatError("the state of the published grid contradicts itself")
        return state


class GridChooser:
    """Chooses the grid of one client's published weights, version by version. Not thread-safe.

    Attributes:
        state: To go on from; what is chosen next follows from it, the weights and the
            observations alone.
        effect: What rounding the last chosen weights did to their decisions, as measured; None
            where there were no observations to measure it on.
    """

    def __init__(
        self,
        spec: ClientSpec,
        *,
        kl_budget: float,
        value_error_budget: float,
        state: GridState | None = None,
    ) -> None:
        """Begin, or go on from `state`.

        Args:
            spec: The client's spaces and network.
            kl_budget: Largest mean divergence, in nats.
            value_error_budget: Largest relative squared error of action values.
            state: None for the first version.
        """
        self._spec = spec
        self._kl_budget = kl_budget
        self._value_error_budget = value_error_budget
        self.state = state or GridState()
        self.effect: float | None = None

    def rounded(self, weights: Weights) -> GridWeights:
        """`weights` on the grid that was chosen last: what was published of them."""
        exponents = self.state.exponents
        if len(exponents) != len(weights.layout.names):
            exponents = _first_exponents(weights)
        return round_to_grid(weights, exponents)

    def choose(self, export: PolicyExport, trajectories: Sequence[Trajectory]) -> GridWeights:
        """The weights to publish.

        Args:
            export: What the learner has.
            trajectories: The newest ones; without any the grid stays as it is.

        Raises:
            NonFiniteError: If a weight is NaN or infinite.
            WireError: If the policy is not one of the client's, or no grid holds it.
        """
        model = self.rounded(export.weights)
        state = self.state
        if len(state.exponents) != len(model.exponents):
            state = GridState(sensitivities=(None,) * len(model.exponents))
        self.state = msgspec.structs.replace(state, exponents=model.exponents)
        self.effect = None
        values = export.extras.head == "epsilon_greedy"
        most = FRESH_VALUES if values else OBSERVATIONS
        pool = self.state.pool.with_newest(self._spec, trajectories, most)
        self.state = msgspec.structs.replace(self.state, pool=pool)
        rig = _Rig(self._spec, export, pool)
        if rig.rows and trajectories:
            budget = self._value_error_budget if values else self._kl_budget
            model = self._fit(export.weights, rig, budget)
        return model

    def _fit(self, weights: Weights, rig: "_Rig", budget: float) -> GridWeights:
        unknown = None in self.state.sensitivities
        self._probe(weights, rig)
        plan = _Plan(weights, self.state)
        patience = 0
        if unknown:
            plan.begin(budget)
        else:
            patience = plan.move(budget, self.state.patience)
        while True:
            model = round_to_grid(weights, plan.exponents)
            effect = rig.effect(model.weights)
            self.effect = effect
            finest = model.exponents != tuple(plan.exponents) or not plan.refinable
            if effect <= FULL * budget or finest:
                break
            plan.refine()
            patience = 0
        expected = plan.effect / self.state.excess
        excess = self.state.excess
        if math.isfinite(effect) and effect > LEAST_EFFECT and expected > LEAST_EFFECT:
            excess = math.exp(
                SMOOTHING * math.log(excess) + (1 - SMOOTHING) * math.log(effect / expected)
            )
        self.state = msgspec.structs.replace(
            self.state, exponents=model.exponents, excess=excess, patience=patience
        )
        return model

    def _probe(self, weights: Weights, rig: "_Rig") -> None:
        """Measure the sensitivities that are due, by rounding one tensor at a time."""
        state = self.state
        known = list(state.sensitivities)
        count = max(1, PROBED_PARAMETERS // weights.layout.size)
        due = [(state.next_probe + i) % len(known) for i in range(min(count, len(known)))]
        due += [i for i, old in enumerate(known) if old is None and i not in due]
        # What is measured more seldom has aged more.
        stay = SMOOTHING ** max(1.0, len(known) / count)
        parts = list(spans(weights.layout))
        for index in due:
            part = weights.flat[parts[index]]
            exponent = min(state.exponents[index], _typical_exponent(part) - LAST_BITS)
            flat = weights.flat.copy()
            step = power(exponent)
            flat[parts[index]] = np.rint(part * power(-exponent)) * step
            effect = max(rig.effect(Weights(weights.layout, flat)), LEAST_EFFECT)
            if not math.isfinite(effect):
                continue
            new, old = math.log2(effect) - 2 * exponent, known[index]
            known[index] = new if old is None else stay * old + (1 - stay) * new
        following = (due[-1] + 1) % len(known) if due else 0
        self.state = msgspec.structs.replace(
            state, sensitivities=tuple(known), next_probe=following
        )


class _Plan:
    """Exponents under way, and what they are expected to do."""

    def __init__(self, weights: Weights, state: GridState) -> None:
        parts = [weights.flat[span] for span in spans(weights.layout)]
        self.exponents = list(state.exponents)
        self._sizes = [len(part) for part in parts]
        self._coarsest = [max(_typical_exponent(p) - LAST_BITS, MIN_EXPONENT) for p in parts]
        # A tensor that could not be measured counts as one that does nothing.
        lowest = math.log2(LEAST_EFFECT)
        self._sensitivities = [
            2.0 ** (lowest if k is None else k) * state.excess for k in state.sensitivities
        ]

    @property
    def effect(self) -> float:
        """What the exponents are expected to do."""
        return sum(map(self._cost, range(len(self.exponents))))

    @property
    def refinable(self) -> bool:
        """Whether there is a finer grid."""
        return max(self.exponents) > MIN_EXPONENT

    def _cost(self, index: int) -> float:
        return math.ldexp(self._sensitivities[index], 2 * self.exponents[index])

    def begin(self, budget: float) -> None:
        """Where `budget` is shared by size, and then filled."""
        total = sum(self._sizes)
        for index, size in enumerate(self._sizes):
            share = FILL * budget * size / total / self._sensitivities[index]
            exponent = min(math.floor(0.5 * math.log2(share)), self._coarsest[index])
            self.exponents[index] = max(exponent, MIN_EXPONENT)
        self.exponents = self._coarsened(FILL * budget)

    def move(self, budget: float, patience: int) -> int:
        """Towards what `budget` allows; returns the new patience."""
        if self.effect > FULL * budget:
            while self.effect > FILL * budget and self.refinable:
                self.refine()
            return 0
        raised = self._coarsened(FILL * budget)
        if raised == self.exponents:
            return 0
        if patience + 1 < PATIENCE:
            return patience + 1
        self.exponents = raised
        return 0

    def refine(self) -> None:
        """Halve the step of the tensor that does most for the bits that this costs."""
        finer = [i for i, e in enumerate(self.exponents) if e > MIN_EXPONENT]
        self.exponents[max(finer, key=lambda i: self._cost(i) / self._sizes[i])] -= 1

    def _coarsened(self, limit: float) -> list[int]:
        """As coarse as `limit` allows, by one bit a tensor at most."""
        before, total = list(self.exponents), self.effect
        while True:
            fitting = [
                i
                for i, e in enumerate(self.exponents)
                if e < min(before[i] + 1, self._coarsest[i]) and total + 3 * self._cost(i) <= limit
            ]
            if not fitting:
                break
            best = min(fitting, key=lambda i: self._cost(i) / self._sizes[i])
            total += 3 * self._cost(best)
            self.exponents[best] += 1
        raised, self.exponents = self.exponents, before
        return raised


class _Rig:
    """Recent observations, and what the learner's own weights decide on them.

    Attributes:
        rows: How many observations there are.
    """

    def __init__(self, spec: ClientSpec, export: PolicyExport, pool: ObservationPool) -> None:
        self._spec = spec
        self._extras = export.extras
        self._observations, self._masks = pool.arrays(spec)
        self.rows = len(self._observations)
        if not self.rows:
            return
        reference = self._outputs(export.weights)
        usable = np.isfinite(reference).all(axis=1)
        self._reference = reference[usable]
        self._observations = self._observations[usable]
        if self._masks is not None:
            self._masks = self._masks[usable]
        self.rows = len(self._observations)

    def effect(self, weights: Weights) -> float:
        """What `weights` instead of the learner's do to decisions."""
        return policy_distance(
            self._spec.actions,
            self._extras.head,
            self._reference,
            self._outputs(weights),
            self._masks,
        )

    def _outputs(self, weights: Weights) -> NDArray[np.float32]:
        policy = build_policy(self._spec, weights, self._extras, 1, "")
        outputs = policy.outputs(self._observations)
        if self._extras.head != "gaussian":
            return outputs
        log_std = np.broadcast_to(weights.tensors()[LOG_STD], outputs.shape)
        return np.concatenate((outputs, log_std), axis=1)


def _first_exponents(weights: Weights) -> tuple[int, ...]:
    """Of a grid that nobody can have measured yet."""
    parts = [weights.flat[span] for span in spans(weights.layout)]
    return tuple(max(_typical_exponent(part) - FIRST_BITS, MIN_EXPONENT) for part in parts)


def _typical_exponent(part: NDArray[np.float32]) -> int:
    """log2 of a tensor's root mean square, rounded down; `MIN_EXPONENT` at least."""
    rms = float(np.sqrt(np.mean(np.square(part, dtype=np.float64))))
    return max(math.frexp(rms)[1] - 1, MIN_EXPONENT) if rms else MIN_EXPONENT + FIRST_BITS
