"""Several choices, bits and real vectors: what the application gets, and what arrives."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rl4sys_stream import ConfigError, MaskError, StreamAgent, UsageError
from rl4sys_stream.policy.extras import BehaviorExtras, HeadName
from rl4sys_stream.policy.mlp import LOG_STD, actor_layout
from rl4sys_stream.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, flat_dim
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.testing import eventually
from rl4sys_stream.wire.format import FALLBACK_TOKEN
from rl4sys_stream.wire.snapshot import Weights
from rl4sys_stream.wire.trajectory import BehaviorRun, Trajectory, TrajectorySpec
from tests.integration.agent.world import OBS, OBS_DIM, World
from tests.unit.policy.test_heads import log_density

F = np.float32
KNOBS, SWITCHES = MultiDiscrete((3, 2)), MultiBinary(3)
LEVERS = Box((2, 2), (-1.0, 0.0, -1.0, 5.0), (1.0, 4.0, 1.0, 9.0))
CLIP, SQUASH = ActionFormat.of(LEVERS), ActionFormat.of(LEVERS, squash=True)


def constant_model(
    outputs: NDArray[np.float32], *, log_std: float | None = None, obs_dim: int = OBS_DIM
) -> Weights:
    """A network that says the same of every observation."""
    tensors = {}
    layout = actor_layout(obs_dim, (64, 64), len(outputs), log_std=log_std is not None)
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        tensors[name] = np.zeros(shape, F)
    tensors["pi.2.bias"] = outputs
    if log_std is not None:
        tensors[LOG_STD] = np.full(len(outputs), log_std, F)
    return Weights.from_tensors(tensors)


def acts(agent: StreamAgent, version: int) -> bool:
    """Whether that version acts."""
    return agent.version == version


def record(
    agent: StreamAgent, steps: int, *, obs: Any = OBS, mask: Any = None
) -> list[tuple[Any, Any, float]]:
    """One terminated episode: what was applied and raw at each step, and its log-probability."""
    traj, found = None, []
    for _ in range(steps):
        traj, action = agent.request_for_action(traj, obs, mask)
        found.append((np.array(action.action), np.array(action.raw), action.log_prob))
        agent.add_to_trajectory(traj, action)
        action.update_reward(1.0)
        if isinstance(action.action, np.ndarray):
            action.action[...] = 0  # the environment may use it as its own
    assert traj is not None
    agent.mark_end_of_trajectory(traj)
    assert agent.flush()
    return found


def arrived(world: World, actions: ActionFormat, obs_dim: int = OBS_DIM) -> Trajectory:
    """The newest entry, decoded as the worker does."""
    return world.sent(TrajectorySpec(obs_dim, actions))[-1].trajectory


def assert_arrived(trajectory: Trajectory, found: list[tuple[Any, Any, float]]) -> None:
    """The raw actions and their log-probabilities, not the applied ones."""
    assert np.array_equal(trajectory.actions, np.array([raw for _, raw, _ in found]))
    assert np.array_equal(trajectory.log_probs, np.array([one[2] for one in found], F))


@pytest.mark.parametrize(("space", "dtype"), [(KNOBS, np.int64), (SWITCHES, np.int8)])
def test_several_choices_arrive_as_they_were_made(world: World, space: Space, dtype):
    """First by chance and then by a model, which nearly always makes the same ones."""
    actions = ActionFormat.of(space)
    with world.agent(seed=1, action_space=space) as agent:
        by_chance = record(agent, 20)
        assert_arrived(arrived(world, actions), by_chance)
        assert len({str(raw) for _, raw, _ in by_chance}) > 2
        outputs = np.zeros(actions.choices, F)
        preferred = np.array(actions.nvec) - 1  # the last of each
        outputs[np.cumsum(actions.nvec) - 1] = 20.0
        world.publish(1, constant_model(outputs))
        assert agent.wait_for_model(10)
        found = record(agent, 20)
        for applied, raw, log_prob in found:
            assert (applied.dtype, raw.dtype) == (dtype, np.int64)
            assert applied.tolist() == raw.tolist() == preferred.tolist()
            assert -1e-6 < log_prob <= 0
        greedy = agent.evaluate(OBS)
        assert greedy.action.tolist() == preferred.tolist()
        assert greedy.action.dtype == dtype
    trajectory = arrived(world, actions)
    assert_arrived(trajectory, found)
    assert trajectory.behavior == (BehaviorRun(1, "1:worker", 20),)


def test_each_choice_obeys_its_own_part_of_the_mask(world: World):
    """By chance and by the model, which would rather not; the masks arrive as they were given."""
    mask = [True, False, True, True, False]
    actions = ActionFormat.of(KNOBS)
    with world.agent(seed=2, action_space=KNOBS) as agent:
        for _ in range(2):
            found = record(agent, 30, mask=mask)
            assert {str(raw) for _, raw, _ in found} <= {"[0 0]", "[2 0]"}
            masks = arrived(world, actions).masks
            assert masks is not None
            assert masks.tolist() == [mask] * 30
            assert agent.evaluate(OBS, mask).action.tolist()[1] == 0
            world.publish(1, constant_model(np.array([0, 9, 1, 0, 9], F)))
            assert agent.wait_for_model(10)
        with pytest.raises(MaskError, match="forbids every action of the 2 from 3 on"):
            agent.request_for_action(None, OBS, [True, True, True, False, False])
        with pytest.raises(MaskError, match="shape"):
            agent.request_for_action(None, OBS, [True, True])


@pytest.mark.parametrize("actions", [CLIP, SQUASH])
@pytest.mark.parametrize("head", ["gaussian", "state_gaussian"])
def test_raw_vectors_arrive_and_applied_ones_act(
    world: World, head: HeadName, actions: ActionFormat
):
    """The log-probability is that of the raw action, as torch has it."""
    means, log_std = np.array([0.0, 2.0, -3.0, 1.0], F), 0.5
    with world.agent(seed=3, action_space=LEVERS, squash=actions.squash) as agent:
        if head == "gaussian":
            model = constant_model(means, log_std=log_std)
        else:
            model = constant_model(np.concatenate([means, np.full(4, log_std, F)]))
        world.publish(1, model, extras=BehaviorExtras(head=head))
        assert agent.wait_for_model(10)
        found = record(agent, 50)
        greedy = agent.evaluate(OBS)
        sampled = agent.evaluate(OBS, deterministic=False)
    trajectory = arrived(world, actions)
    assert trajectory.actions.dtype == np.float32
    assert_arrived(trajectory, found)
    for applied, raw, log_prob in found:
        assert (applied.dtype, applied.shape) == (np.float32, (2, 2))
        assert np.array_equal(applied, actions.applied(raw))
        expected = log_density(raw, means.tolist(), [log_std] * 4, squash=actions.squash)
        assert log_prob == pytest.approx(expected, abs=1e-4)
    raws = np.array([raw for _, raw, _ in found])
    applieds = np.array([applied.reshape(-1) for applied, _, _ in found])
    assert (applieds >= actions.low).all()
    assert (applieds <= actions.high).all()
    if not actions.squash:
        inside = (raws >= actions.low) & (raws <= actions.high)
        assert inside.any()
        assert not inside.all()
        assert np.array_equal(applieds[inside], raws[inside])
    assert np.array_equal(greedy.raw, means)
    assert np.array_equal(greedy.action, actions.applied(means))
    assert not np.array_equal(sampled.raw, means)


@pytest.mark.parametrize("actions", [CLIP, SQUASH])
def test_before_a_model_real_vectors_are_uniform_between_their_bounds(
    world: World, actions: ActionFormat
):
    """With the density of what is recorded."""
    volume = 2.0 * 4.0 * 2.0 * 4.0
    expected = -4 * math.log(2) if actions.squash else -math.log(volume)
    with world.agent(seed=4, action_space=LEVERS, squash=actions.squash) as agent:
        found = record(agent, 200)
    trajectory = arrived(world, actions)
    assert_arrived(trajectory, found)
    assert trajectory.behavior == (BehaviorRun(0, "", 200),)
    assert trajectory.log_probs == pytest.approx(expected, abs=1e-5)
    applied = np.array([applied.reshape(-1) for applied, _, _ in found])
    shares = (applied - actions.low) / (actions.high - actions.low)
    assert np.abs(shares.mean(axis=0) - 0.5).max() < 0.08
    assert shares.min() < 0.05
    assert shares.max() > 0.95


@pytest.mark.parametrize(
    ("space", "squash", "decision", "raw", "applied"),
    [
        (KNOBS, False, (2, 1), [2, 1], [2, 1]),
        (SWITCHES, False, [True, False, True], [1, 0, 1], [1, 0, 1]),
        (LEVERS, False, [[0.5, 1], [-7, 99]], [0.5, 1, -7, 99], [[0.5, 1], [-1, 9]]),
        (LEVERS, True, [[0.0, 2], [0, 7]], [0.0, 0, 0, 0], [[0.0, 2], [0, 7]]),
        (LEVERS, True, [[1.0, 4], [-9, 5]], None, [[1.0, 4], [-1, 5]]),
    ],
)
def test_the_fallbacks_decision_of_any_kind_is_applied_and_recorded_raw(
    world: World, space: Space, squash: bool, decision: object, raw: object, applied: Any
):
    """An element of the action space, clipped where it goes beyond; no probability is known."""
    agent = world.agent(fallback=lambda obs, mask: decision, action_space=space, squash=squash)
    with agent:
        ((did, recorded, log_prob),) = record(agent, 1)
    assert did == pytest.approx(np.array(applied), abs=4e-6)
    assert log_prob == 0.0
    trajectory = arrived(world, ActionFormat.of(space, squash=squash))
    assert trajectory.behavior == (BehaviorRun(0, FALLBACK_TOKEN, 1),)
    assert np.array_equal(trajectory.actions[0], recorded)
    if raw is not None:
        assert trajectory.actions[0].tolist() == raw


@pytest.mark.parametrize(
    ("space", "decision", "mask", "words"),
    [
        (KNOBS, [3, 0], None, "3 in element 0"),
        (KNOBS, 1, None, "expected 2 integers"),
        (KNOBS, [0, 1], [True, True, True, True, False], "mask forbids"),
        (SWITCHES, [0, 0, 2], None, "2 in element 2"),
        (SWITCHES, [0, 0, 1], [True, True, True, True, True, False], "mask forbids"),
        (LEVERS, [0.0] * 4, None, "numbers of shape"),
        (LEVERS, [[0.0, math.nan]] * 2, None, "not finite"),
    ],
)
def test_a_fallback_that_decides_for_no_such_action_is_told_so(
    world: World, space: Space, decision: object, mask: Any, words: str
):
    """It is the application's own code."""
    agent = world.agent(fallback=lambda obs, mask: decision, action_space=space)
    with agent, pytest.raises(UsageError, match=words):
        agent.request_for_action(None, OBS, mask)


