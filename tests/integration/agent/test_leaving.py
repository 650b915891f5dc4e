"""Closing, the end of the process, and forks: what is sent, by whom, and what is given up."""

import gc
import os
import subprocess
import sys
import threading

import pytest

from rl4sys_stream import TrajectoryStateError, UsageError
from rl4sys_stream.testing import eventually
from rl4sys_stream.wire.trajectory import End
from tests.integration.agent.forks import forking, in_child
from tests.integration.agent.world import OBS, World, play, weights


def test_closing_sends_what_is_sealed_and_cuts_what_is_open(world: World):
    """Complete steps are not thrown away because the application ends in mid-episode."""
    agent = world.agent()
    play(agent, 20)
    traj = None
    for value in range(4):
        traj, action = agent.request_for_action(traj, OBS)
        agent.add_to_trajectory(traj, action)
        action.update_reward(value)
    agent.close()
    sent = world.sent()
    assert [entry.address.seq for entry in sent] == list(range(1, 22))
    assert (sent[-1].trajectory.end, len(sent[-1].trajectory.actions)) == (End.CUT, 3)
    assert agent.status().closed


def test_a_closed_agent_says_so_and_closing_again_does_nothing(world: World):
    """Use after the end is a mistake of the application."""
    agent = world.agent()
    traj, action = agent.request_for_action(None, OBS)
    agent.add_to_trajectory(traj, action)
    agent.close()
    agent.close()
    with pytest.raises(UsageError, match="closed"):
        agent.request_for_action(None, OBS)
    with pytest.raises(UsageError, match="closed"):
        agent.evaluate(OBS)
    with pytest.raises(TrajectoryStateError, match="open"):
        action.update_reward(1)


def test_closing_ends_the_threads(world: World):
    """An application may open and close agents all day: three, of which one is the listener."""
    before = set(threading.enumerate())
    with world.agent() as agent:
        play(agent, 1)
        assert len(set(threading.enumerate()) - before) == 3
    eventually(lambda: set(threading.enumerate()) <= before)


def test_an_agent_that_is_dropped_without_closing_flushes_and_ends(world: World):
    """Its threads do not live, and lie in the heartbeat, for ever."""
    before = set(threading.enumerate())
    agent = world.agent()
    agent_id = agent.agent_id
    play(agent, 3)
    del agent
    gc.collect()
    eventually(lambda: set(threading.enumerate()) <= before)
    assert world.numbers(agent_id) == [1, 2, 3]
    beat = world.heartbeat(agent_id)
    assert beat is not None
    assert beat.closed


def test_the_end_of_the_process_closes_an_agent_that_nobody_closed(world: World):
    """What was sealed a moment before is sent."""
    code = (
        "from tests.integration.agent.world import World, play\n"
        f"agent = World({world.url!r}, {world.client!r}).agent()\n"
        "play(agent, 5)\n"
        "print(agent.agent_id)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [".", *sys.path]))},
    )
    agent_id = done.stdout.strip()
    assert done.stderr == ""
    assert world.numbers(agent_id) == [1, 2, 3, 4, 5]
    beat = world.heartbeat(agent_id)
    assert beat is not None
    assert beat.closed


@forking
def test_a_forked_child_is_another_agent_and_the_parent_goes_on(world: World):
    """Both act with the model; each sends its own; nothing is sent twice."""
    with world.agent() as agent:
        world.publish(1, weights(preferred=2))
        assert agent.wait_for_model(10)
        play(agent, 3)
        parents_id = agent.agent_id

        def child() -> None:
            assert agent.agent_id != parents_id
            assert agent.version == 1
            assert agent.status().accepted == 0
            play(agent, 2, tag=100)
            assert agent.flush(10)
            agent.close()

        assert in_child(child) == 0
        assert agent.agent_id == parents_id
        play(agent, 1, tag=50)
        assert agent.flush()
        sent = world.sent()
        assert world.numbers(parents_id) == [1, 2, 3, 4]
        others = [entry for entry in sent if entry.address.agent_id != parents_id]
        assert [entry.address.seq for entry in others] == [1, 2]
        assert [entry.trajectory.rewards[0] for entry in others] == [100, 101]


@forking
def test_a_trajectory_that_was_open_at_a_fork_stays_the_parents(world: World):
    """The child may touch it without harm; it begins another one."""
    with world.agent() as agent:
        traj, action = agent.request_for_action(None, OBS)
        agent.add_to_trajectory(traj, action)

        def child() -> None:
            action.update_reward(99)
            following, other = agent.request_for_action(traj, OBS)
            assert following is not traj
            agent.mark_end_of_trajectory(traj)
            agent.add_to_trajectory(following, other)
            other.update_reward(5)
            agent.mark_end_of_trajectory(following)
            assert agent.flush(10)
            agent.close()

        assert in_child(child) == 0
        action.update_reward(1)
        agent.mark_end_of_trajectory(traj)
        assert agent.flush()
    assert sorted(entry.trajectory.rewards[0] for entry in world.sent()) == [1, 5]


@forking
def test_a_child_that_never_decides_starts_no_thread(world: World):
    """A fork for a helper program costs nothing and reports nothing."""
    with world.agent() as agent:
        eventually(world.registered)

        def child() -> None:
            assert threading.active_count() == 1
            agent.status()
            agent.close()

        assert in_child(child) == 0


@forking
def test_parent_and_child_draw_different_actions(world: World):
    """Also with a seed: the same numbers twice would be the same exploration twice."""
    with world.agent(seed=1) as agent:
        read, write = os.pipe()

        def draw() -> bytes:
            return bytes(int(agent.request_for_action(None, OBS)[1]) for _ in range(50))

        assert in_child(lambda: os.write(write, draw())) == 0
        assert os.read(read, 100) != draw()
        os.close(read)
        os.close(write)


@forking
def test_a_lock_that_was_held_at_a_fork_is_free_in_the_child(world: World):
    """Whoever held it does not exist there."""
    with world.agent() as agent:
        traj, action = agent.request_for_action(None, OBS)
        agent.add_to_trajectory(traj, action)
        with agent._recorder._lock, agent._state_lock:

            def child() -> None:
                threading.Timer(20, os._exit, (3,)).start()  # instead of hanging for ever
                agent.mark_end_of_trajectory(traj)
                action.update_reward(1)
                agent.request_for_action(None, OBS)

            assert in_child(child) == 0


@forking
def test_a_fork_while_other_threads_seal_leaves_no_lock_behind(world: World):
    """Whatever those threads held at that instant does not exist for the child."""
    with world.agent() as agent:
        stop = threading.Event()

        def busy() -> None:
            while not stop.is_set():
                play(agent, 1)

        threads = [threading.Thread(target=busy) for _ in range(2)]
        for thread in threads:
            thread.start()
        traj, action = agent.request_for_action(None, OBS)
        agent.add_to_trajectory(traj, action)

        def child() -> None:
            agent.mark_end_of_trajectory(traj)
            play(agent, 1)
            assert agent.flush(10)
            agent.close()

        try:
            assert [in_child(child) for _ in range(10)] == [0] * 10
        finally:
            stop.set()
            for thread in threads:
                thread.join()
