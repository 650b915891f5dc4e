"""What surrounds the gradient steps: cadence, schedules, publication, roll-back, resuming."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl4sys_stream.algorithms.base import Algorithm, Sample
from rl4sys_stream.algorithms.checkpoint import decode_state, encode_state
from rl4sys_stream.algorithms.dqn import DQN
from rl4sys_stream.algorithms.off_policy import MAX_TRAJECTORIES
from rl4sys_stream.algorithms.registry import make_algorithm
from rl4sys_stream.config import DQNParameters
from rl4sys_stream.errors import NonFiniteError, UsageError, WireFormatError
from rl4sys_stream.policy.policy import build_policy
from rl4sys_stream.wire.trajectory import End, Trajectory
from tests.unit.algorithms.dqn_samples import SMALL, SPEC, batch_of, make_dqn
from tests.unit.algorithms.samples import OBS_DIM, observe_all, random_trajectory, with_rewards
from tests.unit.algorithms.test_ppo_update import assert_same_state

SWITCHES: dict[str, dict[str, object]] = {
    "plain": {},
    "polyak": {"tau": 0.05, "target_update_interval": 1, "gradient_steps": -1},
    "normalised": {"normalize_observations": True, "learning_rate_schedule": "linear"},
    "all": {
        "double_q": True,
        "dueling": True,
        "n_step": 3,
        "prioritized_replay": True,
        "normalize_observations": True,
    },
}
UNIFORM = {name: changes for name, changes in SWITCHES.items() if name != "all"} | {
    "most": {**SWITCHES["all"], "prioritized_replay": False}
}


class Recording(DQN):
    """A DQN that writes down when it would do what."""

    events: list[tuple[str, int, int]]
    now = 0

    def _train(self, steps: range) -> dict[str, float]:
        self.events = getattr(self, "events", [])
        for step in steps:
            self.now = step
            super()._train(range(step, step + 1))
        return {}

    def _move_target(self) -> None:
        self.events.append(("target", self.now, 1))

    def _descend(self, due: Sequence[int], measured: object) -> None:
        if due:
            self.events.append(("train", self.now, len(due)))


@pytest.mark.parametrize(
    ("train_freq", "gradient_steps", "interval", "starts"),
    [(4, 1, 10, 20), (4, -1, 8, 0), (7, 3, 10, 33), (1, 1, 1, 5), (64, 32, 10, 100)],
)
def test_steps_are_due_when_stable_baselines3_does_them(
    train_freq: int, gradient_steps: int, interval: int, starts: int
) -> None:
    """Its own loop over 150 steps of a real environment, and ours over trajectories of 30."""
    expected: list[tuple[str, int, int]] = []

    class Theirs(stable_baselines3.DQN):
        def train(self, gradient_steps: int, batch_size: int = 100) -> None:
            expected.append(("train", self.num_timesteps, gradient_steps))

        def _on_step(self) -> None:
            super()._on_step()
            if self._n_calls % self.target_update_interval == 0:
                expected.append(("target", self.num_timesteps, 1))

    cadence: dict[str, Any] = {
        "train_freq": train_freq,
        "gradient_steps": gradient_steps,
        "target_update_interval": interval,
        "learning_starts": starts,
    }
    env = gymnasium.make("CartPole-v1")
    Theirs("MlpPolicy", env, buffer_size=500, device="cpu", **cadence).learn(150)
    parameters = DQNParameters.from_json({**SMALL.to_json(), **cadence})
    ours = Recording(SPEC, parameters, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(5):
        ours.observe(Sample(random_trajectory(rng, 30)))
        ours.update()
    assert ours.events == [event for event in expected if event[1] <= 150]


def test_it_is_ready_at_update_steps_however_they_are_divided() -> None:
    """29 of 30 steps are not enough, one more trajectory is."""
    dqn = make_dqn()
    rng = np.random.default_rng(0)
    dqn.observe(Sample(random_trajectory(rng, 29)))
    assert not dqn.ready()
    dqn.observe(Sample(random_trajectory(rng, 10, end=End.CUT)))
    assert dqn.ready()
    report = dqn.update()
    assert (report.steps, report.trajectories) == (39, 2)
    assert not dqn.ready()


def test_it_is_ready_at_as_many_trajectories_as_a_commit_settles() -> None:
    """Otherwise one-step episodes would gather what no commit can take."""
    dqn = make_dqn(update_steps=100_000, buffer_size=100_000)
    sample = Sample(random_trajectory(np.random.default_rng(0), 1))
    for _ in range(MAX_TRAJECTORIES - 1):
        dqn.observe(sample)
    assert not dqn.ready()
    dqn.observe(sample)
    assert dqn.ready()


def test_an_update_without_samples_is_refused() -> None:
    """Also after a discard, which forgets what was observed, but not what is in the buffer."""
    dqn = observe_all(make_dqn(), batch_of(0))
    dqn.update()
    observe_all(dqn, batch_of(1)).discard()
    assert not dqn.ready()
    assert len(dqn.buffer) == 35
    with pytest.raises(UsageError, match="observe"):
        dqn.update()


def test_before_learning_starts_versions_differ_in_their_exploration_alone() -> None:
    """No gradient step, no metrics of one; but the exploration rate falls."""
    dqn = make_dqn(learning_starts=100)
    first = dqn.export()
    report = observe_all(dqn, batch_of(0)).update()
    assert set(report.metrics) == {
        "rollout/exploration_rate",
        "train/learning_rate",
        "train/n_updates",
        "replay/size",
        "policy/lag_mean",
        "policy/lag_p50",
        "policy/lag_p90",
        "policy/lag_max",
    }
    second = dqn.export()
    assert (first.weights.flat == second.weights.flat).all()
    assert first.extras.epsilon == 1.0
    assert second.extras.epsilon == pytest.approx(1.0 - 0.95 * 35 / 100)


@pytest.mark.parametrize("switch", sorted(SWITCHES))
def test_without_a_step_to_draw_nothing_is_trained(switch: str) -> None:
    """Single steps of which none says what is allowed next; training begins with the next ones."""
    dqn = make_dqn(learning_starts=0, **SWITCHES[switch])
    alone = random_trajectory(np.random.default_rng(0), 1, end=End.CUT, masked=True)
    report = observe_all(dqn, [Sample(replace(alone, final_mask=None))] * 30).update()
    assert (report.steps, len(dqn.buffer), dqn.retained) == (30, 0, 30)
    assert report.metrics["train/n_updates"] == 0.0
    assert observe_all(dqn, batch_of(0)).update().metrics["train/n_updates"] > 0.0


def test_the_report_has_the_names_of_stable_baselines3_and_the_lag() -> None:
    """Lags are averaged over steps; any behaviour version is trained on."""
    samples = [
        Sample(random_trajectory(np.random.default_rng(0), 30), 1000),
        Sample(random_trajectory(np.random.default_rng(1), 10), 0),
    ]
    metrics = observe_all(make_dqn(), samples).update().metrics
    assert {"train/loss", "train/grad_norm", "train/mean_q"} < set(metrics)
    assert metrics["train/n_updates"] == 2.0 * 5
    assert metrics["replay/size"] == 40.0
    assert metrics["policy/lag_mean"] == 750.0
    assert metrics["policy/lag_max"] == 1000.0
    assert metrics["rollout/exploration_rate"] == pytest.approx(1.0 - 0.95 * 40 / 100)


def test_schedules_follow_the_steps_taken_in() -> None:
    """Exploration over a tenth of the steps, a linear rate over all; both stay at their ends."""
    dqn = make_dqn(learning_rate_schedule="linear", total_timesteps=400)
    reports = [observe_all(dqn, batch_of(seed, steps=100)).update() for seed in range(5)]
    rates = [report.metrics["train/learning_rate"] for report in reports]
    assert rates == pytest.approx([0.0075, 0.005, 0.0025, 0.0, 0.0])
    assert [r.metrics["rollout/exploration_rate"] for r in reports] == [0.05] * 5


def test_agents_act_by_what_is_exported() -> None:
    """Values through the numpy policy; of a dueling network the advantages, the same greedily."""
    rows = np.random.default_rng(1).standard_normal((200, OBS_DIM)).astype(np.float32) * 3
    for changes in SWITCHES.values():
        dqn = make_dqn(**changes, clip_observations=1.5)
        for seed in range(4):
            observe_all(dqn, batch_of(seed)).update()
        export = dqn.export()
        policy = build_policy(SPEC, export.weights, export.extras, 1, "token")
        inputs = torch.from_numpy(rows)
        if (norm := export.extras.normalization) is not None:
            inputs = ((inputs - torch.tensor(norm.mean)) * torch.tensor(norm.scale)).clamp(
                -1.5, 1.5
            )
        values = dqn.online(inputs)
        greedy = [policy.greedy(row, None)[0] for row in rows]
        margin = values.topk(2, dim=1).values.diff(dim=1).abs()[:, 0] > 1e-4
        assert np.array(greedy)[margin].tolist() == values.argmax(dim=1)[margin].tolist()


def test_an_export_and_a_state_are_not_changed_by_later_training() -> None:
    """They may still be on their way to the broker when the next update begins."""
    dqn = observe_all(make_dqn(), batch_of(0))
    dqn.update()
    export, state = dqn.export(), dqn.state()
    weights, encoded = export.weights.flat.copy(), encode_state(state)
    observe_all(dqn, batch_of(1)).update()
    assert (export.weights.flat == weights).all()
    assert encode_state(state) == encoded
    assert not (dqn.export().weights.flat == weights).all()


def resumed_from(dqn: DQN, tail: Sequence[Trajectory], seed: int, **changes: object) -> DQN:
    """What a restart makes of it: the checkpoint's bytes, and what lies in the stream."""
    other = make_dqn(seed, **changes)
    other.load_state(decode_state(encode_state(dqn.state())))
    other.replay(tail[len(tail) - dqn.retained :])
    return other


