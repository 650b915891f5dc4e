"""PPO with every kind of action: what agents log, the loss, whole updates, resuming."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl4sys_stream.algorithms.base import Sample
from rl4sys_stream.algorithms.checkpoint import decode_state, encode_state
from rl4sys_stream.algorithms.distributions import (
    DiagonalGaussian,
    FactorLayout,
    MultiCategorical,
)
from rl4sys_stream.algorithms.networks import GaussianActor
from rl4sys_stream.algorithms.ppo import LOSS_METRICS, PPO, ppo_loss
from rl4sys_stream.algorithms.rollout import Rollout, make_rollout
from rl4sys_stream.config import ClientSpec, NetworkSpec, PPOParameters
from rl4sys_stream.errors import NonFiniteError
from rl4sys_stream.policy.policy import build_policy
from rl4sys_stream.spaces import Box, MultiBinary, MultiDiscrete, Space
from rl4sys_stream.wire.trajectory import BehaviorRun, End, Trajectory
from tests.unit.algorithms.samples import OBS_DIM, SMALL, SPEC, changed, observe_all, with_rewards
from tests.unit.algorithms.test_networks import as_plain_torch
from tests.unit.algorithms.test_ppo_update import assert_same_state

NVEC = (3, 2, 4)
BOUNDED = Box((2,), (-1.0, 0.0), (3.0, 0.5))


def spec_of(action_space: Space, **network: object) -> ClientSpec:
    """`SPEC` with other actions, and some fields of its network replaced."""
    fields = {"hidden_sizes": (16, 8), "critic_hidden_sizes": (12,), **network}
    return replace(SPEC, action_space=action_space, network=NetworkSpec(**fields))  # type: ignore[arg-type]


SPECS = {
    "discrete": SPEC,
    "multi_discrete": spec_of(MultiDiscrete(NVEC)),
    "multi_binary": spec_of(MultiBinary(3)),
    "clipped": spec_of(BOUNDED),
    "squashed": spec_of(BOUNDED, squash_output=True),
    "shared": spec_of(MultiDiscrete(NVEC), shared_layers=1),
}
ENDS = (End.TERMINATED, End.CUT, End.TRUNCATED)


def acted(ppo: PPO, spec: ClientSpec, seed: int, *, masked: bool = False) -> list[Sample]:
    """What an agent with the exported policy records, in trajectories of all three ends."""
    rng = np.random.default_rng(seed)
    export = ppo.export()
    policy = build_policy(spec, export.weights, export.extras, 1, "token")
    samples: list[Sample] = []
    for steps, end in zip((20, 17, 31), ENDS, strict=True):
        observations = rng.standard_normal((steps + 1, OBS_DIM)).astype(np.float32)
        masks = random_masks(rng, spec.actions.nvec, steps) if masked else None
        chosen = [
            policy.act(observations[t], None if masks is None else masks[t], rng.random)
            for t in range(steps)
        ]
        trajectory = Trajectory(
            observations=observations[:steps],
            actions=np.array([raw for raw, _ in chosen]),
            rewards=rng.standard_normal(steps).astype(np.float32),
            log_probs=np.array([log_prob for _, log_prob in chosen], np.float32),
            masks=masks,
            final_observation=None if end is End.TERMINATED else observations[steps],
            end=end,
            behavior=(BehaviorRun(1, "token", steps),),
            episode=0,
            offset=0,
            created_ms=0,
        )
        samples.append(Sample(trajectory))
    return samples


def random_masks(rng: np.random.Generator, nvec: tuple[int, ...], steps: int) -> np.ndarray:
    """Bool [steps, sum(nvec)], at least one choice allowed in each factor."""
    parts = []
    for n in nvec:
        part = rng.random((steps, n)) < 0.5
        part[np.arange(steps), rng.integers(0, n, steps)] = True
        parts.append(part)
    return np.concatenate(parts, axis=1)


def made(kind: str, seed: int = 0, **changes: object) -> PPO:
    """A small PPO for one kind of action, its deviations other than 1."""
    return PPO(SPECS[kind], changed(SMALL, log_std_init=-0.3, **changes), seed=seed)


@pytest.mark.parametrize(
    ("kind", "masked"),
    [(kind, False) for kind in SPECS]
    + [(kind, True) for kind, spec in SPECS.items() if not spec.actions.continuous],
)
def test_the_learner_finds_the_probabilities_that_its_policy_logged(
    kind: str, masked: bool
) -> None:
    """Each ratio is 1 before the first step: factors, masks, normals and tanh agree on both sides.

    Also after an update, when the outputs are no longer nearly equal.
    """
    ppo = made(kind, learning_rate=0.03, n_epochs=20)
    observe_all(ppo, acted(ppo, SPECS[kind], 0, masked=masked)).update()
    trajectories = [s.trajectory for s in acted(ppo, SPECS[kind], 1, masked=masked)]
    rollout = make_rollout(
        trajectories,
        ppo._networks.values,
        None,
        gamma=0.9,
        gae_lambda=0.9,
        squash=SPECS[kind].actions.squash,
    )
    own = ppo._log_probs(rollout)
    assert own.std() > 0.05
    torch.testing.assert_close(own, rollout.log_probs, rtol=1e-4, atol=2e-5)


def test_the_loss_of_two_choices_worked_out_by_hand() -> None:
    """Joint probabilities 1/8 then and 3/16 now: the ratio is 3/2, and is clipped at 1.2."""
    logits = torch.tensor([[0.0, math.log(3.0), math.log(2.0), 0.0, 0.0]])
    actions = torch.tensor([[1, 2]])
    metrics = hand_metrics(MultiCategorical(FactorLayout((2, 3)), logits, actions, None), actions)
    entropy = 0.25 * math.log(4) + 0.75 * math.log(4 / 3) + 1.5 * math.log(2)
    assert metrics["train/policy_gradient_loss"] == pytest.approx(-4.0 * 1.2)
    assert metrics["train/entropy_loss"] == pytest.approx(-entropy)
    assert metrics["train/loss"] == pytest.approx(-4.8 - 0.1 * entropy + 0.5 * 9.0)


def test_the_loss_of_a_real_valued_action_worked_out_by_hand() -> None:
    """The density of 0 under N(0, σ) is 1/(σ √(2π)); σ is such that it is 3/16."""
    sigma = 16.0 / (3.0 * math.sqrt(2.0 * math.pi))
    actions = torch.zeros(1, 1)
    log_std = torch.tensor([math.log(sigma)])
    gradient = torch.zeros(1)
    policy = DiagonalGaussian(log_std, gradient, torch.zeros(1, 1), actions)
    metrics = hand_metrics(policy, actions)
    entropy = 0.5 + 0.5 * math.log(2.0 * math.pi) + math.log(sigma)
    assert metrics["train/policy_gradient_loss"] == pytest.approx(-4.0 * 1.2)
    assert metrics["train/entropy_loss"] == pytest.approx(-entropy)
    # Clipped, only the entropy is left to move the deviation, by its weight for each unit.
    assert gradient.item() == pytest.approx(-0.1)


def hand_metrics(policy: MultiCategorical | DiagonalGaussian, actions: Tensor) -> dict[str, float]:
    """The metrics for one step of advantage 4, value 2 and return 5, which had probability 1/8."""
    batch = Rollout(
        observations=torch.zeros(1, 1),
        actions=actions,
        log_probs=torch.tensor([[math.log(1 / 8)]]),
        values=torch.zeros(1, 1),
        advantages=torch.tensor([[4.0]]),
        returns=torch.tensor([[5.0]]),
        masks=None,
    )
    parameters = PPOParameters(ent_coef=0.1, vf_coef=0.5, normalize_advantage=False)
    metrics = ppo_loss(policy, torch.tensor([[2.0]]), batch, parameters, 0.2).metrics
    return dict(zip(LOSS_METRICS, metrics.tolist(), strict=True))


def plain_policy(
    spec: ClientSpec, outputs: Tensor, log_std: Tensor | None, rollout: Rollout
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies [N] by torch's own distributions."""
    actions = rollout.actions
    if log_std is not None:
        normal = torch.distributions.Normal(outputs, log_std.exp())
        return normal.log_prob(actions).sum(1), normal.entropy().sum(1)  # type: ignore[no-untyped-call]
    if rollout.masks is not None:
        outputs = outputs.masked_fill(~rollout.masks, -1e9)
    columns = torch.split(outputs, list(spec.actions.nvec), dim=1)
    parts = [torch.distributions.Categorical(logits=column) for column in columns]
    log_probs = [p.log_prob(actions[:, i]) for i, p in enumerate(parts)]  # type: ignore[no-untyped-call]
    entropies = [part.entropy() for part in parts]  # type: ignore[no-untyped-call]
    return torch.stack(log_probs).sum(0), torch.stack(entropies).sum(0)


