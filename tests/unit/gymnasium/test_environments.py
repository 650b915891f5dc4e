"""Environments that are not there, and paces that are none."""

import re
from pathlib import Path
from typing import Any, cast

import gymnasium
import pytest

from rl4sys_stream.agent.settlement import Settled, Settlement, SettlementNews
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.gymnasium import Pace, make_environment
from rl4sys_stream.gymnasium.film import check_film_path


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("CartPoll-v1", "did you mean CartPole-v1?"),
        ("cartpole-v7", "there is CartPole-v0, CartPole-v1"),
        ("Nowhere/Game-v1", "pip install 'Nowhere'"),
        ("ALE/Pong-v5", "pip install 'gymnasium[atari]'"),
        ("zzzz", "pprint_registry"),
        ("no_such_module:Game-v0", "No module named"),
    ],
)
def test_an_unknown_environment_is_refused_with_advice(name: str, advice: str) -> None:
    """The nearest ids, or what to install."""
    with pytest.raises(ConfigError, match=re.escape(advice)):
        make_environment(name)


def test_an_environment_ends_where_it_is_told_to() -> None:
    """A limit of one's own for tasks that have none."""
    env = make_environment("CliffWalking-v1", max_episode_steps=2)
    env.reset(seed=1)
    assert [env.step(0)[3] for _ in range(2)] == [False, True]
    env.close()


def test_an_environment_need_not_know_of_render_modes() -> None:
    """The least that Gymnasium asks for; many applications' own environments are such."""

    class Plain(gymnasium.Env[Any, Any]):
        observation_space = action_space = gymnasium.spaces.Discrete(2)

        def __init__(self) -> None:
            pass

    # Gymnasium's type of an entry point asks for what its `make` does without.
    gymnasium.register("Plain-v0", cast("Any", Plain))
    try:
        make_environment("Plain-v0").close()
    finally:
        del gymnasium.registry["Plain-v0"]


@pytest.mark.parametrize(
    ("pace", "update_steps", "ahead"),
    [
        (Pace(), 256, 256),
        (Pace(updates_ahead=1.5), 256, 384),
        (Pace(updates_ahead=0.1), 256, 256),
        (Pace(max_ahead_steps=1000), 256, 1000),
        (Pace(max_ahead_steps=10), 256, 256),
        (Pace(), None, 2048),
    ],
)
def test_a_pace_lets_at_least_one_update_through(
    pace: Pace, update_steps: int | None, ahead: int
) -> None:
    """Both would wait for each other otherwise."""
    assert pace.ahead_steps(update_steps) == ahead


@pytest.mark.parametrize(
    "setting",
    [
        {"updates_ahead": 0.0},
        {"updates_ahead": float("inf")},
        {"agents": 0},
        {"max_ahead_steps": 0},
    ],
)
def test_a_pace_that_is_none_is_refused(setting: dict[str, float]) -> None:
    """By name."""
    with pytest.raises(ConfigError, match=next(iter(setting))):
        Pace(**setting)  # type: ignore[arg-type]  # values are what is being tested


def test_steps_that_no_worker_will_train_on_are_not_waited_for() -> None:
    """Nobody counted their steps, so the average stands for them."""
    settlement = Settlement(
        accepted=10,
        accepted_steps=100,
        lost=1,
        settled=Settled(trained_steps=40, unused=2, update_steps=64),
    )
    assert settlement.unsettled_steps == 100 - 40 - 30


def test_news_of_a_settlement_ends_a_wait() -> None:
    """The same news again does not."""
    news = SettlementNews()
    known = news.settled
    assert not news.wait(known, 0.0)
    news.tell(None)
    assert not news.wait(known, 0.0)
    news.tell(b'{"watermark": 1, "trained": 1, "steps": 7}')
    assert news.wait(known, 0.0)
    assert news.settled.trained_steps == 7


@pytest.mark.parametrize(
    ("parameters", "steps"),
    [({"n_steps": 128}, 128), ({}, 2048), ({"n_steps": "many"}, None), ({"unheard_of": 1}, None)],
)
def test_a_definition_says_what_one_update_takes(
    parameters: dict[str, object], steps: int | None
) -> None:
    """What cannot be read is not guessed."""
    news = SettlementNews()
    news.tell_definition("PPO", {"algorithm_parameters": parameters})
    assert news.settled.update_steps == steps
    news.tell_definition("unheard of", {})
    assert news.settled.update_steps is None


def test_a_film_of_an_unknown_format_is_refused_before_it_is_made() -> None:
    """With the formats that there are."""
    check_film_path(Path("a.GIF"))
    with pytest.raises(ConfigError, match=r"ends in \.gif or \.webp; ffmpeg"):
        check_film_path(Path("a.mp4"))