@given(
    switch=st.sampled_from(sorted(UNIFORM)),
    sizes=st.lists(st.integers(30, 80), min_size=2, max_size=7),
    masked=st.booleans(),
    restarts=st.sets(st.integers(0, 6), max_size=3),
)
@settings(deadline=None, max_examples=15)
def test_training_through_restarts_is_that_without_any_to_the_last_bit(
    switch: str, sizes: list[int], masked: bool, restarts: set[int]
) -> None:
    """However often, wherever, also when the buffer has long been full."""
    changes = UNIFORM[switch]
    original, restarted = make_dqn(1, **changes), make_dqn(1, **changes)
    consumed: list[Trajectory] = []
    for index, steps in enumerate(sizes):
        samples = batch_of(index, masked=masked and index > 1, steps=steps)
        reports = [observe_all(dqn, samples).update() for dqn in (original, restarted)]
        consumed += [sample.trajectory for sample in samples]
        assert reports[0] == reports[1]
        assert original.retained == restarted.retained
        assert_same_state(original.state(), restarted.state())
        if index in restarts:
            restarted = resumed_from(restarted, consumed, 2, **changes)
            assert_same_state(original.state(), restarted.state())
            assert original.retained == restarted.retained
    assert original.export().weights.digest() == restarted.export().weights.digest()


