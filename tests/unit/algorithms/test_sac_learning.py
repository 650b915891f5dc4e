"""Real-valued tasks with a known optimum, acted by the exported policy, trained in process."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from rl4sys_stream.algorithms.base import Sample
from rl4sys_stream.algorithms.sac import SAC
from rl4sys_stream.config import ClientSpec, NetworkSpec, SACParameters
from rl4sys_stream.policy.policy import ModelPolicy, build_policy
from rl4sys_stream.spaces import Box
from rl4sys_stream.wire.trajectory import BehaviorRun, End, Trajectory

PARAMETERS = SACParameters(
    learning_rate=5e-3,
    gamma=0.5,
    buffer_size=2000,
    batch_size=64,
    learning_starts=64,
    tau=0.05,
    train_freq=2,
    gradient_steps=1,
    ent_coef="auto_0.1",
)
SPEC = ClientSpec(
    algorithm="SAC",
    observation_space=Box((1,), -1.0, 1.0),
    action_space=Box((2,), -2.0, 3.0),
    network=NetworkSpec(hidden_sizes=(32,), activation="relu"),
)
Best = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def policy_of(sac: SAC) -> ModelPolicy:
    """What an agent would act with."""
    export = sac.export()
    return build_policy(SPEC, export.weights, export.extras, 1, "token")


def play(policy: ModelPolicy, best: Best, rng: np.random.Generator, end: End) -> Sample:
    """64 steps that are worth the squared distance to the best action, negated.

    Args:
        policy: Acts.
        best: From an observation to the applied action that is best, float32 [2].
        rng: Of the observations and the actions.
        end: With `CUT` the world goes on; with `TERMINATED` the last step has no future.
    """
    observations = rng.uniform(-1.0, 1.0, (65, 1)).astype(np.float32)
    drawn = [policy.act(observation, None, rng.random) for observation in observations[:64]]
    applied = [SPEC.actions.applied(action) for action, _ in drawn]
    rewards = [
        -float(np.square(action - best(observation)).mean())
        for action, observation in zip(applied, observations, strict=False)
    ]
    return Sample(
        Trajectory(
            observations=observations[:64],
            actions=np.array([action for action, _ in drawn], np.float32),
            rewards=np.array(rewards, np.float32),
            log_probs=np.array([log_prob for _, log_prob in drawn], np.float32),
            masks=None,
            final_observation=None if end is End.TERMINATED else observations[64],
            end=end,
            behavior=(BehaviorRun(1, "token", 64),),
            episode=0,
            offset=0,
            created_ms=0,
        ),
        2,
    )


def largest_miss(seed: int, best: Best, end: End, **changes: object) -> float:
    """How far greedy actions are from the best ones after 40 updates, two versions behind."""
    parameters = SACParameters.from_json({**PARAMETERS.to_json(), **changes})
    sac, rng = SAC(SPEC, parameters, seed=seed), np.random.default_rng(seed)
    policies = [policy_of(sac)] * 3
    for _ in range(40):
        sac.observe(play(policies[0], best, rng, end))
        assert sac.ready()
        sac.update()
        policies = [*policies[1:], policy_of(sac)]
    rows = np.linspace(-1.0, 1.0, 9, dtype=np.float32)[:, None]
    greedy = [SPEC.actions.applied(policies[-1].greedy(row, None)[0]) for row in rows]
    return max(
        float(np.abs(action - best(row)).max()) for action, row in zip(greedy, rows, strict=True)
    )


def an_arm(observation: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same action whatever is shown, nearer to one bound than to the other."""
    return np.array([2.0, -1.0], np.float32)


def followed(observation: NDArray[np.float32]) -> NDArray[np.float32]:
    """One element with what is shown, the other against it."""
    return 0.5 + observation * np.array([1.5, -1.5], np.float32)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_finds_the_best_action_of_a_continuous_bandit(seed: int) -> None:
    """Within a tenth of the range, from data that lags by two versions."""
    assert largest_miss(seed, an_arm, End.TERMINATED) < 0.5


@pytest.mark.parametrize(
    ("seed", "changes"),
    [
        *((seed, {"ent_coef": "auto"}) for seed in (1, 2, 3)),
        (1, {"ent_coef": 0.01}),
        (1, {"normalize_observations": True}),
    ],
)
def test_it_learns_actions_that_depend_on_what_is_shown(
    seed: int, changes: dict[str, object]
) -> None:
    """Within a tenth of the range, whatever sets the temperature."""
    assert largest_miss(seed, followed, End.CUT, **changes) < 0.5
