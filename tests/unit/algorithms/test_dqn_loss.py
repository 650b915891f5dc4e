"""Loss and targets against cases worked out by hand, gradient steps against plain torch."""

import copy

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN as DQN_OF_SB3
from stable_baselines3.common.logger import configure
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor, nn
from torch.nn import functional

from rl4sys_stream.algorithms.base import Sample
from rl4sys_stream.algorithms.dqn import DQN, dqn_loss
from rl4sys_stream.algorithms.replay_buffer import Transitions
from rl4sys_stream.config import ClientSpec, DQNParameters, NetworkSpec
from rl4sys_stream.spaces import Box, Discrete
from rl4sys_stream.wire.trajectory import End
from tests.unit.algorithms.dqn_samples import batch_of, make_dqn
from tests.unit.algorithms.samples import OBS_DIM, observe_all, random_trajectory
from tests.unit.algorithms.test_networks import as_plain_torch, generator


def column(*values: float) -> Tensor:
    """[N] -> [N, 1]."""
    return torch.tensor(values).unsqueeze(1)


def test_the_slopes_of_a_case_worked_out_by_hand() -> None:
    """Errors of -3, 0.5 and 2: slope -1, the error itself, and 1, over three transitions."""
    loss = dqn_loss(column(1.0, 1.0, 1.0), column(4.0, 0.5, -1.0))
    assert loss.errors[:, 0].tolist() == [-3.0, 0.5, 2.0]
    assert loss.values[:, 0].tolist() == pytest.approx([-1 / 3, 0.5 / 3, 1 / 3])


def test_importance_weights_scale_the_slopes() -> None:
    """Not the errors, which become priorities."""
    loss = dqn_loss(column(1.0, 1.0), column(4.0, 0.5), column(0.5, 1.0))
    assert loss.errors[:, 0].tolist() == [-3.0, 0.5]
    assert loss.values[:, 0].tolist() == pytest.approx([-0.25, 0.25])


def linear_dqn(**changes: object) -> DQN:
    """Two actions on one number x; the online network says (x, 2 x), the target (5 x, 3 x)."""
    spec = ClientSpec(
        algorithm="DQN",
        observation_space=Box((1,)),
        action_space=Discrete(2),
        network=NetworkSpec(hidden_sizes=()),
    )
    dqn = DQN(spec, DQNParameters(total_timesteps=1000, buffer_size=150, **changes), seed=0)  # type: ignore[arg-type]
    dqn.online.vector.copy_(torch.tensor([1.0, 2.0, 0.0, 0.0]))
    dqn.target.vector.copy_(torch.tensor([5.0, 3.0, 0.0, 0.0]))
    return dqn


def bootstraps(dqn: DQN, masks: Tensor | None) -> list[float]:
    """The bootstrap of next observations 1 and -1."""
    nothing, following = torch.zeros(2, 1), column(1.0, -1.0)
    batch = Transitions(nothing, nothing, nothing, nothing, following, masks)
    return [float(v) for v in dqn._bootstrap(batch, dqn.target(following))[:, 0]]


def test_the_bootstrap_is_the_targets_maximum() -> None:
    """5 of (5, 3), and -3 of (-5, -3)."""
    assert bootstraps(linear_dqn(), None) == [5.0, -3.0]


def test_double_q_learning_values_what_the_online_network_prefers() -> None:
    """It prefers action 1 at 1 and action 0 at -1: 3 of (5, 3), and -5 of (-5, -3)."""
    assert bootstraps(linear_dqn(double_q=True), None) == [3.0, -5.0]


@pytest.mark.parametrize("double_q", [False, True])
def test_forbidden_actions_are_nobodys_choice(double_q: bool) -> None:
    """Only action 0 is allowed at 1, only action 1 at -1."""
    masks = torch.tensor([[True, False], [False, True]])
    assert bootstraps(linear_dqn(double_q=double_q), masks) == [5.0, -3.0]


def plain(network: object) -> nn.Sequential:
    """The same function out of torch's own layers."""
    return as_plain_torch(network, nn.ReLU)  # type: ignore[arg-type]


def flat(network: nn.Sequential) -> Tensor:
    """Its parameters in the order of our vectors."""
    parameters = [p.detach() for p in network.parameters()]
    return torch.cat([p.T.reshape(-1) if p.ndim == 2 else p for p in parameters])