@pytest.mark.parametrize("switch", sorted(SWITCHES))
@given(
    before=st.lists(st.integers(30, 80), min_size=1, max_size=5),
    trials=st.lists(st.integers(30, 300), min_size=1, max_size=3),
)
@settings(deadline=None, max_examples=4)
def test_trial_updates_are_undone_by_loading_the_state_before_them(
    switch: str, before: list[int], trials: list[int]
) -> None:
    """As the worker does when it looks for the trajectory that makes an update fail."""
    changes = SWITCHES[switch]
    tried, plain = make_dqn(1, **changes), make_dqn(1, **changes)
    for index, steps in enumerate(before):
        for dqn in (tried, plain):
            observe_all(dqn, batch_of(index, steps=steps)).update()
    state = tried.state()
    for index, steps in enumerate(trials):
        tried.discard()
        observe_all(tried, batch_of(100 + index, steps=steps)).update()
        tried.load_state(state)
        assert tried.retained == plain.retained
        assert_same_state(tried.state(), plain.state())
    tried.discard()
    for index in (50, 51):
        reports = [observe_all(dqn, batch_of(index)).update() for dqn in (tried, plain)]
        assert reports[0] == reports[1]
        assert_same_state(tried.state(), plain.state())


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 3e38, -2e15])
@pytest.mark.parametrize("switch", sorted(SWITCHES))
def test_a_reward_that_would_spoil_the_buffer_leaves_everything_as_before(
    poison: float, switch: str
) -> None:
    """Nothing half-trained, the buffer included; the samples are kept; good ones train on."""
    changes = {**SWITCHES[switch], "gradient_steps": 10}
    dqn, undisturbed = make_dqn(1, **changes), make_dqn(1, **changes)
    for one in (dqn, undisturbed):
        observe_all(one, batch_of(0, steps=160)).update()
    before, size = dqn.state(), dqn.retained
    poisoned = [with_rewards(sample, poison) for sample in batch_of(1)]
    observe_all(dqn, poisoned)
    with pytest.raises(NonFiniteError, match="would spoil the replay buffer"):
        dqn.update()
    assert_same_state(dqn.state(), before)
    assert dqn.ready()
    assert dqn.retained == size
    dqn.discard()
    reports = [observe_all(one, batch_of(2)).update() for one in (dqn, undisturbed)]
    assert reports[0] == reports[1]
    assert_same_state(dqn.state(), undisturbed.state())