def test_real_vectors_have_no_mask(world: World):
    """By chance, by the fallback's leave, by a model, and in evaluation."""
    with world.agent(action_space=LEVERS) as agent:
        for _ in range(2):
            for ask in (
                lambda: agent.request_for_action(None, OBS, [True] * 4),
                lambda: agent.evaluate(OBS, [True] * 4),
            ):
                with pytest.raises(MaskError, match="no mask; leave it out"):
                    ask()
            model = constant_model(np.zeros(4, F), log_std=0.0)
            world.publish(1, model, extras=BehaviorExtras(head="gaussian"))
            assert agent.wait_for_model(10)


def test_a_model_with_the_head_of_another_kind_of_action_is_refused(world: World):
    """And the agent goes on by chance."""
    with world.agent(action_space=LEVERS) as agent:
        world.publish(1, constant_model(np.zeros(4, F)), extras=BehaviorExtras())
        eventually(lambda: agent.status().models_refused == 1)
        assert agent.version == 0
        assert "'categorical'" in agent.status().last_error
        assert record(agent, 1)


def test_an_epsilon_greedy_model_explores_by_its_own_share(world: World):
    """The worker owns it, and the next version brings another one."""
    with world.agent(seed=5) as agent:
        for version, epsilon in ((1, 0.0), (2, 1.0)):
            values = constant_model(np.array([0, 0, 5, 0], F))
            extras = BehaviorExtras(head="epsilon_greedy", epsilon=epsilon)
            world.publish(version, values, extras=extras)
            eventually(partial(acts, agent, version))
            found = record(agent, 100)
            assert {int(raw) for _, raw, _ in found} == ({2} if version == 1 else {0, 1, 2, 3})
            expected = 0.0 if version == 1 else -math.log(4)
            assert arrived(world, ActionFormat.of(Discrete(4))).log_probs == pytest.approx(expected)
        assert int(agent.evaluate(OBS)) == 2


