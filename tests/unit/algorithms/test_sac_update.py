"""What surrounds the gradient steps: cadence, publication, roll-back, resuming."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl4sys_stream.algorithms.base import Algorithm, Sample
from rl4sys_stream.algorithms.checkpoint import decode_state, encode_state
from rl4sys_stream.algorithms.registry import make_algorithm
from rl4sys_stream.algorithms.sac import SAC
from rl4sys_stream.errors import NonFiniteError, WireFormatError
from rl4sys_stream.policy.policy import build_policy
from rl4sys_stream.wire.trajectory import Trajectory
from tests.unit.algorithms.sac_samples import (
    ACTION_DIM,
    SMALL,
    SPEC,
    batch_of,
    make_sac,
    real_valued_trajectory,
)
from tests.unit.algorithms.samples import OBS_DIM, observe_all, with_rewards
from tests.unit.algorithms.test_ppo_update import assert_same_state

SWITCHES: dict[str, dict[str, object]] = {
    "plain": {},
    "fixed": {"ent_coef": 0.2, "target_update_interval": 3},
    "normalised": {
        "normalize_observations": True,
        "learning_rate_schedule": "linear",
        "total_timesteps": 400,
        "gradient_steps": -1,
    },
}


def test_before_learning_starts_nothing_is_learned() -> None:
    """No gradient step, no metrics of one; but what arrived is in the buffer."""
    sac = make_sac(learning_starts=100)
    first = sac.export()
    report = observe_all(sac, batch_of(0)).update()
    assert set(report.metrics) == {
        "train/learning_rate",
        "train/n_updates",
        "replay/size",
        "policy/lag_mean",
        "policy/lag_p50",
        "policy/lag_p90",
        "policy/lag_max",
    }
    assert report.metrics["replay/size"] == 35.0
    assert (first.weights.flat == sac.export().weights.flat).all()


def test_the_report_has_the_names_of_stable_baselines3_and_the_lag() -> None:
    """Gradient steps due at 24, 28, 32, 36 and 40; lags are averaged over steps."""
    rng = np.random.default_rng(0)
    samples = [
        Sample(real_valued_trajectory(rng, 30), 1000),
        Sample(real_valued_trajectory(rng, 10), 0),
    ]
    metrics = observe_all(make_sac(), samples).update().metrics
    assert set(metrics) == {
        "train/actor_loss",
        "train/critic_loss",
        "train/ent_coef",
        "train/ent_coef_loss",
        "train/learning_rate",
        "train/n_updates",
        "replay/size",
        "policy/lag_mean",
        "policy/lag_p50",
        "policy/lag_p90",
        "policy/lag_max",
    }
    assert metrics["train/n_updates"] == 2.0 * 5
    assert metrics["replay/size"] == 40.0
    assert metrics["policy/lag_mean"] == 750.0
    fixed = observe_all(make_sac(ent_coef=0.3), samples).update().metrics
    assert "train/ent_coef_loss" not in fixed
    assert fixed["train/ent_coef"] == pytest.approx(0.3)


def test_the_learning_rate_falls_with_the_steps_taken_in() -> None:
    """Of actor, critics and temperature: at its end nothing moves any more."""
    sac = make_sac(learning_rate_schedule="linear", total_timesteps=200)
    reports = [observe_all(sac, batch_of(seed, steps=100)).update() for seed in range(2)]
    assert [r.metrics["train/learning_rate"] for r in reports] == pytest.approx([0.005, 0.0])
    before = sac._acting.vector.clone(), sac.critics.vector.clone()
    observe_all(sac, batch_of(2)).update()
    assert torch.equal(sac._acting.vector, before[0])
    assert torch.equal(sac.critics.vector, before[1])


@pytest.mark.parametrize("switch", sorted(SWITCHES))
def test_agents_act_by_what_is_exported(switch: str) -> None:
    """Greedy actions are the means, applied actions tanh of them between the bounds."""
    sac = make_sac(**SWITCHES[switch], clip_observations=1.5)
    for seed in range(4):
        observe_all(sac, batch_of(seed)).update()
    export = sac.export()
    policy = build_policy(SPEC, export.weights, export.extras, 1, "token")
    rows = np.random.default_rng(1).standard_normal((50, OBS_DIM)).astype(np.float32) * 3
    inputs = torch.from_numpy(rows)
    norm = export.extras.normalization
    assert (norm is not None) == (switch == "normalised")
    if norm is not None:
        inputs = (inputs - torch.tensor(norm.mean)) * torch.tensor(norm.scale)
        inputs = inputs.clamp(-1.5, 1.5)
    means = sac.actor(inputs)[:, :ACTION_DIM].numpy()
    greedy = np.stack([np.asarray(policy.greedy(row, None)[0], np.float32) for row in rows])
    np.testing.assert_allclose(greedy, means, rtol=1e-4, atol=1e-5)
    applied = np.stack([np.asarray(SPEC.actions.applied(action)) for action in greedy])
    np.testing.assert_allclose(applied, 0.5 + 2.5 * np.tanh(means), rtol=1e-4, atol=1e-4)


def test_an_export_and_a_state_are_not_changed_by_later_training() -> None:
    """They may still be on their way to the broker when the next update begins."""
    sac = observe_all(make_sac(), batch_of(0))
    sac.update()
    export, state = sac.export(), sac.state()
    weights, encoded = export.weights.flat.copy(), encode_state(state)
    observe_all(sac, batch_of(1)).update()
    assert (export.weights.flat == weights).all()
    assert encode_state(state) == encoded
    assert not (sac.export().weights.flat == weights).all()


def resumed_from(sac: SAC, tail: Sequence[Trajectory], seed: int, **changes: object) -> SAC:
    """What a restart makes of it: the checkpoint's bytes, and what lies in the stream."""
    other = make_sac(seed, **changes)
    other.load_state(decode_state(encode_state(sac.state())))
    other.replay(tail[len(tail) - sac.retained :])
    return other


