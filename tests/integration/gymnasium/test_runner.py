"""What a runner records of environments in every form."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from PIL import Image

from rl4sys_stream.agent import StreamAgent
from rl4sys_stream.errors import ConfigError, UsageError
from rl4sys_stream.gymnasium import EpisodeRecord, Runner, evaluate, film, play
from rl4sys_stream.testing import eventually
from rl4sys_stream.wire.trajectory import End
from tests.integration.agent.world import N_ACTIONS, Sent, World, weights
from tests.integration.gymnasium.counting import FORMS, Counting, make

pytestmark = pytest.mark.integration


def sent_in_order(world: World, number: int) -> list[Sent]:
    """The trajectories of one environment."""
    return [s for s in world.sent() if s.trajectory.observations[0, 0] == number]


@pytest.mark.parametrize("form", FORMS)
def test_a_truncated_episode_hands_over_its_own_last_observation(world: World, form: str) -> None:
    """Not the first one of the next episode, which a learner would bootstrap from."""
    with world.agent() as agent:
        play(make(form), agent, episodes=7, pace=None)
        assert agent.flush(5)
    for number in range(1 if form == "one" else 2):
        whole = [s for s in sent_in_order(world, number) if len(s.trajectory.rewards) == 3 + number]
        assert len(whole) >= 3
        for episode, sent in enumerate(whole):
            trajectory, steps = sent.trajectory, range(3 + number)
            assert trajectory.end is End.TRUNCATED
            assert trajectory.observations.tolist() == [[number, episode, at] for at in steps]
            assert trajectory.rewards.tolist() == [at + 1 for at in steps]
            assert trajectory.final_observation is not None
            assert trajectory.final_observation.tolist() == [number, episode, 3 + number]


@pytest.mark.parametrize("form", FORMS)
def test_a_terminated_episode_has_no_value_after_its_end(world: World, form: str) -> None:
    """Nothing follows, so nothing is sent to estimate it from."""
    with world.agent() as agent:
        played = play(make(form, end="terminated"), agent, episodes=4, pace=None)
        assert agent.flush(5)
    assert all(record.terminated for record in played.episodes)
    ended = [s.trajectory for s in world.sent() if s.trajectory.end is End.TERMINATED]
    assert len(ended) == len(played.episodes)
    assert all(trajectory.final_observation is None for trajectory in ended)


@pytest.mark.parametrize("form", FORMS)
def test_the_mask_of_an_environment_is_the_mask_of_its_step(world: World, form: str) -> None:
    """At each step the environment forbids another action; after a reset, too."""
    with world.agent() as agent:
        play(make(form), agent, episodes=6, pace=None)
        assert agent.flush(5)
    for sent in world.sent():
        masks = sent.trajectory.masks
        assert masks is not None
        for at, (mask, action) in enumerate(zip(masks, sent.trajectory.actions, strict=True)):
            assert [bool(allowed) for allowed in mask] == [i != at % N_ACTIONS for i in range(4)]
            assert mask[action]


@pytest.mark.parametrize("form", FORMS)
def test_the_mask_at_the_end_of_an_episode_is_its_own(world: World, form: str) -> None:
    """Not that of the next episode's begin; of what is open at the end it is the next step's."""
    with world.agent() as agent:
        play(make(form), agent, episodes=6, pace=None)
        assert agent.flush(5)
    for sent in world.sent():
        mask = sent.trajectory.final_mask
        assert mask is not None
        at = len(sent.trajectory.actions)
        assert mask.tolist() == [i != at % N_ACTIONS for i in range(4)]


@pytest.mark.parametrize("form", FORMS)
def test_returns_and_lengths_are_those_of_the_episodes(world: World, form: str) -> None:
    """And the steps in which an environment resets itself are nobody's."""
    heard: list[EpisodeRecord] = []
    with world.agent() as agent:
        played = play(make(form), agent, episodes=6, pace=None, on_episode=heard.append)
        status = agent.status()
    assert tuple(heard) == played.episodes
    for record in heard:
        assert record.length == 3 + record.environment
        assert record.total == sum(range(1, record.length + 1))
        assert not record.terminated
    assert all(a.steps <= b.steps and a.elapsed_s <= b.elapsed_s for a, b in pairwise(heard))
    assert played.steps == status.steps == status.decisions