def test_a_mapping_of_observations_leads_to_a_vector_of_actions(world: World):
    """Flattened in the space's order, whatever the mapping's; one action for all of it."""
    seen = Dict({"load": Box((2,)), "mode": Discrete(3), "hot": Box(())})
    space = Box((), -2.0, 2.0)
    actions = ActionFormat.of(space)
    with world.agent(seed=6, observation_space=seen, action_space=space) as agent:
        model = constant_model(np.array([1.5], F), log_std=-1.0, obs_dim=flat_dim(seen))
        world.publish(1, model, extras=BehaviorExtras(head="gaussian"))
        assert agent.wait_for_model(10)
        found = record(agent, 10, obs={"hot": 0.25, "mode": 1, "load": [0.5, -0.5]})
        assert agent.evaluate({"mode": 2, "load": [0, 0], "hot": 0}).action == pytest.approx(1.5)
    trajectory = arrived(world, actions, flat_dim(seen))
    assert trajectory.observations.tolist() == [[0.5, -0.5, 0, 1, 0, 0.25]] * 10
    assert trajectory.actions.shape == (10, 1)
    assert_arrived(trajectory, found)
    assert {applied.shape for applied, _, _ in found} == {()}


@pytest.mark.parametrize(
    ("space", "squash", "words"),
    [
        (Dict({"a": Discrete(2)}), False, "needs Discrete.* actions"),
        (Box((2,), low=0.0), True, "need finite bounds"),
    ],
)
def test_actions_that_nothing_can_choose_are_refused_at_the_start(
    world: World, space: Space, squash: bool, words: str
):
    """With the path of the setting."""
    with pytest.raises(ConfigError, match=words) as caught:
        world.agent(action_space=space, squash=squash)
    assert caught.value.path == "action_space"