def test_absurd_rewards_are_trained_on_while_their_squares_are_finite() -> None:
    """The loss grows by their size, its slope does not."""
    dqn = make_dqn()
    samples = [with_rewards(sample, 9e14) for sample in batch_of(1)]
    metrics = observe_all(dqn, samples).update().metrics
    assert 1e14 < metrics["train/loss"] < 1e16
    assert np.isfinite(observe_all(dqn, batch_of(2)).update().metrics["train/grad_norm"])


@pytest.mark.parametrize("place", ["observations", "final_observation"])
def test_what_would_fail_a_later_update_fails_the_one_that_brings_it(place: str) -> None:
    """Before learning starts nothing is drawn, and yet it must not get into the buffer."""
    dqn = make_dqn(learning_starts=150)
    before = dqn.state()
    *good, last = batch_of(1)
    rows = np.full_like(last.trajectory.observations, 3e30)
    absurd = {"observations": rows} if place == "observations" else {"final_observation": rows[0]}
    observe_all(dqn, [*good, replace(last, trajectory=replace(last.trajectory, **absurd))])
    with pytest.raises(NonFiniteError, match="the value of an observation became"):
        dqn.update()
    assert_same_state(dqn.state(), before)
    assert len(dqn.buffer) == 0


@pytest.mark.parametrize("switch", sorted(SWITCHES))
def test_an_update_that_is_interrupted_leaves_everything_as_before(switch: str) -> None:
    """Also by what is no Exception: a stop in the middle of it."""

    class Interrupted(DQN):
        stops = False

        def _step(self, learning_rate: float) -> torch.Tensor:
            if self.stops and self.n_updates % 7 == 5:
                raise KeyboardInterrupt
            return super()._step(learning_rate)

    parameters = make_dqn(**SWITCHES[switch])._parameters
    dqn, undisturbed = Interrupted(SPEC, parameters, seed=1), DQN(SPEC, parameters, seed=1)
    for one in (dqn, undisturbed):
        observe_all(one, batch_of(0, steps=160)).update()
    before, retained = dqn.state(), dqn.retained
    dqn.stops = True
    with pytest.raises(KeyboardInterrupt):
        observe_all(dqn, batch_of(1)).update()
    assert_same_state(dqn.state(), before)
    assert dqn.retained == retained
    assert dqn.ready()
    dqn.stops = False
    dqn.discard()
    for seed in (1, 2):
        reports = [observe_all(one, batch_of(seed)).update() for one in (dqn, undisturbed)]
        assert reports[0] == reports[1]
    assert_same_state(dqn.state(), undisturbed.state())