def test_a_terminal_state_may_forbid_everything(world: World) -> None:
    """Where nothing follows, nobody looks at its mask."""

    class Checkmate(Counting):
        def _info(self) -> dict[str, Any]:
            info = super()._info()
            info["action_mask"] *= self.at < self.length
            return info

    with world.agent() as agent:
        play(Checkmate(end="terminated"), agent, episodes=2, pace=None)
        assert agent.flush(5)
    assert [sent.trajectory.final_mask for sent in world.sent()] == [None, None]


def test_a_mask_that_forbids_everything_after_a_time_limit_says_nothing(world: World) -> None:
    """Environments give such once an episode is over, however it ended; nobody acts by it."""

    class Over(Counting):
        def _info(self) -> dict[str, Any]:
            info = super()._info()
            info["action_mask"] *= self.at < self.length
            return info

    with world.agent() as agent:
        play(Over(end="truncated"), agent, episodes=2, pace=None)
        assert agent.flush(5)
    sent = [s.trajectory for s in world.sent()]
    assert [(t.end, t.final_mask) for t in sent] == [(End.TRUNCATED, None)] * 2


def test_what_breaks_an_environment_is_what_its_player_hears(world: World) -> None:
    """At the first step there is nothing to hand over; later there is."""

    class Broken(Counting):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            if self.at == self.length:
                raise ZeroDivisionError("the simulator broke")
            return super().step(action)

    with world.agent() as agent:
        for length in (0, 2):
            with pytest.raises(ZeroDivisionError):
                play(Broken(length=length, end="never"), agent, episodes=1, pace=None)
        assert agent.flush(5)
    (sent,) = world.sent()
    assert sent.trajectory.rewards.tolist() == [1, 2]


def test_an_episode_without_end_is_cut_and_goes_on(world: World) -> None:
    """A continuing task sends its steps all the same, each part with what followed it."""
    with world.agent(max_trajectory_steps=4) as agent:
        play(Counting(end="never"), agent, steps=10, pace=None)
        assert agent.flush(5)
    first, second, rest = [sent.trajectory for sent in world.sent()]
    assert (first.end, second.end, rest.end) == (End.CUT, End.CUT, End.TRUNCATED)
    for part, following in ((first, 4), (second, 8), (rest, 10)):
        assert part.final_observation is not None
        assert part.final_observation.tolist() == [0, 0, following]


def test_several_goes_are_one_run(world: World) -> None:
    """Episodes that are open at the end of one `run` go on with the next."""
    with world.agent() as agent:
        runner = Runner(Counting(length=4), agent, pace=None)
        assert runner.run(steps=3).episodes == ()
        (record,) = runner.run(steps=1).episodes
        assert (record.length, record.steps, runner.steps) == (4, 4, 4)
        runner.close()


def test_seeds_count_up_over_the_environments(world: World) -> None:
    """Copies of one environment play different episodes; later resets draw on."""
    environments = [Counting(number) for number in range(3)]
    with world.agent() as agent:
        play(environments, agent, episodes=6, seed=40, pace=None)
    for number, env in enumerate(environments):
        assert env.seeds[0] == 40 + number
        assert set(env.seeds[1:]) == {None}


def test_discrete_observations_are_played(world: World) -> None:
    """FrozenLake's are numbers of fields, which the agent takes apart, one-hot."""
    env = gymnasium.make("FrozenLake-v1")
    with world.agent(
        observation_space=env.observation_space, action_space=env.action_space
    ) as agent:
        played = play(env, agent, episodes=5, seed=1, pace=None)
        assert agent.evaluate(15).observation.tolist() == np.eye(16)[15].tolist()
        assert agent.status().accepted == len(played.episodes) == 5


