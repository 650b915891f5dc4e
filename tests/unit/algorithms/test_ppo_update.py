"""What surrounds the loss: readiness, schedules, metrics, publication, roll-back, resuming."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rl4sys_stream.algorithms.base import Algorithm, AlgorithmState, Sample
from rl4sys_stream.algorithms.checkpoint import decode_state, encode_state
from rl4sys_stream.algorithms.optimizer import Optimizer
from rl4sys_stream.algorithms.ppo import MAX_TRAJECTORIES, PPO
from rl4sys_stream.algorithms.registry import make_algorithm
from rl4sys_stream.config import NetworkSpec, PPOParameters
from rl4sys_stream.errors import NonFiniteError, UsageError, WireFormatError
from rl4sys_stream.policy.policy import build_policy
from rl4sys_stream.wire.trajectory import End
from tests.unit.algorithms.samples import (
    OBS_DIM,
    SMALL,
    SPEC,
    changed,
    make_ppo,
    mixed_samples,
    observe_all,
    random_trajectory,
    with_rewards,
)


def assert_same_state(one: AlgorithmState, other: AlgorithmState) -> None:
    """Equal to the last bit."""
    assert dict(one.numbers) == dict(other.numbers)
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        assert array.dtype == other.arrays[name].dtype
        assert array.tobytes() == other.arrays[name].tobytes(), name


def test_it_is_ready_at_n_steps_however_they_are_divided() -> None:
    """63 of 64 steps are not enough, one more trajectory is; what is over is used as well."""
    ppo = make_ppo()
    rng = np.random.default_rng(0)
    ppo.observe(Sample(random_trajectory(rng, 63)))
    assert not ppo.ready()
    ppo.observe(Sample(random_trajectory(rng, 10, end=End.CUT)))
    assert ppo.ready()
    report = ppo.update()
    assert (report.steps, report.trajectories) == (73, 2)
    assert not ppo.ready()


def test_it_is_ready_at_as_many_trajectories_as_a_commit_settles() -> None:
    """Otherwise one-step episodes would gather what no commit can take."""
    ppo = make_ppo(n_steps=1_000_000, batch_size=64)
    sample = Sample(random_trajectory(np.random.default_rng(0), 1))
    for _ in range(MAX_TRAJECTORIES - 1):
        ppo.observe(sample)
    assert not ppo.ready()
    ppo.observe(sample)
    assert ppo.ready()


def test_an_update_without_samples_is_refused() -> None:
    """Also after a discard, which forgets what was observed."""
    ppo = observe_all(make_ppo(), mixed_samples(0))
    ppo.discard()
    assert not ppo.ready()
    with pytest.raises(UsageError, match="observe"):
        ppo.update()


def test_the_report_has_the_names_of_stable_baselines3_and_the_lag() -> None:
    """The lag is averaged over steps: 1 step of lag 1, 31 of lag 2, 37 of lag 0."""
    metrics = observe_all(make_ppo(), mixed_samples(0)).update().metrics
    assert set(metrics) == {
        "train/approx_kl",
        "train/clip_fraction",
        "train/clip_range",
        "train/entropy_loss",
        "train/explained_variance",
        "train/grad_norm",
        "train/learning_rate",
        "train/loss",
        "train/n_updates",
        "train/policy_gradient_loss",
        "train/value_loss",
        "policy/lag_mean",
        "policy/lag_p50",
        "policy/lag_p90",
        "policy/lag_max",
    }
    assert metrics["policy/lag_mean"] == pytest.approx((1 + 2 * 31) / 69)
    assert metrics["policy/lag_p50"] == 0.0
    assert metrics["policy/lag_p90"] == 2.0
    assert metrics["policy/lag_max"] == 2.0
    assert metrics["train/n_updates"] == 3.0


def test_explained_variance_is_that_of_the_critic_before_the_update() -> None:
    """Rewards that never vary give returns of the critic's own making, and no division by 0."""
    linear = replace(SPEC, network=NetworkSpec(hidden_sizes=()))
    ppo = PPO(linear, changed(SMALL, gamma=0.0, gae_lambda=0.0), seed=0)
    ppo.critic.vector.zero_()
    samples = [with_rewards(sample, 1.0) for sample in mixed_samples(0)]
    assert observe_all(ppo, samples).update().metrics["train/explained_variance"] == 0.0


