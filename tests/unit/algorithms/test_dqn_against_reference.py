"""Updates of our DQN equal those of Stable-Baselines3's from the same weights on the same draws."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rl4sys_stream.config import DQNParameters
from tests.unit.algorithms.dqn_reference import (
    DrawnBuffer,
    linear_layers,
    make_reference,
    transitions_of,
)
from tests.unit.algorithms.dqn_samples import SMALL, batch_of, make_dqn
from tests.unit.algorithms.ppo_reference import flat_weights
from tests.unit.algorithms.samples import observe_all

TOLERANCE = 3e-6
"""Absolute, of weights that move by 1e-3 a gradient step; sums are taken in another order."""

CASES: dict[str, dict[str, object]] = {
    "hard target": {},
    "Polyak target": {"tau": 0.05, "target_update_interval": 1, "gradient_steps": -1},
    "train often, target seldom": {
        "train_freq": 1,
        "gradient_steps": 3,
        "target_update_interval": 70,
    },
    "several steps of reward": {"n_step": 3},
    "gradients cut short": {"max_grad_norm": 0.05},
    "other discount": {"gamma": 0.5},
    "linear schedule": {"learning_rate_schedule": "linear", "total_timesteps": 150},
    "late start": {"learning_starts": 50},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_updates_equal_the_references(
    changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three updates: targets, Huber's loss, clipping, Adam, both cadences."""
    options = {"learning_rate": 1e-3, "buffer_size": 1000, **changes}
    parameters = DQNParameters.from_json({**SMALL.to_json(), **options})
    ours = make_dqn(3, **options)
    before = ours.online.vector.clone()
    reference = make_reference(ours, parameters)
    buffer = reference.replay_buffer
    assert isinstance(buffer, DrawnBuffer)
    drawn: list[Tensor] = []
    draw = ours.buffer.draw

    def noted(count: int, generator: torch.Generator) -> Tensor:
        drawn.append(draw(count, generator))
        return drawn[-1]

    monkeypatch.setattr(ours.buffer, "draw", noted)
    trajectories = []
    for update in range(3):
        samples = batch_of(update)
        trajectories += [sample.trajectory for sample in samples]
        observe_all(ours, samples).update()
        buffer.transitions = transitions_of(trajectories, parameters)
        # Nothing has been evicted: slots count steps from the first one on.
        size = parameters.batch_size
        buffer.draws = [part for slots in drawn for part in torch.split(slots, size)]
        drawn.clear()
        follow(reference, parameters, ours.num_timesteps)
        assert not buffer.draws
        assert reference._n_updates == ours.n_updates
        for mine, theirs in ((ours.online, reference.q_net), (ours.target, reference.q_net_target)):
            expected = flat_weights(linear_layers(theirs))
            np.testing.assert_allclose(mine.vector, expected, rtol=0, atol=TOLERANCE)
    assert (ours.online.vector - before).abs().max() > 1e-3
    assert not torch.equal(ours.online.vector, ours.target.vector)


def follow(reference, parameters: DQNParameters, steps: int) -> None:
    """What its `learn` does with each environment step until `steps`, but for the steps."""
    while reference.num_timesteps < steps:
        reference.num_timesteps += 1
        total = parameters.total_timesteps or 1
        reference._update_current_progress_remaining(reference.num_timesteps, total)
        reference._on_step()
        due = reference.num_timesteps % parameters.train_freq == 0
        if due and reference.num_timesteps > parameters.learning_starts:
            count = parameters.gradient_steps
            reference.train(parameters.train_freq if count == -1 else count, parameters.batch_size)
