"""What the configuration lacks comes from the registry; a contradiction is shown, not raised."""

import json
import socket
import time

import msgspec
import pytest

from rl4sys_stream import Box, ConfigError, Discrete, StreamAgent
from rl4sys_stream.broker.registry import read_registration, register
from rl4sys_stream.config import ClientSpec, NetworkSpec
from rl4sys_stream.testing import eventually
from tests.integration.agent.world import (
    ACTION_SPACE,
    OBS,
    OBSERVATION_SPACE,
    QUICK,
    SPEC,
    World,
    play,
    weights,
)


def from_registry(world: World) -> StreamAgent:
    """An agent that knows its client's name and nothing else."""
    return StreamAgent(None, world.client, world.url, overrides=QUICK, environ={})


def test_the_first_agent_registers_its_client(world: World):
    """With its spec, its parameters and a new lineage."""
    with world.agent():
        eventually(world.registered)
        registration = read_registration(world.broker, world.keys)
        assert registration is not None
        assert registration.spec == SPEC
        assert "algorithm_parameters" in registration.definition


def test_spaces_come_from_the_registry_when_nothing_else_says_them(world: World):
    """An application may know no more than its client's name."""
    register(world.broker, world.keys, SPEC, {}, wall_ms=1)
    with from_registry(world) as agent:
        play(agent, 2)
        assert agent.flush()
        assert world.numbers(agent.agent_id) == [1, 2]


def test_spaces_that_nobody_knows_are_an_error_at_construction(world: World):
    """It names the setting and the way out."""
    with pytest.raises(ConfigError, match="observation_space=") as refusal:
        from_registry(world)
    assert refusal.value.path == "observation_space"


def test_spaces_that_cannot_be_asked_for_are_an_error_within_a_bounded_time():
    """A host that swallows packets included."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(ConfigError, match="registry cannot be asked"):
            StreamAgent(
                None,
                "x",
                f"redis://127.0.0.1:{silent.getsockname()[1]}",
                None,
                ACTION_SPACE,
                environ={},
            )
        assert time.monotonic() - begun < 6


def test_a_client_without_a_name_is_an_error_at_construction():
    """It names the setting."""
    with pytest.raises(ConfigError, match="client_id="):
        StreamAgent(None, None, "redis://127.0.0.1:1", Box((1,)), Discrete(2), environ={})


def test_the_network_of_the_registry_is_taken_over_where_the_agent_states_none(world: World):
    """Spaces alone are enough to join a client of any network."""
    spec = ClientSpec(
        observation_space=OBSERVATION_SPACE,
        action_space=ACTION_SPACE,
        network=NetworkSpec(hidden_sizes=(16, 16)),
    )
    register(world.broker, world.keys, spec, {}, wall_ms=1)
    with world.agent() as agent:
        world.publish(1, weights(preferred=3, hidden=16))
        assert agent.wait_for_model(10)
        assert int(agent.evaluate(OBS)) == 3
        # Also after the registration was lost: it is this agent's own by now.
        world.broker.unlink(world.keys.spec)
        eventually(world.registered)
        registration = read_registration(world.broker, world.keys)
        assert registration is not None
        assert registration.spec == spec


def test_a_contradicting_spec_is_shown_logged_once_and_holds_the_queue(world: World, caplog):
    """The application goes on; nothing is sent; status says why, naming the field."""
    other = ClientSpec(observation_space=Box((9,)), action_space=ACTION_SPACE)
    register(world.broker, world.keys, other, {}, wall_ms=1)
    with world.agent(queue_entries=5) as agent:
        eventually(lambda: agent.status().refused)
        play(agent, 8)
        status = agent.status()
        assert "observation_space" in status.refused
        assert (status.broker, status.queued, status.dropped) == ("held", 5, 3)
        begun = time.monotonic()
        assert not agent.flush(30.0)  # there is nothing to wait for
        assert time.monotonic() - begun < 1
        assert world.broker.call("EXISTS", world.keys.traj) == 0
        lines = [record for record in caplog.records if "registration.refused" in record.message]
        assert [record.levelname for record in lines] == ["ERROR"]


def test_a_client_that_becomes_another_one_is_sent_nothing_more(world: World):
    """Deleted by an operator, and registered anew with other spaces."""
    with world.agent() as agent:
        play(agent, 1)
        assert agent.flush()
        other = ClientSpec(observation_space=Box((9,)), action_space=ACTION_SPACE)
        # In one write, so that the agent cannot register its own again in between.
        world.broker.hash_set(
            world.keys.spec, {"spec": msgspec.json.encode(other.to_json()), "lineage": "other"}
        )
        eventually(lambda: agent.status().refused)
        length = world.broker.call("XLEN", world.keys.traj)
        play(agent, 3)
        eventually(lambda: agent.status().accepted == 4)
        assert not agent.flush(0.3)
        assert world.broker.call("XLEN", world.keys.traj) == length


def test_a_contradiction_that_is_resolved_lets_the_queue_go(world: World, monkeypatch):
    """An operator deletes the client; the agent notices by itself."""
    monkeypatch.setattr("rl4sys_stream.agent.refresher.REFUSED_RETRY_S", 0.05)
    other = ClientSpec(observation_space=Box((9,)), action_space=ACTION_SPACE)
    register(world.broker, world.keys, other, {}, wall_ms=1)
    with world.agent() as agent:
        eventually(lambda: agent.status().refused)
        play(agent, 3)
        world.broker.unlink(world.keys.spec)
        eventually(lambda: not agent.status().refused)
        assert agent.flush(10)
        assert world.numbers(agent.agent_id) == [1, 2, 3]


def test_arguments_go_before_the_file(world: World, tmp_path):
    """As the seed's example does it: a file in the README's form, and a client id beside it."""
    file = tmp_path / "luna_conf.json"
    file.write_text(
        json.dumps(
            {
                "algorithm": "PPO",
                "network_architecture": {"hidden_sizes": [64, 64], "activation": "tanh"},
                "communication": {"server_address": "localhost:1", "timeout": 2},
            }
        )
    )
    with StreamAgent(
        file, world.client, world.url, OBSERVATION_SPACE, ACTION_SPACE, overrides=QUICK, environ={}
    ) as agent:
        assert agent.client_id == world.client
        play(agent, 1)
        assert agent.flush()
