"""Tasks with a known optimum, acted by the exported policy, trained in process."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rl4sys_stream.algorithms.base import Sample
from rl4sys_stream.algorithms.dqn import DQN
from rl4sys_stream.config import ClientSpec, DQNParameters, NetworkSpec
from rl4sys_stream.policy.policy import ModelPolicy, build_policy
from rl4sys_stream.spaces import Box, Discrete
from rl4sys_stream.wire.trajectory import BehaviorRun, End, Trajectory
from tests.unit.algorithms.test_learning import N, bandit, identity, play

PARAMETERS = DQNParameters(
    total_timesteps=2000,
    learning_rate=3e-3,
    gamma=0.5,
    buffer_size=2000,
    batch_size=32,
    learning_starts=64,
    train_freq=2,
    gradient_steps=1,
    target_update_interval=64,
    exploration_fraction=0.5,
)
SPEC = ClientSpec(
    algorithm="DQN",
    observation_space=Box((N,)),
    action_space=Discrete(N),
    network=NetworkSpec(hidden_sizes=(32,), activation="relu"),
)
SWITCHES: tuple[dict[str, object], ...] = (
    {},
    {"tau": 0.05, "target_update_interval": 1},
    {
        "double_q": True,
        "dueling": True,
        "n_step": 2,
        "prioritized_replay": True,
        "normalize_observations": True,
    },
)


def policy_of(dqn: DQN) -> ModelPolicy:
    """What an agent would act with."""
    export = dqn.export()
    return build_policy(SPEC, export.weights, export.extras, 1, "token")


def make(seed: int, **changes: object) -> DQN:
    """A DQN for these tasks."""
    return DQN(SPEC, DQNParameters.from_json({**PARAMETERS.to_json(), **changes}), seed=seed)


def greedy(policy: ModelPolicy) -> list[int]:
    """The greedy action for each symbol."""
    return [int(policy.greedy(row, None)[0]) for row in np.eye(N, dtype=np.float32)]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("changes", SWITCHES)
@pytest.mark.parametrize("masked", [False, True])
def test_it_learns_the_identity(seed: int, changes: dict[str, object], masked: bool) -> None:
    """Also where half of the actions are forbidden each time, and behind by two versions."""
    dqn, rng = make(seed, **changes), np.random.default_rng(seed)
    policies = [policy_of(dqn)] * 3
    for _ in range(32):
        dqn.observe(play(policies[0], identity, rng, masked=masked, lag=2))
        assert dqn.ready()
        dqn.update()
        policies = [*policies[1:], policy_of(dqn)]
    assert greedy(policies[-1]) == list(range(N))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_finds_the_best_arm(seed: int) -> None:
    """Whatever is shown."""
    dqn, rng = make(seed), np.random.default_rng(seed)
    for _ in range(32):
        dqn.observe(play(policy_of(dqn), bandit, rng, masked=False, lag=0))
        dqn.update()
    assert greedy(policy_of(dqn)) == [N - 1] * N


def walk(policy: ModelPolicy, rng: np.random.Generator, *, cut: int) -> list[Trajectory]:
    """An episode of a corridor, in parts: action 1 steps on, any other one ends it for nothing.

    Only the step that leaves the last of four places pays, so values must travel back.
    """
    places: list[int] = []
    actions: list[int] = []
    place = 0
    while place < N and (not actions or actions[-1] == 1):
        places.append(place)
        actions.append(int(policy.act(row_of(place), None, rng.random)[0]))
        place += 1
    paid = place == N and actions[-1] == 1
    parts = []
    for start in range(0, len(places), cut):
        here = places[start : start + cut]
        last = start + cut >= len(places)
        rewards = np.zeros(len(here), np.float32)
        rewards[-1] = float(last and paid)
        parts.append(
            Trajectory(
                observations=np.stack([row_of(p) for p in here]),
                actions=np.array(actions[start : start + cut]),
                rewards=rewards,
                log_probs=np.zeros(len(here), np.float32),
                masks=None,
                final_observation=None if last else row_of(places[start + cut]),
                end=End.TERMINATED if last else End.CUT,
                behavior=(BehaviorRun(1, "token", len(here)),),
                episode=0,
                offset=start,
                created_ms=0,
            )
        )
    return parts


def row_of(place: int) -> NDArray[np.float32]:
    """The place, one-hot."""
    row = np.zeros(N, np.float32)
    row[place] = 1.0
    return row


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("changes", "cut"), [(SWITCHES[0], 1), *((s, 3) for s in SWITCHES)])
def test_values_travel_back_over_steps_and_over_cuts(
    seed: int, changes: dict[str, object], cut: int
) -> None:
    """The value of stepping on is γ^(steps to the end), whatever the parts of an episode."""
    dqn, rng = (
        make(seed, **changes, gamma=0.8, exploration_final_eps=0.3),
        np.random.default_rng(seed),
    )
    for _ in range(60):
        policy = policy_of(dqn)
        while not dqn.ready():
            for part in walk(policy, rng, cut=cut):
                dqn.observe(Sample(part))
        dqn.update()
    assert greedy(policy_of(dqn)) == [1] * N
    if "n_step" not in changes:  # returns of several steps are those of the policy that acted
        values = dqn.online(torch.eye(N)).amax(dim=1)
        assert values.tolist() == pytest.approx([0.512, 0.64, 0.8, 1.0], abs=0.1)
