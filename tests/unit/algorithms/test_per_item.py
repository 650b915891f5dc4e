"""Learning to choose among items: gradients, what the critic sees, statistics, resuming."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl4sys_stream.algorithms.base import Sample
from rl4sys_stream.algorithms.checkpoint import decode_state, encode_state
from rl4sys_stream.algorithms.networks import PerItemActorCritic, item_pools
from rl4sys_stream.algorithms.ppo import PPO
from rl4sys_stream.algorithms.rollout import make_rollout, observed_inputs
from rl4sys_stream.config import ClientSpec, NetworkSpec
from rl4sys_stream.policy.policy import build_policy
from rl4sys_stream.spaces import Box, Discrete
from rl4sys_stream.wire.trajectory import BehaviorRun, End, Trajectory
from tests.unit.algorithms.samples import SMALL, changed, observe_all
from tests.unit.algorithms.test_network_gradients import Case, assert_gradient, cases, plain_layers
from tests.unit.algorithms.test_ppo_update import assert_same_state

ITEMS, FEATURES = 5, 3
SPEC = ClientSpec(
    observation_space=Box((ITEMS, FEATURES)),
    action_space=Discrete(ITEMS),
    network=NetworkSpec(hidden_sizes=(8,), critic_hidden_sizes=(6,), per_item=True),
)


def random_masks(rng: np.random.Generator, rows: int, items: int) -> np.ndarray:
    """Bool [rows, items], at least one true in each row."""
    masks = rng.random((rows, items)) < 0.5
    masks[np.arange(rows), rng.integers(0, items, rows)] = True
    return masks


def acted(ppo: PPO, seed: int, *, masked: bool = True) -> list[Sample]:
    """What an agent with the exported policy records, in trajectories of all three ends."""
    rng, export = np.random.default_rng(seed), ppo.export()
    policy = build_policy(SPEC, export.weights, export.extras, 1, "token")
    samples: list[Sample] = []
    for steps, end in ((20, End.TERMINATED), (17, End.CUT), (31, End.TRUNCATED)):
        rows = rng.normal(1, 2, (steps + 1, ITEMS * FEATURES)).astype(np.float32)
        masks = random_masks(rng, steps, ITEMS) if masked else None
        chosen = [
            policy.act(rows[t], None if masks is None else masks[t], rng.random)
            for t in range(steps)
        ]
        trajectory = Trajectory(
            observations=rows[:steps],
            actions=np.array([raw for raw, _ in chosen]),
            rewards=rng.standard_normal(steps).astype(np.float32),
            log_probs=np.array([log_prob for _, log_prob in chosen], np.float32),
            masks=masks,
            final_observation=None if end is End.TERMINATED else rows[steps],
            end=end,
            behavior=(BehaviorRun(1, "token", steps),),
            episode=0,
            offset=0,
            created_ms=0,
        )
        samples.append(Sample(trajectory))
    return samples


def made(**changes: object) -> PPO:
    """A small PPO that chooses among items."""
    return PPO(SPEC, changed(SMALL, **changes), seed=0)


@settings(deadline=None)  # autograd takes a second to start
@given(cases(), st.booleans())
def test_actor_and_critic_have_the_gradient_of_their_joint_loss(case: Case, masked: bool) -> None:
    """Written plainly: every item through the actor, the critic on pools of those that exist."""
    items, features = case.outputs, case.obs_dim
    spec = NetworkSpec(
        hidden_sizes=case.spec.hidden_sizes,
        activation=case.spec.activation,
        critic_hidden_sizes=case.spec.critic_hidden_sizes,
        per_item=True,
    )
    network = PerItemActorCritic(items, features, spec, case.generator())
    network.vector.add_(torch.randn(len(network.vector), generator=case.generator()), alpha=0.5)
    network.gradient.fill_(torch.nan)  # what is not overwritten shows
    flat = network.vector.clone().requires_grad_()
    observations = case.random(items * features)
    rng = np.random.default_rng(case.seed)
    masks = torch.from_numpy(random_masks(rng, case.rows, items)) if masked else None
    exists = torch.ones(case.rows, items) if masks is None else masks.float()

    rows = observations.view(-1, features)
    acting, rest = plain_layers(flat, (features, *spec.hidden_sizes, 1), spec.activation, rows)
    logits = acting[-1].view(case.rows, items) * exists
    pools = torch.stack(
        [
            torch.cat([kept.mean(0), kept.amax(0), kept.amin(0), torch.tensor([len(kept)]).log1p()])
            for kept in (
                one.view(items, features)[there.bool()]
                for one, there in zip(observations, exists, strict=True)
            )
        ]
    )
    valuing, rest = plain_layers(
        rest, (3 * features + 1, *spec.critic_own_sizes, 1), spec.activation, pools
    )
    assert not len(rest)
    slopes = case.random(items) * exists
    loss = (logits * slopes).sum() + (valuing[-1] * case.random(1)).sum()
    trace = network.trace(observations, masks)
    torch.testing.assert_close(trace.actor[-1], logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.outputs(observations, masks), logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trace.critic[-1], valuing[-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.values(observations, masks), trace.critic[-1])
    network.backpropagate(trace, slopes, case.random(1))
    assert_gradient(loss, flat, network.gradient)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 99))
def test_a_value_depends_on_neither_the_order_nor_the_padding(
    items: int, padding: int, seed: int
) -> None:
    """The critic takes in pools alone, and those are over what exists."""
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(rng.normal(0, 2, (4, items, FEATURES)).astype(np.float32))
    order = torch.from_numpy(rng.permutation(items))
    padded = torch.cat([rows[:, order], torch.full((4, padding, FEATURES), 1e6)], dim=1)
    masks = (torch.arange(items + padding) < items).expand(4, -1)
    torch.testing.assert_close(item_pools(padded, masks), item_pools(rows, None))
    assert item_pools(rows, None)[0, -1] == pytest.approx(np.log1p(items))


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_learner_finds_the_probabilities_that_its_policy_logged(
    masked: bool, normalized: bool
) -> None:
    """Each ratio is 1 before the first step: items, masks and statistics agree on both sides."""
    ppo = made(learning_rate=0.03, n_epochs=20, normalize_observations=normalized)
    observe_all(ppo, acted(ppo, 0, masked=masked)).update()
    rollout = make_rollout(
        [sample.trajectory for sample in acted(ppo, 1, masked=masked)],
        ppo._networks.values,
        ppo.export().extras.normalization,
        gamma=0.9,
        gae_lambda=0.9,
    )
    own = ppo._log_probs(rollout)
    assert own.std() > 0.05
    torch.testing.assert_close(own, rollout.log_probs, rtol=1e-4, atol=2e-5)


def test_statistics_are_of_items_and_only_of_those_that_exist() -> None:
    """One mean a feature, so that no place in the queue is special, and padding does not count."""
    ppo = made(normalize_observations=True)
    samples = acted(ppo, 0)
    kept = np.concatenate(
        [
            s.trajectory.observations.reshape(-1, ITEMS, FEATURES)[s.trajectory.masks]
            for s in samples
        ]
    )
    assert (observed_inputs([s.trajectory for s in samples], FEATURES) == kept).all()
    observe_all(ppo, samples).update()
    norm = ppo.export().extras.normalization
    assert norm is not None
    np.testing.assert_allclose(norm.mean, kept.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(norm.scale, 1 / kept.std(axis=0), rtol=1e-4)


def test_what_stands_in_the_padding_teaches_nothing() -> None:
    """An update is the same, to the last bit, whatever forbidden items look like."""
    trained = []
    for filling in (0.0, 1e3):
        ppo, samples = made(), []
        for sample in acted(ppo, 0):
            part = sample.trajectory
            rows = part.observations.reshape(-1, ITEMS, FEATURES).copy()
            rows[~np.asarray(part.masks)] = filling
            samples.append(Sample(replace(part, observations=rows.reshape(-1, ITEMS * FEATURES))))
        observe_all(ppo, samples).update()
        trained.append(ppo._networks.vector.clone())
    assert torch.equal(*trained)


def test_the_padding_of_a_final_observation_has_no_part_in_its_value() -> None:
    """Where the agent said which items exist there; it is what the last reward is added to."""
    ppo, targets = made(), []
    for filling in (0.0, 1e3):
        parts = []
        for sample in acted(ppo, 0):
            part, final = sample.trajectory, sample.trajectory.final_observation
            if final is None:
                continue
            rows, there = final.reshape(ITEMS, FEATURES).copy(), np.arange(ITEMS) < 2
            rows[~there] = filling
            parts.append(replace(part, final_observation=rows.reshape(-1), final_mask=there))
        values_of = ppo._networks.values
        found = make_rollout(parts, values_of, None, gamma=0.9, gae_lambda=0.9)
        targets.append(found.returns)
    assert torch.equal(*targets)


def test_a_learner_goes_on_from_its_checkpoint() -> None:
    """The state holds both networks under the names that it always had."""
    ppo, other = made(), made()
    observe_all(ppo, acted(ppo, 0)).update()
    other.load_state(decode_state(encode_state(ppo.state())))
    for learner in (ppo, other):
        observe_all(learner, acted(learner, 1)).update()
    assert_same_state(ppo.state(), other.state())
    assert ppo.export().weights.layout.shapes == ((FEATURES, 8), (8,), (8, 1), (1,))