def test_an_update_ends_early_at_its_target_kl() -> None:
    """A tiny target stops within the first epoch, a huge one never."""
    impatient = observe_all(make_ppo(target_kl=1e-9, learning_rate=0.01), mixed_samples(0)).update()
    patient = observe_all(make_ppo(target_kl=1e9, learning_rate=0.01), mixed_samples(0)).update()
    assert impatient.metrics["train/n_updates"] == 1.0
    assert patient.metrics["train/n_updates"] == 3.0


def test_data_of_a_lagging_policy_is_learned_from_under_a_target_kl() -> None:
    """What it differs by beforehand does not count: the first minibatch is always stepped on."""
    ppo = make_ppo(target_kl=1e-9, learning_rate=0.01)
    before = ppo.actor.vector.clone()
    samples = mixed_samples(0)
    for sample in samples:
        sample.trajectory.log_probs[:] = -0.01
    report = observe_all(ppo, samples).update()
    assert report.metrics["train/approx_kl"] > 0.01
    assert not torch.equal(ppo.actor.vector, before)
    assert report.metrics["train/grad_norm"] > 0.0


def test_a_linear_schedule_falls_with_the_steps_trained_on() -> None:
    """Whole at first, by 69 of 200 steps less each update, and 0 after the end."""
    ppo = make_ppo(learning_rate=1.0e-3, learning_rate_schedule="linear", total_timesteps=200)
    rates = [
        observe_all(ppo, mixed_samples(0)).update().metrics["train/learning_rate"] for _ in range(4)
    ]
    assert rates == pytest.approx([1e-3, 1e-3 * 131 / 200, 1e-3 * 62 / 200, 0.0])


def test_the_clip_range_has_a_schedule_of_its_own() -> None:
    """It falls while the learning rate stays, and what it falls to is what clips."""
    ppo = make_ppo(clip_range_schedule="linear", total_timesteps=138, learning_rate=0.01)
    reports = [observe_all(ppo, mixed_samples(0)).update().metrics for _ in range(3)]
    assert [r["train/clip_range"] for r in reports] == pytest.approx([0.2, 0.1, 0.0])
    assert {r["train/learning_rate"] for r in reports} == {0.01}
    assert reports[-1]["train/clip_fraction"] == 1.0


def scaled_by(factor: float, samples: list[Sample]) -> list[Sample]:
    """`samples` with every reward multiplied."""
    return [with_rewards(s, s.trajectory.rewards * np.float32(factor)) for s in samples]


def test_the_unit_of_rewards_does_not_matter_once_they_are_normalised() -> None:
    """Thousandfold rewards train as the others do, to rounding; without it they do not."""
    updated: dict[tuple[bool, float], torch.Tensor] = {}
    for normalize_rewards in (True, False):
        for factor in (1.0, 1000.0):
            ppo = make_ppo(normalize_rewards=normalize_rewards, learning_rate=1e-3)
            for seed in (0, 1):
                observe_all(ppo, scaled_by(factor, mixed_samples(seed))).update()
            updated[normalize_rewards, factor] = ppo.critic.vector
    torch.testing.assert_close(updated[True, 1.0], updated[True, 1000.0], rtol=1e-3, atol=1e-5)
    assert (updated[False, 1.0] - updated[False, 1000.0]).abs().max() > 1e-3


def test_returns_are_summed_within_each_trajectory() -> None:
    """Their deviation is that of sums that begin anew, whatever the trajectory's end."""
    ppo = make_ppo(normalize_rewards=True, gamma=0.9)
    samples = mixed_samples(0)
    observe_all(ppo, samples).update()
    returns: list[float] = []
    for sample in samples:
        total = 0.0
        for reward in sample.trajectory.rewards.tolist():
            total = 0.9 * total + reward
            returns.append(total)
    state = ppo.state()
    assert state.numbers["returns.count"] == 69
    assert state.arrays["returns.variance"] == pytest.approx(np.var(returns))


def test_the_critic_may_have_a_learning_rate_of_its_own() -> None:
    """A tiny one leaves it almost in place, while the actor moves as before."""
    both = observe_all(make_ppo(learning_rate=1e-2), mixed_samples(0))
    apart = observe_all(make_ppo(learning_rate=1e-2, critic_learning_rate=1e-9), mixed_samples(0))
    before = apart.critic.vector.clone()
    both.update()
    apart.update()
    assert (apart.critic.vector - before).abs().max() < 1e-6
    assert (both.critic.vector - before).abs().max() > 1e-3
    assert (apart.actor.vector - make_ppo().actor.vector).abs().max() > 1e-3


