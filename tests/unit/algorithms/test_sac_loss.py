"""Draws, targets and slopes against cases worked out by hand, against autograd, and against SB3."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common import logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor, nn

from rl4sys_stream.algorithms.replay_buffer import Transitions
from rl4sys_stream.algorithms.sac import (
    SAC,
    Draw,
    TwinCritics,
    actor_slopes,
    draw_actions,
    soft_targets,
)
from rl4sys_stream.config import ClientSpec, NetworkSpec, SACParameters
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.policy.heads import StateGaussianHead
from rl4sys_stream.spaces import Box, Discrete
from tests.unit.algorithms.sac_samples import ACTION_DIM, SPEC, batch_of, make_sac
from tests.unit.algorithms.samples import OBS_DIM, observe_all
from tests.unit.algorithms.test_networks import as_plain_torch, generator

DECISIVE = 1e-3
"""Where the two critics are closer than this, rounding decides which one counts."""


def column(*values: float) -> Tensor:
    """[N] -> [N, 1]."""
    return torch.tensor(values).unsqueeze(1)


# Drawing an action -----------------------------------------------------------------------------


def test_a_draw_worked_out_by_hand() -> None:
    """Mean 0.5, deviation 2, noise -0.25: raw 0, so tanh 0 with slope 1 and a normal density."""
    drawn = draw_actions(torch.tensor([[0.5, math.log(2.0)]]), torch.tensor([[-0.25]]))
    assert drawn.actions.tolist() == [[0.0]]
    assert drawn.offsets.item() == pytest.approx(-0.5)
    expected = -0.5 * 0.25**2 - math.log(2.0) - 0.5 * math.log(2.0 * math.pi)
    assert drawn.log_probs.item() == pytest.approx(expected)


def test_deviations_are_cut_off_where_agents_cut_them_off() -> None:
    """At e^-20 and e^2; the actor's outputs beyond have no slope, those at the limits have."""
    outputs = torch.tensor([[0.0, 2.1], [0.0, 2.0], [0.0, 0.0], [0.0, -20.0], [0.0, -21.0]])
    drawn = draw_actions(outputs, torch.ones(5, 1))
    logarithms = drawn.offsets[:, 0].log().tolist()
    assert logarithms == pytest.approx([2.0, 2.0, 0.0, -20.0, -20.0])
    assert drawn.follows[:, 0].tolist() == [False, True, True, True, False]


@given(
    means=st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=3),
    log_std=st.lists(st.floats(-4, 3, width=32), min_size=3, max_size=3),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
def test_densities_are_those_that_agents_log(
    means: list[float], log_std: list[float], seed: int
) -> None:
    """The numpy head draws and logs; from the same noise the learner finds the same."""
    outputs = np.array([*means, *log_std], np.float32)
    rng = np.random.default_rng(seed)
    raw, log_prob = StateGaussianHead(squash=True).sample(outputs, None, rng.random)
    std = np.exp(np.clip(np.array(log_std), -20.0, 2.0))
    noise = ((raw.astype(float) - np.array(means)) / std).astype(np.float32)
    drawn = draw_actions(torch.from_numpy(outputs)[None], torch.from_numpy(noise)[None])
    np.testing.assert_allclose(drawn.actions[0].numpy(), np.tanh(raw), atol=1e-5)
    assert drawn.log_probs.item() == pytest.approx(log_prob, rel=1e-3, abs=1e-3)


def test_densities_on_the_interval_add_up_to_one() -> None:
    """The integral over [-1, 1], by the learner's own formula along the noise."""
    noise = torch.linspace(-8.0, 8.0, 20_001).unsqueeze(1)
    outputs = torch.tensor([[0.3, -0.5]]).expand(len(noise), 2)
    drawn = draw_actions(outputs, noise)
    densities, places = drawn.log_probs.exp()[:, 0].double(), drawn.actions[:, 0].double()
    assert float(torch.trapezoid(densities, places)) == pytest.approx(1.0, abs=1e-4)


def test_actions_far_out_have_finite_densities() -> None:
    """Where tanh is 1 to the last bit, log(1 - tanh²) is still about log 4 - 2 x."""
    drawn = draw_actions(torch.tensor([[40.0, 0.0], [-40.0, 0.0]]), torch.zeros(2, 1))
    expected = -0.5 * math.log(2.0 * math.pi) - (math.log(4.0) - 80.0)
    assert drawn.log_probs[:, 0].tolist() == pytest.approx([expected, expected])