@pytest.mark.parametrize("kind", ["multi_discrete", "multi_binary", "clipped", "squashed"])
@pytest.mark.parametrize("seed", range(2))
def test_an_update_steps_where_an_independent_implementation_steps(kind: str, seed: int) -> None:
    """Through torch's distributions, autograd, clipping of gradients and optimizer."""
    spec = SPECS[kind]
    ppo = made(kind, seed, n_epochs=1, batch_size=64, ent_coef=0.02, max_grad_norm=0.1)
    masked = not spec.actions.continuous
    samples = acted(ppo, spec, seed, masked=masked)
    for sample in samples:
        sample.trajectory.log_probs[:] += np.float32(0.1)  # so that some ratios are clipped
    rollout = make_rollout(
        [sample.trajectory for sample in samples],
        ppo._networks.values,
        None,
        gamma=ppo._parameters.gamma,
        gae_lambda=ppo._parameters.gae_lambda,
        squash=spec.actions.squash,
    )
    actor, critic = as_plain_torch(ppo.actor, nn.Tanh), as_plain_torch(ppo.critic, nn.Tanh)
    log_std, deviations = None, []
    if isinstance(ppo.actor, GaussianActor):
        log_std = ppo.actor.log_std.clone().requires_grad_()
        deviations = [log_std]
    weights = [*actor.parameters(), *deviations, *critic.parameters()]
    log_probs, entropies = plain_policy(spec, actor(rollout.observations), log_std, rollout)
    ratio = (log_probs - rollout.log_probs[:, 0]).exp()
    scaled = rollout.advantages[:, 0]
    scaled = (scaled - scaled.mean()) / (scaled.std() + 1e-8)
    surrogate = torch.min(scaled * ratio, scaled * ratio.clamp(0.8, 1.2)).mean()
    errors = rollout.returns - critic(rollout.observations)
    loss = 0.5 * errors.square().mean() - surrogate - 0.02 * entropies.mean()
    optimizer = torch.optim.Adam(weights, lr=ppo._parameters.learning_rate, eps=1e-5)
    loss.backward()
    nn.utils.clip_grad_norm_(weights, 0.1)
    optimizer.step()
    observe_all(ppo, samples).update()
    found = [*ppo.actor.tensors().values(), *ppo.critic.tensors().values()]
    ours = torch.cat([torch.tensor(tensor.reshape(-1)) for tensor in found])
    expected = torch.cat([w.detach().T.reshape(-1) if w.ndim == 2 else w.detach() for w in weights])
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("kind", SPECS)
def test_every_kind_resumes_to_the_last_bit(kind: str) -> None:
    """The deviations and the shared layers are in the checkpoint, too."""
    original = made(kind, 1, ent_coef=0.01)
    samples = [acted(original, SPECS[kind], seed) for seed in range(2)]
    observe_all(original, samples[0]).update()
    resumed = made(kind, 2, ent_coef=0.01)
    resumed.load_state(decode_state(encode_state(original.state())))
    for ppo in (original, resumed):
        observe_all(ppo, samples[1]).update()
    assert_same_state(resumed.state(), original.state())
    assert resumed.export().weights.digest() == original.export().weights.digest()