def test_observations_are_normalised_by_all_that_were_taken_in() -> None:
    """Also by those that the buffer has let go; what was drawn is as agents see it."""
    dqn = make_dqn(normalize_observations=True, clip_observations=1.5)
    seen = []
    for seed in range(6):
        samples = batch_of(seed, steps=60)
        seen += [sample.trajectory.observations for sample in samples]
        observe_all(dqn, samples).update()
    rows = np.concatenate(seen).astype(float)
    normalization = dqn.export().extras.normalization
    assert normalization is not None
    np.testing.assert_allclose(normalization.mean, rows.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(normalization.scale, 1 / rows.std(axis=0), rtol=1e-5)
    slots = dqn.buffer.draw(500, torch.Generator().manual_seed(0))
    raw, drawn = dqn.buffer.gather(slots), dqn._gather(slots)
    for before, after in (
        (raw.observations, drawn.observations),
        (raw.next_observations, drawn.next_observations),
    ):
        expected = (before.numpy() - rows.mean(axis=0)) / rows.std(axis=0)
        np.testing.assert_allclose(after.numpy(), expected.clip(-1.5, 1.5), atol=1e-4)


def test_prioritised_replay_goes_on_after_a_restart_with_all_priorities_new() -> None:
    """They are not in the checkpoint; everything else is."""
    changes = SWITCHES["all"]
    dqn = make_dqn(1, **changes)
    consumed = []
    for seed in range(5):
        samples = batch_of(seed, steps=50)
        consumed += [sample.trajectory for sample in samples]
        observe_all(dqn, samples).update()
    other = resumed_from(dqn, consumed, 2, **changes)
    assert_same_state(dqn.state(), other.state())
    observe_all(other, batch_of(9)).update()
    assert other._priorities is not None
    assert len(other._priorities._positions) == len(other.buffer)
    assert set(np.unique(other._priorities._levels[0] > 0)) == {False, True}


def test_what_the_buffer_keeps_is_bounded_and_reported() -> None:
    """The newest whole trajectories within its size, whatever the updates bring."""
    dqn = make_dqn()
    lengths: list[int] = []
    for seed in range(20):
        samples = batch_of(seed, steps=30 + 15 * seed)
        lengths += [len(sample.trajectory.actions) for sample in samples]
        observe_all(dqn, samples).update()
        kept, total = 0, 0
        while kept < len(lengths) and total + lengths[-1 - kept] <= 150:
            total += lengths[-1 - kept]
            kept += 1
        assert dqn.retained == kept
        assert len(dqn.buffer) <= 150 + 30 + 15 * seed


def test_the_state_of_another_history_empties_the_buffer() -> None:
    """What was learned elsewhere was not learned from these."""
    ours, theirs = make_dqn(1), make_dqn(1)
    observe_all(ours, batch_of(1)).update()
    observe_all(theirs, batch_of(2)).update()
    ours.load_state(theirs.state())
    assert ours.retained == 0
    assert_same_state(ours.state(), theirs.state())


def test_the_registry_makes_it_by_name() -> None:
    """What the worker gets satisfies the protocol."""
    algorithm: Algorithm = make_algorithm(SPEC, SMALL, seed=3)
    assert isinstance(algorithm, DQN)
    assert algorithm.state().algorithm == "DQN"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: replace(s, algorithm="PPO"), "PPO"),
        (lambda s: replace(s, numbers={**s.numbers, "replay.mark": -1}), "replay.mark"),
        (lambda s: replace(s, arrays={**s.arrays, "pi": s.arrays["pi"][1:]}), "pi"),
        (
            lambda s: replace(s, arrays={**s.arrays, "generator": s.arrays["generator"] * 0 + 255}),
            "generator",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(spoil, message) -> None:
    """Another algorithm, another network, or values that no update can have left."""
    dqn = observe_all(make_dqn(), batch_of(0))
    dqn.update()
    before = dqn.state()
    with pytest.raises(WireFormatError, match=message):
        dqn.load_state(spoil(make_dqn(9).state()))
    assert_same_state(dqn.state(), before)
    assert dqn.retained == len(batch_of(0))


def test_a_parameter_that_changes_the_network_is_named_with_the_next_move() -> None:
    """All others may change from run to run, so nobody expects it of this one."""
    with pytest.raises(WireFormatError, match=r"change them back, or .* clients reset"):
        make_dqn(dueling=True).load_state(make_dqn().state())
