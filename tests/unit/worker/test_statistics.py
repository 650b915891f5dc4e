"""Returns of episodes that arrive in pieces, from several agents, over restarts."""

import msgspec
import pytest

from rl4sys_stream.wire.trajectory import End, Trajectory
from rl4sys_stream.worker import statistics as module
from rl4sys_stream.worker.statistics import RolloutStatistics
from tests.unit.worker.entries import trajectory


def piece(
    episode: int, end: End = End.TERMINATED, *, steps: int = 4, reward: float = 1.0
) -> Trajectory:
    """Part of an episode."""
    return trajectory(steps, end=end, episode=episode, reward=reward)


def test_before_the_first_episode_there_is_no_mean():
    """A mean of nothing would be NaN in every plot."""
    assert RolloutStatistics().metrics() == {"rollout/episodes": 0}


def test_an_episode_in_pieces_counts_once_with_all_its_rewards():
    """And pieces of other episodes and agents do not mix in."""
    statistics = RolloutStatistics()
    statistics.add("a", piece(0, End.CUT, reward=1.0))
    statistics.add("b", piece(0, reward=5.0, steps=2))
    statistics.add("a", piece(1, reward=0.0, steps=3))
    assert statistics.metrics()["rollout/episodes"] == 2
    statistics.add("a", piece(0, End.TRUNCATED, reward=2.0))
    assert statistics.metrics() == {
        "rollout/episodes": 3,
        "rollout/ep_rew_mean": (10.0 + 0.0 + 12.0) / 3,
        "rollout/ep_len_mean": (2 + 3 + 8) / 3,
    }


def test_the_means_are_over_the_last_hundred_episodes():
    """The count is over all."""
    statistics = RolloutStatistics()
    for episode in range(150):
        statistics.add("a", piece(episode, steps=1, reward=float(episode)))
    metrics = statistics.metrics()
    assert metrics["rollout/episodes"] == 150
    assert metrics["rollout/ep_rew_mean"] == sum(range(50, 150)) / 100


def test_statistics_continue_after_a_restart_as_if_nothing_had_happened():
    """Open episodes included."""
    whole, first = RolloutStatistics(), RolloutStatistics()
    pieces = [("a", piece(n // 2, End.CUT if n % 2 else End.TERMINATED)) for n in range(7)]
    for item in pieces:
        whole.add(*item)
    for item in pieces[:3]:
        first.add(*item)
    second = RolloutStatistics.from_bytes(first.to_bytes())
    for item in pieces[3:]:
        second.add(*item)
    assert second.to_bytes() == whole.to_bytes()
    assert second.metrics() == whole.metrics()


def test_episodes_that_never_end_do_not_pile_up(monkeypatch):
    """The one that was heard of least recently is forgotten."""
    monkeypatch.setattr(module, "MAX_OPEN", 3)
    statistics = RolloutStatistics()
    for episode in (0, 1, 2, 0, 3, 4):
        statistics.add("a", piece(episode, End.CUT))
    statistics = RolloutStatistics.from_bytes(statistics.to_bytes())
    statistics.add("a", piece(0))
    assert statistics.metrics()["rollout/ep_len_mean"] == 12
    statistics.add("a", piece(1))
    assert statistics.metrics()["rollout/ep_len_mean"] == 8


def test_huge_rewards_stay_finite():
    """float32 would overflow in the sum."""
    statistics = RolloutStatistics()
    statistics.add("a", piece(0, steps=64, reward=3e38))
    assert statistics.metrics()["rollout/ep_rew_mean"] == pytest.approx(64 * 3e38, rel=1e-6)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"episodes":"x"}', b"\xff"])
def test_other_bytes_are_refused(data):
    """A checkpoint that lost its statistics is no checkpoint."""
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        RolloutStatistics.from_bytes(data)