def test_deviations_begin_where_they_are_told_and_are_learned() -> None:
    """One step of Adam moves each by the learning rate."""
    ppo = made("clipped", learning_rate=1e-3, n_epochs=1, batch_size=64)
    log_std = ppo.export().weights.tensors()["log_std"]
    assert log_std.tolist() == pytest.approx([-0.3, -0.3])
    observe_all(ppo, acted(ppo, SPECS["clipped"], 0)).update()
    moved = np.abs(ppo.export().weights.tensors()["log_std"] - log_std)
    assert moved.tolist() == pytest.approx([1e-3, 1e-3], rel=0.05)


def test_a_squash_changes_nothing_but_the_density() -> None:
    """The same raw actions, logged as densities of tanh or not, give the same update."""
    updated: list[Tensor] = []
    for kind in ("clipped", "squashed"):
        ppo = made(kind)
        observe_all(ppo, acted(ppo, SPECS[kind], 0)).update()
        updated.append(ppo.actor.vector)
    torch.testing.assert_close(*updated, rtol=1e-4, atol=1e-6)


def test_shared_layers_are_trained_by_both() -> None:
    """Where the clip leaves the policy no slope, they move for the values' sake.

    The rest of the actor stays, and only the actor is published.
    """
    ppo = made("shared", normalize_advantage=False)
    before = {name: tensor.copy() for name, tensor in ppo.actor.tensors().items()}
    samples = [with_rewards(sample, 100.0) for sample in acted(ppo, SPECS["shared"], 0)]
    for sample in samples:
        sample.trajectory.log_probs[:] -= 5.0
    observe_all(ppo, samples).update()
    after = ppo.export().weights.tensors()
    moved = {name for name, tensor in before.items() if (after[name] != tensor).any()}
    assert moved == {"pi.0.weight", "pi.0.bias"}


def test_real_valued_samples_that_overflow_leave_everything_as_before() -> None:
    """An action of 1e30 is finite on the wire; its square is not."""
    ppo = made("clipped")
    before = ppo.state()
    samples = acted(ppo, SPECS["clipped"], 0)
    samples[1].trajectory.actions[3] = 1e30
    with pytest.raises(NonFiniteError):
        observe_all(ppo, samples).update()
    assert_same_state(ppo.state(), before)
