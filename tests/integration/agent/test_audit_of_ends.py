"""What the audit says of agents that are gone: delivered, given up, or lost, and never hidden."""

import time

from rl4sys_stream import Box, Discrete, StreamAgent
from rl4sys_stream.broker.audit import STALE_MS, audit_client
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import AgentHeartbeat, write_heartbeat
from rl4sys_stream.testing import RedisServer, eventually


def make_agent(url: str, client: str, **settings: object) -> StreamAgent:
    """An agent of a tiny client."""
    return StreamAgent(
        client_id=client,
        redis_url=url,
        observation_space=Box((2,)),
        action_space=Discrete(2),
        overrides={f"agent.{name}": value for name, value in settings.items()},
    )


def play(agent: StreamAgent, episodes: int) -> None:
    """One-step episodes."""
    for _ in range(episodes):
        trajectory, action = agent.request_for_action(None, [0.0, 1.0])
        agent.add_to_trajectory(trajectory, action)
        action.update_reward(1.0)
        agent.mark_end_of_trajectory(trajectory)


def test_what_a_closing_agent_gives_up_is_dropped_in_its_books(redis_url, client_name, broker):
    """A stream above the high-water mark at the end: accepted is trained, pending or dropped."""
    agent = make_agent(redis_url, client_name, high_water_entries=5)
    play(agent, 50)
    eventually(lambda: agent.status().issued >= 5, 10, "some are sent")
    agent.close(timeout_s=0.3)
    keys = ClientKeys(client_name)
    # Its last words may come a moment after it was told to hurry.
    eventually(lambda: not audit_client(broker, keys).agents[0].live, 10, "it said goodbye")
    (balance,) = audit_client(broker, keys).agents
    assert balance.closes
    assert balance.accepted == 50
    assert balance.lost == 0
    assert balance.pending + balance.dropped == 50
    assert balance.dropped > 0


def test_entries_destroyed_after_a_closed_agent_delivered_them_open_the_balance(
    redis_url, client_name, broker
):
    """Nobody can offer them again: the audit says lost, and does not close."""
    with make_agent(redis_url, client_name) as agent:
        play(agent, 5)
        assert agent.flush(5)
    keys = ClientKeys(client_name)
    assert audit_client(broker, keys).closes
    broker.unlink(keys.traj)
    report = audit_client(broker, keys)
    assert report.total("lost") == 5
    assert report.total("pending") == 0
    assert not report.closes


def test_what_dies_with_its_process_is_named_and_not_called_pending(redis_url, client_name, broker):
    """A heartbeat that stays old: not live, and what it had not delivered is lost."""
    with make_agent(redis_url, client_name):
        keys = ClientKeys(client_name)
        eventually(lambda: broker.hash_all(keys.spec), 10, "the client is registered")
        now_ms = time.time_ns() // 1_000_000
        said = AgentHeartbeat(
            agent_id="dead", accepted=9, issued=4, queued=5, floor=3, time_ms=now_ms - STALE_MS - 1
        )
        write_heartbeat(broker, keys, said)
        report = audit_client(broker, keys, now_ms=now_ms)
    (dead,) = (agent for agent in report.agents if agent.agent_id == "dead")
    assert not dead.live
    assert dead.pending == 0
    assert dead.lost == 2 + 5
    assert dead.accepted == 9


def test_closing_waits_no_longer_than_it_was_given_under_the_policy_block(client_name):
    """Six open trajectories, a full queue, no broker: one second is one second."""
    with RedisServer() as server:
        url = server.url
    agent = make_agent(url, client_name, drop_policy="block", block_timeout_s=2.0, queue_entries=1)
    for _ in range(6):
        trajectory, action = agent.request_for_action(None, [0.0, 1.0])
        agent.add_to_trajectory(trajectory, action)
        action.update_reward(1.0)
        agent.request_for_action(trajectory, [0.0, 1.0])
    begun = time.monotonic()
    agent.close(timeout_s=1.0)
    assert time.monotonic() - begun < 2.0
