"""How finely weights are published: within the budget, no finer than needed, and resumable."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from rl4sys_stream.algorithms.base import PolicyExport
from rl4sys_stream.algorithms.grid_chooser import PATIENCE, GridChooser, GridState
from rl4sys_stream.config import ClientSpec, NetworkSpec
from rl4sys_stream.errors import NonFiniteError, WireFormatError
from rl4sys_stream.policy.distance import policy_distance
from rl4sys_stream.policy.extras import BehaviorExtras, HeadName
from rl4sys_stream.policy.mlp import LOG_STD, actor_layout
from rl4sys_stream.policy.policy import build_policy
from rl4sys_stream.spaces import Box, Discrete, MultiDiscrete
from rl4sys_stream.wire.compact import encode_compact_diff
from rl4sys_stream.wire.snapshot import Weights
from rl4sys_stream.wire.trajectory import Trajectory
from tests.unit.algorithms.samples import random_trajectory

OBS_DIM = 5
NETWORK = NetworkSpec(hidden_sizes=(24, 16))
CHOICES = ClientSpec(observation_space=Box((OBS_DIM,)), action_space=Discrete(4), network=NETWORK)
FACTORS = replace(CHOICES, action_space=MultiDiscrete((3, 2)))
REALS = replace(CHOICES, action_space=Box((2,)))
HEADS: list[tuple[ClientSpec, HeadName, int]] = [
    (CHOICES, "categorical", 4),
    (CHOICES, "epsilon_greedy", 4),
    (FACTORS, "categorical", 5),
    (REALS, "gaussian", 2),
    (REALS, "state_gaussian", 4),
]
BUDGET = 1e-4


def chooser(spec: ClientSpec, state: GridState | None = None) -> GridChooser:
    """With one budget for all heads."""
    return GridChooser(spec, kl_budget=BUDGET, value_error_budget=BUDGET, state=state)


def walk(
    head: HeadName, outputs: int, versions: int, *, network: NetworkSpec = NETWORK, seed: int = 0
) -> Iterator[PolicyExport]:
    """Weights as training leaves them: a small last layer, and steps of 2 %."""
    rng = np.random.default_rng(seed)
    layout = actor_layout(OBS_DIM, network.hidden_sizes, outputs, log_std=head == "gaussian")
    epsilon = 0.1 if head == "epsilon_greedy" else None
    extras = BehaviorExtras(epsilon=epsilon, head=head)
    flat = rng.normal(0, 0.3, layout.size).astype(np.float32)
    for name, tensor in layout.split(flat).items():
        if name.endswith("bias") or name == LOG_STD:
            tensor[...] = 0.0
    for _ in range(versions):
        yield PolicyExport(Weights(layout, flat), extras)
        flat = flat + rng.normal(0, 0.006, layout.size).astype(np.float32)


def seen(number: int) -> list[Trajectory]:
    """What one update trained on."""
    rng = np.random.default_rng(1000 + number)
    return [random_trajectory(rng, 200, obs_dim=OBS_DIM, masked=False) for _ in range(4)]


def distance(spec: ClientSpec, export: PolicyExport, weights: Weights, number: int) -> float:
    """On observations that the choice did not see."""
    obs = np.concatenate([trajectory.observations for trajectory in seen(500_000 + number)])
    rows = [
        build_policy(spec, each, export.extras, 1, "").outputs(obs)
        for each in (export.weights, weights)
    ]
    if export.extras.head == "gaussian":
        log_std = [each.tensors()[LOG_STD] for each in (export.weights, weights)]
        rows = [
            np.concatenate((row, np.broadcast_to(std, row.shape)), axis=1)
            for row, std in zip(rows, log_std, strict=True)
        ]
    return policy_distance(spec.actions, export.extras.head, rows[0], rows[1])


@pytest.mark.parametrize(("spec", "head", "outputs"), HEADS)
def test_other_observations_stay_within_the_budget_and_use_much_of_it(spec, head, outputs):
    """For every way of acting: the 95th percentile below it, the median within a factor of 8."""
    choosing, found = chooser(spec), []
    for number, export in enumerate(walk(head, outputs, 30)):
        model = choosing.choose(export, seen(number) if number else [])
        if number:
            assert choosing.effect is not None
            assert choosing.effect <= BUDGET
            found.append(distance(spec, export, model.weights, number))
    assert np.quantile(found, 0.95) <= BUDGET
    assert np.median(found) >= BUDGET / 8


def test_a_wide_net_measures_one_tensor_a_version_and_stays_within_the_budget():
    """Forward passes of a wide net are what a version costs a worker that publishes often."""
    wide = NetworkSpec(hidden_sizes=(256, 256))
    spec = replace(CHOICES, network=wide)
    choosing, found, probed = chooser(spec), [], []
    for number, export in enumerate(walk("categorical", 4, 20, network=wide)):
        model = choosing.choose(export, seen(number) if number else [])
        probed.append(choosing.state.next_probe)
        if number:
            found.append(distance(spec, export, model.weights, number))
    # All of them with the first observations; from then on in turn.
    assert [(after - before) % 6 for before, after in pairwise(probed[1:])] == [1] * 18
    assert np.quantile(found, 0.95) <= BUDGET
    assert np.median(found) >= BUDGET / 8


def test_a_larger_budget_makes_smaller_diffs():
    """That is what the budget is for."""
    sizes = []
    for budget in (1e-6, 1e-4, 1e-2):
        choosing = GridChooser(CHOICES, kl_budget=budget, value_error_budget=budget)
        before, total = None, 0
        for number, export in enumerate(walk("categorical", 4, 15)):
            model = choosing.choose(export, seen(number) if number else [])
            if before is not None:
                diff = encode_compact_diff(before, model)
                assert diff is not None
                total += len(diff)
            before = model
        sizes.append(total)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[2]


def test_a_resumed_choice_continues_bit_for_bit():
    """From what the checkpoint holds, and the published weights come back with it."""
    exports = list(walk("categorical", 4, 12))
    whole = chooser(CHOICES)
    models = [whole.choose(export, seen(i) if i else []) for i, export in enumerate(exports)]
    first = chooser(CHOICES)
    for i, export in enumerate(exports[:6]):
        first.choose(export, seen(i) if i else [])
    second = chooser(CHOICES, GridState.from_bytes(first.state.to_bytes()))
    again = second.rounded(exports[5].weights)
    assert again.weights.flat.tobytes() == models[5].weights.flat.tobytes()
    assert again.exponents == models[5].exponents
    for i in range(6, 12):
        model = second.choose(exports[i], seen(i))
        assert model.weights.flat.tobytes() == models[i].weights.flat.tobytes()
    assert second.state == whole.state


def test_without_observations_the_grid_stays_as_it_is():
    """As for a version that was rolled back: the same weights on the same grid."""
    exports = list(walk("categorical", 4, 3))
    choosing = chooser(CHOICES)
    first = choosing.choose(exports[0], [])
    assert choosing.effect is None
    error = np.abs(first.weights.flat - exports[0].weights.flat).max()
    assert error < 2**-8 * np.abs(exports[0].weights.flat).max()
    choosing.choose(exports[1], seen(1))
    grid = choosing.state.exponents
    assert choosing.choose(exports[2], []).exponents == grid
    assert choosing.rounded(exports[2].weights).exponents == grid


def test_a_grid_is_refined_at_once_and_coarsened_slowly():
    """A policy that became a hundred times as sensitive, and then as it was."""
    exports = list(walk("categorical", 4, 2))
    layout = exports[0].weights.layout
    last = layout.offsets[-2]
    sharp = exports[1].weights.flat.copy()
    sharp[last:] *= 30.0
    loud = PolicyExport(Weights(layout, sharp), exports[1].extras)
    choosing = chooser(CHOICES)
    choosing.choose(exports[0], [])
    calm = choosing.choose(exports[1], seen(1)).exponents
    fine = choosing.choose(loud, seen(2))
    assert sum(fine.exponents) < sum(calm)
    assert distance(CHOICES, loud, fine.weights, 2) <= BUDGET
    steps = [choosing.choose(exports[1], seen(3 + i)).exponents for i in range(4 * PATIENCE)]
    assert steps[PATIENCE - 2] == fine.exponents
    assert sum(steps[-1]) > sum(fine.exponents)
    for before, now in zip([fine.exponents, *steps], steps, strict=False):
        assert all(b <= a + 1 for a, b in zip(before, now, strict=True))


def test_observations_without_sense_do_not_decide():
    """Rows on which the learner's own outputs are not finite are left out."""
    relu = replace(CHOICES, network=NetworkSpec(hidden_sizes=(24, 16), activation="relu"))
    exports = list(walk("categorical", 4, 2))
    wild = [replace(t, observations=np.full_like(t.observations, 3e38)) for t in seen(1)]
    choosing, calm = chooser(relu), chooser(relu)
    for each in (choosing, calm):
        each.choose(exports[0], [])
    first = choosing.state.exponents
    assert choosing.choose(exports[1], wild).exponents == first
    effects = [choosing.effect]
    choosing.choose(exports[1], [*wild, *seen(1)])
    effects.append(choosing.effect)
    assert effects[0] is None
    assert effects[1] is not None
    assert 0 < effects[1] <= BUDGET


def test_weights_that_are_not_finite_are_never_rounded():
    """They must not be published."""
    (export,) = walk("categorical", 4, 1)
    flat = export.weights.flat.copy()
    flat[3] = np.nan
    with pytest.raises(NonFiniteError, match="not finite"):
        chooser(CHOICES).choose(
            PolicyExport(Weights(export.weights.layout, flat), export.extras), []
        )


def test_a_state_that_contradicts_itself_is_refused():
    """It comes from the broker."""
    for data in (
        b"[]",
        b'{"exponents": [-7], "sensitivities": []}',
        b'{"exponents": [-99], "sensitivities": [1.0]}',
    ):
        with pytest.raises(WireFormatError, match="grid"):
            GridState.from_bytes(data)