def plain_targets(
    online: nn.Module, target: nn.Module, batch: Transitions, *, double_q: bool
) -> Tensor:
    """The bootstrapped returns, with nothing shared with what is tested."""
    values = target(batch.next_observations)
    choice = online(batch.next_observations) if double_q else values
    rows = []
    for row in range(len(values)):
        allowed = list(range(values.shape[1]))
        if batch.next_masks is not None:
            allowed = [a for a in allowed if batch.next_masks[row, a]]
        best = max(allowed, key=lambda action: float(choice[row, action]))
        rows.append(batch.returns[row] + batch.discounts[row] * values[row, best])
    return torch.stack(rows)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "changes", [{}, {"double_q": True, "n_step": 3}, {"tau": 0.1, "target_update_interval": 3}]
)
@pytest.mark.parametrize("masked", [False, True])
def test_an_update_steps_where_an_independent_implementation_steps(
    seed: int, changes: dict[str, object], masked: bool
) -> None:
    """Targets, Huber loss, clipping, Adam, and when the target network moves, end to end."""
    dqn = observe_all(make_dqn(seed, max_grad_norm=0.3, **changes), batch_of(seed, masked=masked))
    online, target = plain(dqn.online), plain(dqn.target)
    parameters = dqn._parameters
    optimizer = torch.optim.Adam(online.parameters(), lr=parameters.learning_rate)
    draws = torch.Generator()
    draws.set_state(dqn._generator.get_state())
    dqn.update()
    for step in range(1, 36):
        if step % parameters.target_update_interval == 0:
            for moving, leading in zip(target.parameters(), online.parameters(), strict=True):
                moving.data += parameters.tau * (leading.data - moving.data)
        if step <= 20 or step % 4:
            continue
        for _ in range(2):
            batch = dqn.buffer.gather(torch.randint(len(dqn.buffer), (16,), generator=draws))
            with torch.no_grad():
                targets = plain_targets(online, target, batch, double_q=parameters.double_q)
            values = online(batch.observations).gather(1, batch.actions)
            optimizer.zero_grad()
            loss = functional.smooth_l1_loss(values, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(online.parameters(), 0.3)
            optimizer.step()
    torch.testing.assert_close(dqn.online.vector, flat(online), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dqn.target.vector, flat(target), rtol=1e-4, atol=1e-5)
    assert dqn.n_updates == 6


def test_the_metrics_are_those_of_the_drawn_transitions() -> None:
    """One gradient step with a tiny rate: loss and mean value can be computed afterwards."""
    dqn = make_dqn(learning_rate=1e-12, gradient_steps=1, train_freq=30, batch_size=150)
    observe_all(dqn, batch_of(3, steps=30))
    draws = torch.Generator()
    draws.set_state(dqn._generator.get_state())
    metrics = dqn.update().metrics
    batch = dqn.buffer.gather(torch.randint(30, (150,), generator=draws))
    values = dqn.online(batch.observations).gather(1, batch.actions)
    targets = plain_targets(dqn.online, dqn.target, batch, double_q=False)  # type: ignore[arg-type]
    loss = functional.smooth_l1_loss(values, targets)
    assert metrics["train/loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert metrics["train/mean_q"] == pytest.approx(values.mean().item(), rel=1e-5)


@pytest.mark.parametrize("dueling", [False, True])
def test_prioritised_steps_weigh_what_they_draw_often(dueling: bool) -> None:
    """One terminal step is worth 1, all others 0: it is drawn far more often, and learned first."""
    changes = {"prioritized_replay": True, "dueling": dueling, "learning_rate": 1e-3}
    dqn = make_dqn(**changes, gradient_steps=50, learning_starts=0, train_freq=30)
    rng = np.random.default_rng(0)
    parts = [random_trajectory(rng, 1, end=End.TERMINATED) for _ in range(30)]
    for index, part in enumerate(parts):
        part.rewards[:] = 10.0 if index == 7 else 0.0
        dqn.observe(Sample(part))
    dqn.update()
    assert dqn._priorities is not None
    drawn, weights = dqn._priorities.draw(1000, 1.0, generator())
    counts = np.bincount(drawn.numpy(), minlength=30)
    assert counts.argmax() == 7
    assert counts[7] > 4 * np.delete(counts, 7).mean()
    assert weights[drawn == 7].max() < 0.5


def test_steps_equal_those_of_stable_baselines3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its DQN, from the same weights, on the same transitions drawn in the same order."""

    class World(gymnasium.Env[object, object]):
        observation_space = gymnasium.spaces.Box(-9, 9, (OBS_DIM,))
        action_space = gymnasium.spaces.Discrete(4)

    theirs = DQN_OF_SB3(
        "MlpPolicy",
        World(),
        learning_rate=1e-2,
        batch_size=16,
        gamma=0.99,
        buffer_size=100,
        policy_kwargs={"net_arch": [16, 8]},
        device="cpu",
    )
    theirs.set_logger(configure(None, []))
    ours = observe_all(make_dqn(1, gradient_steps=25, train_freq=28), batch_of(5))
    copy_into(ours.online.tensors(), theirs.q_net.q_net)
    copy_into(ours.target.tensors(), theirs.q_net_target.q_net)
    draws = torch.Generator()
    draws.set_state(ours._generator.get_state())
    report = ours.update()

    def sample(size: int, env: object) -> object:
        batch = ours.buffer.gather(torch.randint(35, (size,), generator=draws))
        ended = (batch.discounts == 0).float()
        columns = batch.observations, batch.actions, batch.next_observations, ended, batch.returns
        return ReplayBufferSamples(*columns)

    monkeypatch.setattr(theirs.replay_buffer, "sample", sample)
    theirs.train(25, 16)
    found = flat(theirs.q_net.q_net)
    torch.testing.assert_close(ours.online.vector, found, rtol=2e-4, atol=2e-5)
    assert report.metrics["train/loss"] == pytest.approx(
        theirs.logger.name_to_value["train/loss"], rel=1e-4
    )


def copy_into(tensors: dict[str, np.ndarray], network: nn.Sequential) -> None:
    """Our weights [in, out] into torch's layers."""
    arrays = iter(copy.deepcopy(list(tensors.values())))
    for parameter in network.parameters():
        parameter.data.copy_(torch.from_numpy(next(arrays).T.copy()))