# Targets ---------------------------------------------------------------------------------------


def test_targets_worked_out_by_hand() -> None:
    """1 + 0.5 (3 - 0.1 · -2) = 2.6; a step that terminated is worth its reward alone."""
    nothing = torch.zeros(2, 1)
    batch = Transitions(nothing, nothing, column(1.0, 1.0), column(0.5, 0.0), nothing, None)
    following = Draw(nothing, column(-2.0, -2.0), nothing, nothing.bool())
    targets = soft_targets(batch, following, column(3.0, 3.0), torch.tensor(0.1))
    assert targets[:, 0].tolist() == pytest.approx([2.6, 1.0])


# Slopes ----------------------------------------------------------------------------------------


def plain_actor(sac: SAC) -> nn.Sequential:
    """The same function out of torch's own layers."""
    return as_plain_torch(sac.actor, nn.ReLU)


def plain_critics(critics: TwinCritics) -> list[nn.Sequential]:
    """Likewise, both."""
    return [as_plain_torch(network, nn.ReLU) for network in critics._networks]


def flat(*networks: nn.Sequential) -> Tensor:
    """Their parameters in the order of our vectors."""
    parameters = [p.detach() for network in networks for p in network.parameters()]
    return torch.cat([p.T.reshape(-1) if p.ndim == 2 else p for p in parameters])


def flat_gradient(*networks: nn.Sequential) -> Tensor:
    """Their gradients, likewise."""
    found = [p.grad for network in networks for p in network.parameters() if p.grad is not None]
    return torch.cat([p.T.reshape(-1) if p.ndim == 2 else p for p in found])


