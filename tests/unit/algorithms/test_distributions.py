"""Each kind of action against torch's own distributions, and its gradients against autograd."""

import math
from collections.abc import Sequence
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rl4sys_stream.algorithms.distributions import (
    ActionDistribution,
    Categorical,
    DiagonalGaussian,
    FactorLayout,
    MultiCategorical,
)
from tests.unit.algorithms.test_networks import generator

STEPS = 9
nvecs = st.one_of(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(1, 12).map(lambda n: [2] * n),
)


def random_factors(
    nvec: Sequence[int], seed: int, *, masked: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits [9, sum(nvec)], actions [9, K], and masks that allow the actions."""
    draw = generator(seed)
    logits = torch.randn(STEPS, sum(nvec), generator=draw) * 2.0
    columns = [torch.randint(0, n, (STEPS, 1), generator=draw) for n in nvec]
    if not masked:
        return logits, torch.cat(columns, dim=1), None
    allowed = [
        (torch.rand(STEPS, n, generator=draw) < 0.5).scatter(1, column, True)
        for n, column in zip(nvec, columns, strict=True)
    ]
    return logits, torch.cat(columns, dim=1), torch.cat(allowed, dim=1)


def factors_of_torch(
    nvec: Sequence[int], logits: Tensor, actions: Tensor, masks: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies [9, 1], the sums over one `Categorical` a factor."""
    if masks is not None:
        logits = logits.masked_fill(~masks, -1e9)
    parts = [
        torch.distributions.Categorical(logits=part)
        for part in torch.split(logits, list(nvec), dim=1)
    ]
    log_probs = [p.log_prob(actions[:, i]) for i, p in enumerate(parts)]  # type: ignore[no-untyped-call]
    entropies = [part.entropy() for part in parts]  # type: ignore[no-untyped-call]
    return torch.stack(log_probs).sum(0)[:, None], torch.stack(entropies).sum(0)[:, None]


def assert_gradient(
    found: ActionDistribution, log_probs: Tensor, entropies: Tensor, inputs: Sequence[Tensor]
) -> list[Tensor]:
    """That values agree; then what autograd says of `inputs` and of the same weights' `gradient`.

    Returns:
        The gradient that was written out, then autograd's by each input.
    """
    torch.testing.assert_close(found.log_probs, log_probs.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.entropy_losses, -entropies.detach(), rtol=1e-4, atol=1e-5)
    weights = torch.linspace(-1.0, 2.0, STEPS)[:, None]
    (weights * log_probs - 0.3 * entropies).sum().backward()  # type: ignore[no-untyped-call]
    grads = [tensor.grad for tensor in inputs if tensor.grad is not None]
    return [found.gradient(weights, 0.3), *grads]


@settings(deadline=None)
@given(nvec=nvecs, seed=st.integers(0, 1000), masked=st.booleans())
def test_several_choices_add_up_to_one_action(nvec: list[int], seed: int, masked: bool) -> None:
    """Equal and unequal sizes, factors of one choice, masks factor by factor."""
    logits, actions, masks = random_factors(nvec, seed, masked=masked)
    found = MultiCategorical(FactorLayout(tuple(nvec)), logits, actions, masks)
    logits.requires_grad_()
    expected = factors_of_torch(nvec, logits, actions, masks)
    ours, autograd = assert_gradient(found, *expected, [logits])
    torch.testing.assert_close(ours, autograd, rtol=1e-4, atol=1e-5)


@settings(deadline=None)
@given(n=st.integers(1, 6), seed=st.integers(0, 1000), masked=st.booleans())
def test_a_single_choice_is_a_categorical(n: int, seed: int, masked: bool) -> None:
    """And one factor alone is the same as it."""
    logits, actions, masks = random_factors([n], seed, masked=masked)
    found = Categorical(logits, actions, masks)
    alone = MultiCategorical(FactorLayout((n,)), logits, actions, masks)
    torch.testing.assert_close(alone.log_probs, found.log_probs)
    logits.requires_grad_()
    expected = factors_of_torch([n], logits, actions, masks)
    ours, autograd = assert_gradient(found, *expected, [logits])
    torch.testing.assert_close(ours, autograd, rtol=1e-4, atol=1e-5)
    weights = torch.linspace(-1.0, 2.0, STEPS)[:, None]
    torch.testing.assert_close(alone.gradient(weights, 0.3), ours)


@settings(deadline=None)
@given(dim=st.integers(1, 6), seed=st.integers(0, 1000))
def test_real_valued_actions_are_independent_normals(dim: int, seed: int) -> None:
    """Gradients by the means, and by the deviations that all steps share."""
    draw = generator(seed)
    means, actions = (torch.randn(STEPS, dim, generator=draw) for _ in range(2))
    log_std = torch.randn(dim, generator=draw) * 0.5
    log_std_gradient = torch.full((dim,), 7.0)
    found = DiagonalGaussian(log_std, log_std_gradient, means, actions)
    means.requires_grad_()
    log_std.requires_grad_()
    normal = torch.distributions.Normal(means, log_std.exp())
    log_probs = normal.log_prob(actions).sum(1, keepdim=True)  # type: ignore[no-untyped-call]
    entropies = normal.entropy().sum(1, keepdim=True)  # type: ignore[no-untyped-call]
    ours, by_means, by_log_std = assert_gradient(found, log_probs, entropies, [means, log_std])
    torch.testing.assert_close(ours, by_means, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(log_std_gradient, by_log_std, rtol=1e-4, atol=1e-4)


def test_two_choices_worked_out_by_hand() -> None:
    """Probabilities [1/4, 3/4] and [1/2, 1/4, 1/4]: 3/4 · 1/4 for the second and the last."""
    logits = torch.tensor([[0.0, math.log(3.0), math.log(2.0), 0.0, 0.0]])
    found = MultiCategorical(FactorLayout((2, 3)), logits, torch.tensor([[1, 2]]), None)
    assert found.log_probs.item() == pytest.approx(math.log(3 / 16))
    first = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    second = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert found.entropy_losses.item() == pytest.approx(-first - second)
    slopes = found.gradient(torch.ones(1, 1), 0.0)
    assert slopes[0].tolist() == pytest.approx([-0.25, 0.25, -0.5, -0.25, 0.75])


def test_a_forbidden_choice_of_one_factor_leaves_the_others_as_they_are() -> None:
    """Forbidding 0 makes 1 certain in the first factor; the second has its probabilities."""
    logits = torch.tensor([[5.0, 0.0, math.log(2.0), 0.0, 0.0]])
    masks = torch.tensor([[False, True, True, True, True]])
    found = MultiCategorical(FactorLayout((2, 3)), logits, torch.tensor([[1, 0]]), masks)
    assert found.log_probs.item() == pytest.approx(math.log(0.5))
    slopes = found.gradient(torch.ones(1, 1), 1.0)
    assert slopes[0, :2].tolist() == [0.0, 0.0]


def test_a_normal_worked_out_by_hand() -> None:
    """Two deviations above the mean, with a deviation of 1/2: e^-2 / (√(2π) / 2)."""
    log_std, log_std_gradient = torch.tensor([math.log(0.5)]), torch.zeros(1)
    make = partial(DiagonalGaussian, log_std, log_std_gradient)
    found = make(torch.tensor([[3.0]]), torch.tensor([[4.0]]), None)
    assert found.log_probs.item() == pytest.approx(-2 - math.log(math.sqrt(2 * math.pi) / 2))
    assert found.entropy_losses.item() == pytest.approx(
        -0.5 * math.log(2 * math.pi * math.e * 0.25)
    )
    assert found.gradient(torch.ones(1, 1), 0.0).item() == pytest.approx(4.0)  # z / σ
    assert log_std_gradient.item() == pytest.approx(3.0)  # z² - 1