@given(
    switch=st.sampled_from(sorted(SWITCHES)),
    sizes=st.lists(st.integers(30, 80), min_size=2, max_size=7),
    restarts=st.sets(st.integers(0, 6), max_size=3),
)
@settings(deadline=None, max_examples=12)
def test_training_through_restarts_is_that_without_any_to_the_last_bit(
    switch: str, sizes: list[int], restarts: set[int]
) -> None:
    """However often, wherever, also when the buffer has long been full."""
    changes = SWITCHES[switch]
    original, restarted = make_sac(1, **changes), make_sac(1, **changes)
    consumed: list[Trajectory] = []
    for index, steps in enumerate(sizes):
        samples = batch_of(index, steps=steps)
        reports = [observe_all(sac, samples).update() for sac in (original, restarted)]
        consumed += [sample.trajectory for sample in samples]
        assert reports[0] == reports[1]
        assert original.retained == restarted.retained
        assert_same_state(original.state(), restarted.state())
        if index in restarts:
            restarted = resumed_from(restarted, consumed, 2, **changes)
            assert_same_state(original.state(), restarted.state())
    assert original.export().weights.digest() == restarted.export().weights.digest()


@given(
    switch=st.sampled_from(sorted(SWITCHES)),
    before=st.lists(st.integers(30, 80), max_size=4),
    trials=st.lists(st.integers(1, 300), min_size=1, max_size=3),
)
@settings(deadline=None, max_examples=12)
def test_trial_updates_are_undone_by_loading_the_state_before_them(
    switch: str, before: list[int], trials: list[int]
) -> None:
    """As the worker does when it looks for the trajectory that makes an update fail."""
    changes = SWITCHES[switch]
    tried, plain = make_sac(1, **changes), make_sac(1, **changes)
    for index, steps in enumerate(before):
        for sac in (tried, plain):
            observe_all(sac, batch_of(index, steps=steps)).update()
    state = tried.state()
    for index, steps in enumerate(trials):
        tried.discard()
        observe_all(tried, batch_of(100 + index, steps=steps)).update()
        tried.load_state(state)
        assert_same_state(tried.state(), plain.state())
    tried.discard()
    reports = [observe_all(sac, batch_of(50)).update() for sac in (tried, plain)]
    assert reports[0] == reports[1]
    assert_same_state(tried.state(), plain.state())


def test_a_learned_temperature_goes_on_where_it_was_and_a_fixed_one_is_as_set() -> None:
    """Hyperparameters may change between the runs of one client."""
    sac = make_sac(ent_coef="auto_0.1")
    assert float(sac._ent_coef()) == pytest.approx(0.1)
    observe_all(sac, batch_of(0)).update()
    learned = float(sac._ent_coef())
    assert learned != pytest.approx(0.1)
    for ent_coef, expected in (("auto", learned), (0.7, 0.7), (0.0, 0.0)):
        other = make_sac(2, ent_coef=ent_coef)
        other.load_state(sac.state())
        assert float(other._ent_coef()) == pytest.approx(expected)