def plain_draw(outputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Action and log-density by torch's distributions, differentiable."""
    means, log_std = outputs.chunk(2, dim=1)
    normal = torch.distributions.Normal(means, log_std.clamp(-20, 2).exp())
    squashed = torch.distributions.TransformedDistribution(
        normal, torch.distributions.TanhTransform(cache_size=1)
    )
    actions = torch.tanh(means + normal.stddev * noise)
    each: Tensor = squashed.log_prob(actions)  # type: ignore[no-untyped-call]
    return actions, each.sum(dim=1, keepdim=True)


@given(seed=st.integers(0, 10_000), log_std=st.floats(-2.0, 3.0), ent_coef=st.floats(0.0, 2.0))
@settings(deadline=None, max_examples=30)
def test_the_actors_slopes_are_those_of_autograd(
    seed: int, log_std: float, ent_coef: float
) -> None:
    """Of mean(α log π - min Q) by the actor's outputs, cut-off deviations included."""
    draws = torch.Generator().manual_seed(seed)
    outputs = torch.randn(32, 2 * ACTION_DIM, generator=draws)
    outputs[:, ACTION_DIM:] += log_std
    noise = torch.randn(32, ACTION_DIM, generator=draws)
    observations = torch.randn(32, OBS_DIM, generator=draws)
    critics = TwinCritics(OBS_DIM, ACTION_DIM, SPEC.network, draws)

    drawn = draw_actions(outputs, noise)
    _, slopes = critics.with_slopes(torch.cat((observations, drawn.actions), dim=1))
    ours = actor_slopes(drawn, slopes[:, OBS_DIM:], torch.tensor(ent_coef))

    # In double precision: torch's own density is inexact in float32 where tanh is flat.
    wide = outputs.double().requires_grad_()
    actions, log_probs = plain_draw(wide, noise.double())
    inputs = torch.cat((observations.double(), actions), dim=1)
    first, second = (network.double()(inputs) for network in plain_critics(critics))
    (ent_coef * log_probs - torch.min(first, second)).mean().backward()
    assert wide.grad is not None
    settled = ((first - second).abs() > DECISIVE)[:, 0] & (actions.abs() < 1 - 1e-9).all(dim=1)
    torch.testing.assert_close(ours[settled], wide.grad.float()[settled], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_critics_gradient_is_that_of_autograd(seed: int) -> None:
    """Half the mean squared error of each, added up; and that is the loss it returns."""
    critics = TwinCritics(OBS_DIM, ACTION_DIM, SPEC.network, generator(seed))
    inputs = torch.randn(20, OBS_DIM + ACTION_DIM, generator=generator(seed + 10))
    targets = torch.randn(20, 1, generator=generator(seed + 20))
    found = critics.regress(inputs, targets)
    networks = plain_critics(critics)
    loss = sum(0.5 * nn.functional.mse_loss(network(inputs), targets) for network in networks)
    assert isinstance(loss, Tensor)
    loss.backward()  # type: ignore[no-untyped-call]
    assert found.item() == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(critics.gradient, flat_gradient(*networks), rtol=1e-4, atol=1e-6)


def test_the_smaller_of_two_values_counts_row_by_row() -> None:
    """Of the values x and 2 x the second below 0, the first above, each with its own slope."""
    critics = TwinCritics(0, 1, NetworkSpec(hidden_sizes=()), generator())
    critics.vector.copy_(torch.tensor([1.0, 0.0, 2.0, 0.0]))
    inputs = column(-3.0, 5.0)
    values, slopes = critics.with_slopes(inputs)
    assert values[:, 0].tolist() == critics(inputs)[:, 0].tolist() == [-6.0, 5.0]
    assert slopes[:, 0].tolist() == [2.0, 1.0]


def test_the_two_critics_begin_with_weights_of_their_own() -> None:
    """Equal ones would stay equal, and the smaller value would be no more cautious than one."""
    critics = TwinCritics(OBS_DIM, ACTION_DIM, SPEC.network, generator())
    first, second = critics.vector.chunk(2)
    assert not torch.equal(first, second)


# Whole steps -----------------------------------------------------------------------------------


class Draws:
    """What a SAC is about to draw, drawn again from a copy of its generator."""

    def __init__(self, sac: SAC) -> None:
        self._generator = torch.Generator()
        self._generator.set_state(sac._generator.get_state())

    def batch(self, sac: SAC) -> tuple[Transitions, Tensor]:
        """The transitions of the next gradient step, and its noise float32 [2, B, D]."""
        size = sac._parameters.batch_size
        batch = sac.buffer.gather(sac.buffer.draw(size, self._generator))
        return batch, torch.randn(2, size, ACTION_DIM, generator=self._generator)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "changes",
    [{}, {"ent_coef": 0.2}, {"ent_coef": "auto_0.1", "target_entropy": -0.5}, {"ent_coef": 0.0}],
)
def test_an_update_steps_where_an_independent_implementation_steps(
    seed: int, changes: dict[str, object]
) -> None:
    """Critics, actor, temperature and targets, six gradient steps, end to end by autograd."""
    sac = observe_all(make_sac(seed, target_update_interval=2, **changes), batch_of(seed))
    actor, critics, targets = (
        plain_actor(sac),
        plain_critics(sac.critics),
        plain_critics(sac.targets),
    )
    parameters, draws = sac._parameters, Draws(sac)
    log_ent_coef = torch.tensor(math.log(parameters.initial_ent_coef or 1.0), requires_grad=True)
    of_critics = [p for network in critics for p in network.parameters()]
    adams = [torch.optim.Adam(p, lr=1e-2) for p in (of_critics, actor.parameters(), [log_ent_coef])]
    target_entropy = -2.0 if parameters.target_entropy == "auto" else parameters.target_entropy
    sac.update()
    for step in range(1, 7):
        batch, noise = draws.batch(sac)
        actions, log_probs = plain_draw(actor(batch.observations), noise[0])
        ent_coef = torch.tensor(parameters.initial_ent_coef)
        if parameters.learns_ent_coef:
            ent_coef = log_ent_coef.detach().exp()
        with torch.no_grad():
            following, next_log_probs = plain_draw(actor(batch.next_observations), noise[1])
            inputs = torch.cat((batch.next_observations, following), dim=1)
            worth = torch.min(*(network(inputs) for network in targets))
            goal = batch.returns + batch.discounts * (worth - ent_coef * next_log_probs)
        taken = torch.cat((batch.observations, batch.actions.tanh()), dim=1)
        critic_loss = sum(0.5 * (n(taken) - goal).square().mean() for n in critics)
        descend(adams[0], critic_loss)
        chosen = torch.cat((batch.observations, actions), dim=1)
        actor_loss = (ent_coef * log_probs - torch.min(*(n(chosen) for n in critics))).mean()
        descend(adams[1], actor_loss)
        if parameters.learns_ent_coef:
            descend(adams[2], -(log_ent_coef * (log_probs.detach() + target_entropy)).mean())
        if step % 2 == 0:
            for moving, leading in zip(targets, critics, strict=True):
                for p, q in zip(moving.parameters(), leading.parameters(), strict=True):
                    p.data += 0.05 * (q.data - p.data)
    assert sac.n_updates == 6
    found = sac._acting.vector
    torch.testing.assert_close(found[:-1], flat(actor), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[-1], log_ent_coef.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sac.critics.vector, flat(*critics), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(sac.targets.vector, flat(*targets), rtol=1e-3, atol=1e-4)


def descend(adam: torch.optim.Adam, loss: Tensor | float) -> None:
    """One step of `adam`."""
    assert isinstance(loss, Tensor)
    adam.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    adam.step()


@pytest.mark.parametrize("ent_coef", ["auto", "auto_0.5", 0.2])
def test_steps_equal_those_of_stable_baselines3(
    ent_coef: str | float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its SAC, from the same weights, on the same transitions and noise in the same order."""

    class World(gymnasium.Env[object, object]):
        observation_space = gymnasium.spaces.Box(-9, 9, (OBS_DIM,))
        action_space = gymnasium.spaces.Box(-1, 1, (ACTION_DIM,))

    theirs: Any = stable_baselines3.SAC(
        "MlpPolicy",
        World(),
        learning_rate=1e-2,
        batch_size=16,
        buffer_size=100,
        tau=0.05,
        ent_coef=ent_coef,
        policy_kwargs={"net_arch": {"pi": [16, 8], "qf": [12, 10]}},
        device="cpu",
    )
    theirs.set_logger(logger.configure(None, []))
    ours = observe_all(
        make_sac(1, ent_coef=ent_coef, gradient_steps=20, train_freq=28), batch_of(5)
    )
    copy_into(plain_actor(ours), theirs.actor.latent_pi, theirs.actor.mu, theirs.actor.log_std)
    for plain, critic in zip(plain_critics(ours.critics), theirs.critic.q_networks, strict=True):
        critic.load_state_dict(plain.state_dict())
    theirs.critic_target.load_state_dict(theirs.critic.state_dict())
    queued: list[Tensor] = []
    draws = Draws(ours)
    report = ours.update()

    def sample(size: int, env: object) -> object:
        batch, noise = draws.batch(ours)
        queued.extend(noise)
        ended = (batch.discounts == 0).float()
        columns = (batch.observations, batch.actions.tanh(), batch.next_observations, ended)
        return ReplayBufferSamples(*columns, batch.returns)

    monkeypatch.setattr(
        torch.distributions.normal, "_standard_normal", lambda *_, **__: queued.pop(0)
    )
    theirs.replay_buffer.sample = sample
    theirs.train(20, 16)
    assert not queued
    for plain, critic in zip(plain_critics(ours.critics), theirs.critic.q_networks, strict=True):
        torch.testing.assert_close(flat(plain), flat(critic), rtol=1e-3, atol=1e-4)
    for plain, critic in zip(
        plain_critics(ours.targets), theirs.critic_target.q_networks, strict=True
    ):
        torch.testing.assert_close(flat(plain), flat(critic), rtol=1e-3, atol=1e-4)
    logged = theirs.logger.name_to_value
    names = {"train/critic_loss", "train/actor_loss", "train/ent_coef", "train/ent_coef_loss"}
    assert names & set(report.metrics) == names & set(logged)
    for name in names & set(logged):
        assert report.metrics[name] == pytest.approx(logged[name], rel=1e-3, abs=1e-4), name


def copy_into(actor: nn.Sequential, latent: nn.Sequential, *halves: nn.Linear) -> None:
    """Our actor, whose last layer is both of theirs."""
    *hidden, last = [layer for layer in actor if isinstance(layer, nn.Linear)]
    linear = [layer for layer in latent if isinstance(layer, nn.Linear)]
    for ours, theirs in zip(hidden, linear, strict=True):
        theirs.load_state_dict(ours.state_dict())
    for half, weight, bias in zip(halves, last.weight.chunk(2), last.bias.chunk(2), strict=True):
        half.weight.data.copy_(weight)
        half.bias.data.copy_(bias)


# What cannot be ----------------------------------------------------------------------------------


def test_what_it_cannot_serve_is_refused() -> None:
    """Other actions, and boxes without bounds."""
    with pytest.raises(ConfigError, match="SAC needs Box actions"):
        ClientSpec(algorithm="SAC", observation_space=Box((3,)), action_space=Discrete(2))
    discrete = ClientSpec(observation_space=Box((3,)), action_space=Discrete(2))
    with pytest.raises(ConfigError, match="a Box"):
        SAC(discrete, SACParameters(), seed=0)
    with pytest.raises(ConfigError, match="give low and high"):
        ClientSpec(algorithm="SAC", observation_space=Box((3,)), action_space=Box((1,)))