@pytest.mark.parametrize("normalize_observations", [False, True])
def test_agents_compute_the_learners_logits_from_what_is_exported(
    normalize_observations: bool,
) -> None:
    """Raw observations through the numpy policy, normalised ones through torch."""
    ppo = make_ppo(normalize_observations=normalize_observations, clip_observations=1.5)
    observe_all(ppo, mixed_samples(0)).update()
    export = ppo.export()
    assert set(export.weights.tensors()) == {
        f"pi.{i}.{p}" for i in range(3) for p in ("weight", "bias")
    }
    policy = build_policy(SPEC, export.weights, export.extras, 1, "token")
    rows = (np.random.default_rng(1).standard_normal((50, OBS_DIM)) * 3).astype(np.float32)
    inputs = rows
    if normalize_observations:
        seen = np.concatenate([s.trajectory.observations for s in mixed_samples(0)]).astype(float)
        inputs = ((rows - seen.mean(axis=0)) / seen.std(axis=0)).clip(-1.5, 1.5).astype(np.float32)
    with torch.no_grad():
        expected = ppo.actor(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(policy.outputs(rows), expected, atol=1e-5)


def test_an_export_is_not_changed_by_later_training() -> None:
    """It may still be on its way to the broker when the next update begins."""
    ppo = observe_all(make_ppo(), mixed_samples(0))
    export = ppo.export()
    before = export.weights.flat.copy()
    ppo.update()
    assert (export.weights.flat == before).all()
    assert not (ppo.export().weights.flat == before).all()


def test_data_of_an_older_policy_is_corrected_by_its_logged_probabilities() -> None:
    """Twice the behaviour probability halves each ratio, which a loss without clipping shows."""
    samples = mixed_samples(0)
    on_policy = observe_all(make_ppo(n_epochs=1, batch_size=64), samples).update().metrics
    doubled = [
        replace(
            s,
            trajectory=replace(
                s.trajectory, log_probs=s.trajectory.log_probs + np.log(2.0, dtype=np.float32)
            ),
        )
        for s in samples
    ]
    lagging = observe_all(make_ppo(n_epochs=1, batch_size=64), doubled).update().metrics
    assert on_policy["train/approx_kl"] == pytest.approx(0.0, abs=1e-4)
    assert lagging["train/approx_kl"] == pytest.approx(np.log(2.0) - 0.5, abs=1e-2)
    assert lagging["train/clip_fraction"] == 1.0


@pytest.mark.parametrize("normalize_observations", [False, True])
def test_a_resumed_algorithm_continues_to_the_last_bit(normalize_observations: bool) -> None:
    """Through bytes, into an instance of another seed, over several updates on schedules."""
    options: dict[str, object] = {
        "learning_rate_schedule": "linear",
        "clip_range_schedule": "linear",
        "normalize_rewards": True,
        "vtrace": True,
        "total_timesteps": 1000,
        "critic_learning_rate": 1e-3,
        "normalize_observations": normalize_observations,
    }
    original = observe_all(make_ppo(1, **options), mixed_samples(0))
    original.update()
    resumed = make_ppo(2, **options)
    resumed.load_state(decode_state(encode_state(original.state())))
    assert_same_state(resumed.state(), original.state())
    for seed in (1, 2, 3):
        reports = [observe_all(ppo, mixed_samples(seed)).update() for ppo in (original, resumed)]
        assert reports[0] == reports[1]
        assert_same_state(resumed.state(), original.state())
    assert resumed.export().weights.digest() == original.export().weights.digest()


def test_a_state_is_not_changed_by_later_training() -> None:
    """The worker may still be writing the checkpoint when the next update begins."""
    ppo = observe_all(make_ppo(), mixed_samples(0))
    state = ppo.state()
    encoded = encode_state(state)
    ppo.update()
    assert encode_state(state) == encoded
    assert encode_state(ppo.state()) != encoded


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, np.float32(3e38)])
@pytest.mark.parametrize("switch", ["normalize_observations", "normalize_advantage", "vtrace"])
def test_a_reward_that_is_not_finite_leaves_everything_as_before(
    poison: float, switch: str
) -> None:
    """One bad reward among 69 steps: weights, moments, statistics, generator, counters."""
    ppo = make_ppo(seed=0, **{switch: True})
    observe_all(ppo, mixed_samples(0)).update()
    before, exported = ppo.state(), ppo.export().weights.digest()
    samples = mixed_samples(1)
    samples[2].trajectory.rewards[7:9] = poison
    observe_all(ppo, samples)
    with pytest.raises(NonFiniteError, match="rolled back"):
        ppo.update()
    assert_same_state(ppo.state(), before)
    assert ppo.export().weights.digest() == exported
    assert ppo.ready()  # the samples are kept, for the worker to decide about