def test_the_temperature_follows_the_entropy() -> None:
    """It falls while there is more entropy than is aimed at, and rises while there is less."""
    for target_entropy, falls in ((-20.0, True), (20.0, False)):
        sac = make_sac(ent_coef="auto_0.5", target_entropy=target_entropy)
        for seed in range(3):
            observe_all(sac, batch_of(seed)).update()
        assert (float(sac._ent_coef()) < 0.5) == falls


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("switch", sorted(SWITCHES))
def test_a_reward_that_cannot_be_learned_leaves_everything_as_before(
    poison: float, switch: str
) -> None:
    """Nothing half-trained, the buffer included; the samples are kept; good ones train on."""
    changes = SWITCHES[switch]
    sac, undisturbed = make_sac(1, **changes), make_sac(1, **changes)
    for one in (sac, undisturbed):
        observe_all(one, batch_of(0, steps=160)).update()
    before, size = sac.state(), sac.retained
    observe_all(sac, [with_rewards(sample, poison) for sample in batch_of(1)])
    with pytest.raises(NonFiniteError, match="would spoil the replay buffer"):
        sac.update()
    assert_same_state(sac.state(), before)
    assert sac.ready()
    assert sac.retained == size
    sac.discard()
    reports = [observe_all(one, batch_of(2)).update() for one in (sac, undisturbed)]
    assert reports[0] == reports[1]
    assert_same_state(sac.state(), undisturbed.state())


def test_critics_that_say_nan_are_noticed_before_anything_is_trained() -> None:
    """Where the actor's outputs are finite; NaN is no larger than any of them."""
    sac = make_sac()
    sac.critics.vector[0] = torch.nan
    observations = torch.tensor(batch_of(0)[0].trajectory.observations)
    assert math.isnan(sac._largest_value(observations))


@pytest.mark.parametrize("place", ["observations", "final_observation"])
def test_what_would_fail_a_later_update_fails_the_one_that_brings_it(place: str) -> None:
    """Before learning starts nothing is drawn, and yet it must not get into the buffer."""
    sac = make_sac(learning_starts=150)
    before = sac.state()
    *good, last = batch_of(1)
    rows = np.full_like(last.trajectory.observations, 3e30)
    absurd = {"observations": rows} if place == "observations" else {"final_observation": rows[0]}
    observe_all(sac, [*good, replace(last, trajectory=replace(last.trajectory, **absurd))])
    with pytest.raises(NonFiniteError, match="the value of an observation became"):
        sac.update()
    assert_same_state(sac.state(), before)
    assert len(sac.buffer) == 0


def test_extreme_actions_are_trained_on() -> None:
    """A fallback at its bounds, or an agent's raw action far out, is ±1 to the critics."""
    sac = make_sac()
    samples = batch_of(0)
    for sample in samples:
        sample.trajectory.actions[:] = 3e38
    metrics = observe_all(sac, samples).update().metrics
    assert np.isfinite(metrics["train/critic_loss"])
    assert metrics["train/n_updates"] == 6.0


def test_an_update_that_is_interrupted_leaves_everything_as_before() -> None:
    """Also by what is no Exception: a stop in the middle of it."""

    class Interrupted(SAC):
        def _descend(self, learning_rate: float) -> torch.Tensor:
            row = super()._descend(learning_rate)
            if self.n_updates == 3:
                raise KeyboardInterrupt
            return row

    sac = observe_all(Interrupted(SPEC, SMALL, seed=0), batch_of(0))
    before = sac.state()
    with pytest.raises(KeyboardInterrupt):
        sac.update()
    assert_same_state(sac.state(), before)
    assert len(sac.buffer) == 0
    assert sac.ready()


def test_the_registry_makes_it_by_name() -> None:
    """What the worker gets satisfies the protocol, and is the same for the same seed."""
    algorithm: Algorithm = make_algorithm(SPEC, SMALL, seed=3)
    assert isinstance(algorithm, SAC)
    assert_same_state(algorithm.state(), make_sac(3).state())
    assert algorithm.state().algorithm == "SAC"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: replace(s, algorithm="DQN"), "DQN"),
        (lambda s: replace(s, arrays={**s.arrays, "pi": s.arrays["pi"][1:]}), "pi"),
        (lambda s: replace(s, arrays={**s.arrays, "qf": s.arrays["qf"] * np.nan}), "qf"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(spoil, message) -> None:
    """Another algorithm, another network, or values that no update can have left."""
    sac = observe_all(make_sac(), batch_of(0))
    sac.update()
    before = sac.state()
    with pytest.raises(WireFormatError, match=message):
        sac.load_state(spoil(make_sac(9).state()))
    assert_same_state(sac.state(), before)
