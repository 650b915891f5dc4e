"""Every sealed trajectory ends in the stream under its own number, and the counts are exact."""

import sys
import threading

import numpy as np
import pytest

from rl4sys_stream import Box, ConfigError, Discrete, StreamAgent
from rl4sys_stream.errors import MissingExtraError, TrajectoryStateError
from rl4sys_stream.testing import RedisServer, eventually
from rl4sys_stream.wire.trajectory import End
from tests.integration.agent.world import OBS, QUICK, World, play


def test_trajectories_arrive_once_in_order_and_as_recorded(world: World):
    """Numbers from 1 without gaps, each with a floor that is not above it."""
    with world.agent(seed=1) as agent:
        play(agent, 150, steps=2)
        assert agent.flush(10)
        sent = world.sent()
        assert [entry.address.seq for entry in sent] == list(range(1, 151))
        assert {entry.address.agent_id for entry in sent} == {agent.agent_id}
        assert all(1 <= entry.address.floor <= entry.address.seq for entry in sent)
        assert [entry.trajectory.rewards.tolist() for entry in sent] == [[e, e] for e in range(150)]
        assert [entry.trajectory.episode for entry in sent] == list(range(150))
        status = agent.status()
        assert (status.accepted, status.issued, status.steps) == (150, 150, 300)
        assert (status.queued, status.unanswered, status.dropped, status.resent) == (0, 0, 0, 0)


def test_an_agent_may_send_protocol_buffers_instead_of_columns(world: World):
    """Each entry is one message; a worker decodes it to the same."""
    with world.agent(seed=1, codec="protobuf") as agent:
        play(agent, 20, steps=2)
        assert agent.flush(10)
        sent = world.sent()
        assert [entry.trajectory.rewards.tolist() for entry in sent] == [[e, e] for e in range(20)]
        for entry in sent:
            assert entry.fields.keys() == {b"agent_id", b"seq", b"floor", b"pb"}