@pytest.mark.parametrize("form", FORMS)
def test_evaluation_records_nothing(world: World, form: str) -> None:
    """Its episodes are complete, and shared out among the environments."""
    with world.agent() as agent:
        found = evaluate(make(form), agent, episodes=5, seed=1)
        status = agent.status()
    assert len(found.returns) == len(found.lengths) == 5
    wanted = [3] * 5 if form == "one" else [3, 3, 3, 4, 4]
    assert sorted(found.lengths) == wanted
    assert sorted(found.returns) == [sum(range(1, length + 1)) for length in wanted]
    assert found.mean == sum(found.returns) / 5
    assert status.accepted == status.open == 0


def test_short_episodes_do_not_count_more_in_an_evaluation(world: World) -> None:
    """A fall ends an episode early; whoever takes the first ones to end measures falls."""
    with world.agent() as agent:
        found = evaluate([Counting(0, length=2), Counting(1, length=19)], agent, episodes=4)
    assert sorted(found.lengths) == [2, 2, 20, 20]


def test_an_evaluation_without_end_is_stopped(world: World) -> None:
    """A policy that has learned nothing may walk in circles for ever."""
    with world.agent() as agent:
        found = evaluate(Counting(end="never"), agent, episodes=2, max_steps=7)
    assert found.lengths == (7, 7)


def test_an_evaluation_names_the_version_that_acted(world: World) -> None:
    """Two evaluations of one version may be compared."""
    with world.agent() as agent:
        assert evaluate(Counting(), agent, episodes=1).version == 0
        eventually(world.registered, 5)
        world.publish(3, weights(2))
        assert agent.wait_for_model(5)
        assert evaluate(Counting(), agent, episodes=1).version == 3


def test_a_film_shows_an_episode_from_its_begin_to_its_end(world: World, tmp_path: Path) -> None:
    """One picture for each step and the last, and nothing of it is recorded."""
    path = tmp_path / "film.gif"
    with world.agent() as agent:
        made = film(lambda _: Counting(length=6), agent, path, episodes=2)
        assert agent.status().accepted == agent.status().open == 0
    assert made.returns == (21.0, 21.0)
    assert (made.filmed, made.steps, made.size_bytes) == (21.0, 6, path.stat().st_size)
    with Image.open(path) as shown:
        assert shown.n_frames == 7  # type: ignore[attr-defined]  # a GIF's
        assert shown.size == (480, 320)


def test_choices_in_several_axes_are_filmed_as_they_are_played(
    world: World, tmp_path: Path
) -> None:
    """Agents have one axis; an environment gets its own."""

    class Switches(Counting):
        action_space = gymnasium.spaces.MultiBinary((2, 2))  # type: ignore[assignment]

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            assert self.action_space.contains(action)
            return super().step(0)

        def _info(self) -> dict[str, Any]:
            return {}

    env = Switches()
    with StreamAgent(
        client_id="switches",
        redis_url=world.url,
        observation_space=env.observation_space,
        action_space=env.action_space,
    ) as agent:
        shown = film(lambda _: Switches(), agent, tmp_path / "switches.gif", episodes=1)
    assert shown.steps == env.length


def test_an_environment_that_draws_nothing_is_not_filmed(world: World, tmp_path: Path) -> None:
    """In words, after the episodes and before anything is written."""
    path = tmp_path / "film.gif"
    with world.agent() as agent, pytest.raises(ConfigError, match="draws no pictures"):
        film(lambda _: Counting(draws=False), agent, path, episodes=1)
    assert not path.exists()


def test_what_cannot_be_played_is_refused_in_words(world: World) -> None:
    """With what can."""
    with world.agent() as agent:
        with pytest.raises(UsageError, match="a list of environments or an id"):
            play([], agent, steps=1)
        with pytest.raises(UsageError, match=r"run\(steps=\.\.\.\)"):
            play(Counting(), agent)
        with pytest.raises(UsageError, match=">= 1, not 0"):
            evaluate(Counting(), agent, episodes=0)