def test_an_observation_that_is_not_finite_leaves_the_statistics_as_before() -> None:
    """The normaliser would carry it for ever."""
    ppo = make_ppo(normalize_observations=True)
    observe_all(ppo, mixed_samples(0)).update()
    before = ppo.state()
    samples = mixed_samples(1)
    samples[0].trajectory.observations[3, 1] = np.nan
    with pytest.raises(NonFiniteError):
        observe_all(ppo, samples).update()
    assert_same_state(ppo.state(), before)


def test_a_reward_that_is_not_finite_leaves_the_statistics_of_returns_as_before() -> None:
    """They would carry it for ever, too."""
    ppo = make_ppo(normalize_rewards=True)
    observe_all(ppo, mixed_samples(0)).update()
    before = ppo.state()
    samples = mixed_samples(1)
    samples[0].trajectory.rewards[3] = np.nan
    with pytest.raises(NonFiniteError):
        observe_all(ppo, samples).update()
    assert_same_state(ppo.state(), before)


def test_training_goes_on_after_the_bad_samples_are_discarded() -> None:
    """As if they had never come: the same next update as an instance that never saw them."""
    poisoned, clean = make_ppo(), make_ppo()
    with pytest.raises(NonFiniteError):
        observe_all(poisoned, [with_rewards(s, np.inf) for s in mixed_samples(1)]).update()
    poisoned.discard()
    for ppo in (poisoned, clean):
        observe_all(ppo, mixed_samples(2)).update()
    assert_same_state(poisoned.state(), clean.state())


def test_an_interrupted_update_leaves_everything_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal in the middle of an epoch must not leave a half-trained policy."""
    ppo = observe_all(make_ppo(), mixed_samples(0))
    before = ppo.state()
    step, calls = Optimizer.step, []

    def interrupt(self: Optimizer, max_grad_norm: float) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return step(self, max_grad_norm)

    monkeypatch.setattr(Optimizer, "step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ppo.update()
    assert_same_state(ppo.state(), before)
    assert ppo.ready()


def test_the_seed_decides_the_whole_training() -> None:
    """Same seed and samples, same bits; another seed, others. Global generators do not matter."""
    digests = []
    for seed, noise in ((5, 1), (5, 2), (6, 1)):
        torch.manual_seed(noise)
        ppo = observe_all(make_ppo(seed), mixed_samples(0))
        ppo.update()
        digests.append(ppo.export().weights.digest())
    assert digests[0] == digests[1] != digests[2]


def test_the_registry_makes_it_by_name() -> None:
    """What the worker gets satisfies the protocol."""
    algorithm: Algorithm = make_algorithm(SPEC, PPOParameters(), seed=3)
    assert isinstance(algorithm, PPO)
    assert algorithm.state().algorithm == "PPO"


def without(state: AlgorithmState, name: str) -> AlgorithmState:
    """`state` less one array."""
    return replace(state, arrays={k: v for k, v in state.arrays.items() if k != name})


def with_array(state: AlgorithmState, name: str, array: np.ndarray) -> AlgorithmState:
    """`state` with one array replaced."""
    return replace(state, arrays={**state.arrays, name: array})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: replace(s, algorithm="DQN"), "DQN"),
        (lambda s: without(s, "vf"), "holds"),
        (lambda s: with_array(s, "pi", s.arrays["pi"][:-1]), "pi"),
        (lambda s: with_array(s, "pi", s.arrays["pi"].astype(np.float64)), "float64"),
        (lambda s: with_array(s, "pi", s.arrays["pi"] * np.float32(np.nan)), "not finite"),
        (lambda s: with_array(s, "generator", s.arrays["generator"] * 0 + 255), "generator"),
        (lambda s: replace(s, numbers={**s.numbers, "n_updates": -1}), "n_updates"),
        (lambda s: replace(s, numbers={}), r"holds \[\]"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(spoil, message) -> None:
    """Another algorithm, another network, or values that no update can have left."""
    ppo = observe_all(make_ppo(), mixed_samples(0))
    ppo.update()
    before = ppo.state()
    with pytest.raises(WireFormatError, match=message):
        ppo.load_state(spoil(make_ppo(9).state()))
    assert_same_state(ppo.state(), before)