def test_an_agent_without_the_library_of_its_codec_says_what_to_install(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """At its construction, not at the first trajectory."""
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rl4sys-stream\[protobuf\]'"):
        world.agent(codec="protobuf")


def test_the_floor_rises_when_what_was_sent_is_past_its_retention(world: World):
    """The worker may settle the gaps below it."""
    with world.agent(retain_s=0.05) as agent:
        play(agent, 3)
        eventually(lambda: agent.status().floor == 4)
        play(agent, 1)
        assert agent.flush()
        assert world.sent()[-1].address.floor == 4


def test_the_floor_stays_while_what_was_sent_is_retained(world: World):
    """It may have to be offered again."""
    with world.agent(retain_s=60.0) as agent:
        for _ in range(3):
            play(agent, 1)
            assert agent.flush()
        assert [entry.address.floor for entry in world.sent()] == [1, 1, 1]


def test_rewards_may_come_from_another_thread_after_the_end(world: World):
    """A trajectory is sealed whichever of the two comes last, never twice and never not."""
    episodes, steps = 300, 4
    with world.agent() as agent:
        for episode in range(episodes):
            traj, actions = None, []
            for _ in range(steps):
                traj, action = agent.request_for_action(traj, OBS)
                agent.add_to_trajectory(traj, action)
                actions.append(action)
            started = threading.Barrier(2)

            def reward(actions=actions, episode=episode, started=started) -> None:
                started.wait()
                for action in actions:
                    action.update_reward(episode)

            thread = threading.Thread(target=reward)
            thread.start()
            started.wait()
            assert traj is not None
            agent.mark_end_of_trajectory(traj)
            thread.join()
        assert agent.flush(10)
        assert agent.status().sealing == 0
    rewards = [entry.trajectory.rewards.tolist() for entry in world.sent()]
    assert sorted(rewards) == [[episode] * steps for episode in range(episodes)]


def test_four_threads_share_an_agent(world: World):
    """Each with its own trajectories; nothing is mixed, lost or counted twice."""
    episodes, steps = 100, 5
    with world.agent() as agent:
        threads = [
            threading.Thread(
                target=play, args=(agent, episodes), kwargs={"steps": steps, "tag": 1000 * index}
            )
            for index in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert agent.flush(10)
        assert agent.status().decisions == 4 * episodes * steps
    sent = world.sent()
    assert [entry.address.seq for entry in sent] == list(range(1, 4 * episodes + 1))
    rewards = sorted(entry.trajectory.rewards.tolist() for entry in sent)
    assert rewards == sorted(
        [[1000 * index + episode] * steps for index in range(4) for episode in range(episodes)]
    )
    assert len({entry.trajectory.episode for entry in sent}) == 4 * episodes


def test_an_application_may_cut_an_episode_where_it_likes(world: World):
    """What is recorded goes, the handle stays; without a step, or at the end, nothing happens."""
    with world.agent() as agent:
        traj = None
        for value in range(5):
            traj, action = agent.request_for_action(traj, np.full(3, value))
            agent.add_to_trajectory(traj, action)
            action.update_reward(value)
            if value in {1, 2}:
                agent.cut_trajectory(traj, np.full(3, value + 1))
                agent.cut_trajectory(traj, np.full(3, value + 1))
        assert traj is not None
        agent.mark_end_of_trajectory(traj)
        with pytest.raises(TrajectoryStateError, match="nothing to cut"):
            agent.cut_trajectory(traj, np.zeros(3))
        traj, action = agent.request_for_action(traj, np.full(3, 9))
        agent.add_to_trajectory(traj, action)
        action.update_reward(9)
        agent.cut_trajectory(traj, np.full(3, 10))
        with pytest.raises(TrajectoryStateError, match="cut only where the episode goes on"):
            agent.mark_end_of_trajectory(traj)
        agent.mark_end_of_trajectory(traj, truncated=True, final_obs=np.full(3, 10))
        assert agent.flush()
        sent = [entry.trajectory for entry in world.sent()]
    assert [(t.end, t.episode, t.offset, t.rewards.tolist()) for t in sent] == [
        (End.CUT, 0, 0, [0, 1]),
        (End.CUT, 0, 2, [2]),
        (End.TERMINATED, 0, 3, [3, 4]),
        (End.CUT, 1, 0, [9]),
    ]
    finals = [t.final_observation for t in sent[:2]]
    assert [final is not None and final[0] for final in finals] == [2, 3]


def test_long_episodes_are_cut_and_sent_while_they_go_on(world: World):
    """A system that never stops is learned from all the same."""
    with world.agent(max_trajectory_steps=4) as agent:
        traj = None
        for value in range(10):
            traj, action = agent.request_for_action(traj, np.full(3, value))
            agent.add_to_trajectory(traj, action)
            action.update_reward(value)
        assert agent.flush()
        sent = [entry.trajectory for entry in world.sent()]
        assert [(t.end, t.offset, len(t.actions)) for t in sent] == [
            (End.CUT, 0, 4),
            (End.CUT, 4, 4),
        ]
        finals = [t.final_observation for t in sent]
        assert [None if final is None else final[0] for final in finals] == [4, 8]
        assert traj is not None
        assert len(traj) == 10


def test_an_overflowing_queue_drops_by_policy_and_counts_exactly(client_name: str):
    """The broker is away; what is over the limit is gone, and known to be."""
    for policy, survivors in (("drop_oldest", [7, 8, 9]), ("drop_newest", [0, 1, 2])):
        with RedisServer() as server:
            world = World(server.url, client_name)
            server.kill()
            with world.agent(drop_policy=policy, queue_entries=3) as agent:
                play(agent, 10)
                status = agent.status()
                assert (status.accepted, status.queued, status.dropped) == (10, 3, 7)
                server.restart()
                assert agent.flush(20)
                assert agent.status().issued == 3
            sent = world.sent()
            assert [entry.address.seq for entry in sent] == [1, 2, 3]
            assert [entry.trajectory.rewards[0] for entry in sent] == survivors
            world.close()


def test_the_stream_is_not_filled_above_the_high_water_mark(world: World):
    """The agent holds back while nobody consumes, and goes on when somebody does."""
    with world.agent(high_water_entries=20) as agent:
        play(agent, 50)
        eventually(lambda: agent.status().broker == "paused")
        length = world.broker.call("XLEN", world.keys.traj)
        assert 20 <= length <= 21
        assert agent.status().queued == 50 - length
        world.broker.call("XTRIM", world.keys.traj, "MAXLEN", 0)
        eventually(lambda: agent.status().issued >= 40)
        world.broker.call("XTRIM", world.keys.traj, "MAXLEN", 0)
        assert agent.flush(10)
        assert (agent.status().dropped, agent.status().broker) == (0, "up")


def test_the_mark_in_bytes_holds_when_trajectories_have_become_longer(world: World):
    """Short episodes at first, consumed at once; then long ones, and nobody consumes."""
    mark, batch = 1 << 20, 1 << 20
    overrides = QUICK | {"agent.high_water_bytes": mark, "worker.max_entry_bytes": mark}
    wide = np.zeros(500, np.float32)

    def play_wide(episodes: int, steps: int) -> None:
        for _ in range(episodes):
            traj = None
            for _ in range(steps):
                traj, action = agent.request_for_action(traj, wide)
                agent.add_to_trajectory(traj, action)
                action.update_reward(1.0)
            assert traj is not None
            agent.mark_end_of_trajectory(traj)

    with StreamAgent(
        None, world.client, world.url, Box((500,)), Discrete(2), overrides=overrides, environ={}
    ) as agent:
        for _ in range(10):
            play_wide(100, steps=1)
            assert agent.flush(10)
            world.broker.call("XTRIM", world.keys.traj, "MAXLEN", 0)
        play_wide(20, steps=100)
        eventually(lambda: agent.status().broker == "paused")
        used = world.broker.call("MEMORY", "USAGE", world.keys.traj, "SAMPLES", 0)
        assert mark < used < 1.2 * (mark + batch)
        world.broker.call("XTRIM", world.keys.traj, "MAXLEN", 0)
        before = agent.status().issued
        eventually(lambda: agent.status().issued > before)
        world.broker.call("XTRIM", world.keys.traj, "MAXLEN", 0)


def test_entries_retained_by_the_head_do_not_count_against_the_high_water_mark(world: World):
    """A replay buffer's tail stays in the stream for good."""
    world.broker.hash_set(world.keys.head, {"retained": 1000})
    with world.agent(high_water_entries=10) as agent:
        play(agent, 30)
        assert agent.flush(10)


def test_full_retention_pauses_sending_and_not_the_application(world: World):
    """What may be lost at the broker is bounded, and kept."""
    big = Box((50_000,))
    with StreamAgent(
        None,
        world.client,
        world.url,
        big,
        Discrete(4),
        overrides={
            "agent.retain_bytes": 1 << 20,
            "agent.retain_s": 1.0,
            "agent.heartbeat_s": 0.05,
            "worker.max_entry_bytes": 1 << 20,
            "agent.max_trajectory_steps": 4,
        },
        environ={},
    ) as agent:
        for _ in range(10):
            traj, action = agent.request_for_action(None, np.zeros(50_000, np.float32))
            agent.add_to_trajectory(traj, action)
            action.update_reward(0)
            agent.mark_end_of_trajectory(traj)
        eventually(lambda: agent.status().issued >= 5)
        assert agent.status().queued > 0
        assert agent.flush(20)
        assert world.broker.call("XLEN", world.keys.traj) == 10


def test_the_heartbeat_carries_the_books_and_the_goodbye_the_last_of_them(world: World):
    """The audit compares them with what the worker settled."""
    agent = world.agent()
    play(agent, 5, steps=4)
    assert agent.flush()
    eventually(lambda: (beat := world.heartbeat(agent.agent_id)) and beat.issued == 5)
    traj, action = agent.request_for_action(None, OBS)
    agent.add_to_trajectory(traj, action)
    agent.mark_end_of_trajectory(traj)
    eventually(lambda: (beat := world.heartbeat(agent.agent_id)) and beat.sealing == 1)
    agent.close()
    last = world.heartbeat(agent.agent_id)
    assert last is not None
    assert (last.closed, last.accepted, last.issued, last.quarantined) == (True, 6, 5, 1)
    assert (last.steps, last.decisions, last.fallback_decisions) == (21, 21, 21)
    assert (last.queued, last.sealing, last.dropped, last.open, last.refused) == (0, 0, 0, 0, "")


def test_an_unrewarded_trajectory_is_given_up_after_the_timeout(world: World):
    """In the background, without another call."""
    with world.agent(reward_timeout_s=0.1) as agent:
        traj, action = agent.request_for_action(None, OBS)
        agent.add_to_trajectory(traj, action)
        agent.mark_end_of_trajectory(traj)
        eventually(lambda: agent.status().quarantined == 1)
        assert agent.status().sealing == 0


def test_a_key_of_another_type_is_reported_and_nothing_is_lost(world: World):
    """An operator's mistake: the agent keeps everything and goes on when it is mended."""
    world.broker.call("SET", world.keys.traj, "not a stream")
    with world.agent() as agent:
        play(agent, 3)
        eventually(lambda: "WRONGTYPE" in agent.status().last_error)
        assert agent.status().unanswered == 3
        world.broker.unlink(world.keys.traj)
        assert agent.flush(20)
        assert world.numbers(agent.agent_id) == [1, 2, 3]


def test_a_full_broker_is_waited_for(client_name: str, caplog):
    """Out of memory under noeviction: nothing is lost, and models are still looked for."""
    with RedisServer(maxmemory="100mb") as server:
        world = World(server.url, client_name)
        with world.agent() as agent:
            play(agent, 1)
            assert agent.flush(10)
            world.broker.call("CONFIG", "SET", "maxmemory", "1")
            play(agent, 3)
            eventually(lambda: "memory" in agent.status().last_error)
            eventually(lambda: agent.status().broker == "refusing")
            assert agent.status().queued + agent.status().unanswered == 3
            eventually(lambda: "agent.heartbeat.refused" in caplog.text)
            assert "agent.refresher.down" not in caplog.text
            world.broker.call("CONFIG", "SET", "maxmemory", "100mb")
            assert agent.flush(20)
            assert world.numbers(agent.agent_id) == [1, 2, 3, 4]
        world.close()


def test_settings_that_cannot_work_are_refused_at_construction():
    """Before anything runs."""
    with pytest.raises(ConfigError, match="block_timeout_s"):
        StreamAgent(
            None,
            "x",
            "redis://127.0.0.1:1",
            Box((1,)),
            Discrete(2),
            overrides={"agent.drop_policy": "block"},
            environ={},
        )
