"""What agents act by when people say so: pins, promotions, the kill switch; over a real broker."""

import os
import secrets

import pytest

from rl4sys_stream import StreamAgent
from rl4sys_stream.broker.control import Selection, read_control
from rl4sys_stream.broker.control_log import read_control_log
from rl4sys_stream.broker.steering import Cause, demote, pin, promote, resume, stop, unpin
from rl4sys_stream.errors import UnknownVersionError, UsageError
from rl4sys_stream.testing import RedisServer, eventually
from tests.integration.agent.world import OBS, World, weights

pytestmark = pytest.mark.integration

ALL = Selection()
CAUSE = Cause("alice@ops", 1_700_000_000_000, "the return fell")


def acts_by(agent: StreamAgent, version: int) -> None:
    """Wait until the agent acts by a version."""
    eventually(lambda: agent.version == version, 10, f"version {version} acts")


def choice(agent: StreamAgent) -> object:
    """What it prefers to do."""
    return agent.evaluate(OBS).action


def test_a_pinned_agent_keeps_its_version_while_training_goes_on(world):
    """Also one that has to go back for it; released, it follows the newest again."""
    with world.agent() as agent:
        eventually(world.registered)
        for version in (1, 2, 3):
            world.publish(version, weights(version))
        acts_by(agent, 3)
        rule = pin(world.broker, world.keys, 2, ALL, CAUSE)
        acts_by(agent, 2)
        assert choice(agent) == 2
        world.publish(4, weights(0))
        status = agent.status()
        assert (status.control, status.rule, status.version) == ("pinned", rule.rule_id, 2)
        eventually(
            lambda: (said := world.heartbeat(agent.agent_id)) and said.rule == rule.rule_id,
            5,
            "the report says so",
        )
        assert agent.version == 2
        assert unpin(world.broker, world.keys, rule.rule_id, CAUSE) == (rule,)
        acts_by(agent, 4)
        assert agent.status().control == ""
        assert agent.status().rollbacks == 0


def test_a_new_agent_begins_at_the_pinned_version(world):
    """It never acts by the head: a restart of the application is no way around a pin."""
    with world.agent() as first:
        eventually(world.registered)
        for version in (1, 2):
            world.publish(version, weights(version))
        acts_by(first, 2)
        pin(world.broker, world.keys, 1, ALL, CAUSE)
    with world.agent() as agent:
        assert agent.wait_for_model(10)
        assert agent.version == 1


def test_the_first_rule_that_selects_an_agent_holds(world):
    """The newest pin goes first, and removes those of the same agents."""
    with world.agent() as agent:
        eventually(world.registered)
        for version in (1, 2, 3):
            world.publish(version, weights(version))
        acts_by(agent, 3)
        pin(world.broker, world.keys, 1, ALL, CAUSE)
        one = pin(world.broker, world.keys, 2, Selection(agent.agent_id[:-3] + "*"), CAUSE)
        acts_by(agent, 2)
        pin(world.broker, world.keys, 3, Selection("other-*"), CAUSE)
        assert len(read_control(world.broker, world.keys).rules) == 3
        unpin(world.broker, world.keys, one.rule_id, CAUSE)
        acts_by(agent, 1)
        pin(world.broker, world.keys, 3, ALL, CAUSE)
        assert len(read_control(world.broker, world.keys).rules) == 1
        acts_by(agent, 3)


def test_a_stopped_agent_acts_by_its_fallback_at_once(world):
    """A pin does not bring it back; `resume` does, to the newest version."""
    with world.agent(fallback=lambda obs, mask: 1) as agent:
        eventually(world.registered)
        world.publish(1, weights(2))
        acts_by(agent, 1)
        rule = stop(world.broker, world.keys, ALL, CAUSE)
        acts_by(agent, 0)
        assert choice(agent) == 1
        assert (agent.status().control, agent.status().version) == ("stopped", 0)
        pin(world.broker, world.keys, 1, ALL, CAUSE)
        world.publish(2, weights(3))
        eventually(
            lambda: (said := world.heartbeat(agent.agent_id)) and said.control == "stopped", 5
        )
        assert agent.version == 0
        unpin(world.broker, world.keys, "", CAUSE)
        assert resume(world.broker, world.keys, "", CAUSE) == (rule,)
        acts_by(agent, 2)
        assert choice(agent) == 3


def test_a_stopped_agent_without_fallback_acts_by_chance(world):
    """And so does a child that it forks; both act by the model again afterwards."""
    with world.agent(seed=1) as agent:
        eventually(world.registered)
        world.publish(1, weights(2))
        acts_by(agent, 1)
        stop(world.broker, world.keys, ALL, CAUSE)
        acts_by(agent, 0)
        drawn = {agent.evaluate(OBS, deterministic=False).action for _ in range(100)}
        assert drawn == {0, 1, 2, 3}
        reader, writer = os.pipe()
        if os.fork() == 0:
            code = 1
            try:
                agent.evaluate(OBS)
                os.write(writer, b"." if agent.version == 0 else b"x")
                acts_by(agent, 1)
                code = 0 if agent.evaluate(OBS).action == 2 else 2
                agent.close()
            finally:
                os._exit(code)
        assert os.read(reader, 1) == b"."
        resume(world.broker, world.keys, "", CAUSE)
        acts_by(agent, 1)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        os.close(reader)
        os.close(writer)


def test_agents_act_by_the_promoted_version_and_canaries_by_the_newest(world):
    """Until nothing is promoted any more."""
    with world.agent() as agent, world.agent() as canary:
        eventually(world.registered)
        for version in (1, 2):
            world.publish(version, weights(version))
        acts_by(agent, 2)
        promote(world.broker, world.keys, 1, CAUSE)
        pin(world.broker, world.keys, None, Selection(canary.agent_id), CAUSE)
        acts_by(agent, 1)
        acts_by(canary, 2)
        world.publish(3, weights(3))
        acts_by(canary, 3)
        assert (agent.version, agent.status().control) == (1, "promoted")
        demoted = demote(world.broker, world.keys, CAUSE)
        assert demoted is not None
        assert demoted.version == 1
        acts_by(agent, 3)
        assert demote(world.broker, world.keys, CAUSE) is None


def test_a_stop_reaches_an_agent_that_seldom_looks_by_its_notice(world):
    """What is asked for in an emergency must not wait for the next look, here 10 minutes away."""
    with world.agent(poll_interval_s=600.0) as agent:
        eventually(world.registered)
        world.publish(1, weights(2))
        acts_by(agent, 1)
        stop(world.broker, world.keys, ALL, CAUSE)
        acts_by(agent, 0)
        resume(world.broker, world.keys, "", CAUSE)
        acts_by(agent, 1)


def test_a_notice_that_is_lost_is_made_up_for_by_the_next_look(world):
    """Agents read the control whenever they look for a model."""
    with world.agent() as agent:
        eventually(world.registered)
        world.publish(1, weights(2))
        acts_by(agent, 1)
        stop(world.broker, world.keys, ALL, CAUSE)
        acts_by(agent, 0)
        world.broker.unlink(world.keys.control)
        acts_by(agent, 1)


def test_a_control_that_does_not_decode_changes_nothing(world):
    """The agent goes on as it was told last, and says what is wrong."""
    with world.agent() as agent:
        eventually(world.registered)
        for version in (1, 2):
            world.publish(version, weights(version))
        rule = pin(world.broker, world.keys, 1, ALL, CAUSE)
        eventually(lambda: agent.status().rule == rule.rule_id)  # not only on its way to 2
        acts_by(agent, 1)
        world.broker.hash_set(world.keys.control, {"rules": b"[{"})
        eventually(lambda: "the control's rules" in agent.status().last_error, 5)
        assert agent.version == 1


def test_a_pin_to_a_version_that_is_gone_leaves_the_agent_as_it_is(world):
    """The model that acts goes on; the status says why."""
    with world.agent() as agent:
        eventually(world.registered)
        for version in (1, 2):
            world.publish(version, weights(version))
        acts_by(agent, 2)
        world.broker.unlink(world.keys.model(1, "1:worker"))
        pin(world.broker, world.keys, 1, ALL, CAUSE)
        eventually(lambda: agent.status().models_refused == 1, 5)
        assert agent.version == 2
        assert "model:1:1:worker" in agent.status().last_error


def test_a_version_that_does_not_exist_is_refused_by_name(world):
    """With those that there are; and so is a rule."""
    world.publish(1, weights(1))
    world.publish(2, weights(2))
    for steer in (pin, lambda b, k, v, a, c: promote(b, k, v, c)):
        with pytest.raises(UnknownVersionError, match="no version 7; retained versions: 1…2"):
            steer(world.broker, world.keys, 7, ALL, CAUSE)
    rule = pin(world.broker, world.keys, 1, ALL, CAUSE)
    with pytest.raises(UsageError, match=f"no pin 'nope'; there are: {rule.rule_id}"):
        unpin(world.broker, world.keys, "nope", CAUSE)


def test_every_change_is_in_the_log_with_who_when_and_why(world):
    """One entry for each, in their order."""
    world.publish(1, weights(1))
    pin(world.broker, world.keys, 1, Selection("a*", 20.0), CAUSE)
    unpin(world.broker, world.keys, "", CAUSE)
    stop(world.broker, world.keys, ALL, CAUSE)
    resume(world.broker, world.keys, "", CAUSE)
    promote(world.broker, world.keys, 1, CAUSE)
    demote(world.broker, world.keys, CAUSE)
    log = read_control_log(world.broker, world.keys)
    assert [one.what for one in log] == ["pin", "unpin", "stop", "resume", "promote", "demote"]
    assert {(one.by, one.reason, one.time_ms) for one in log} == {
        (CAUSE.by, CAUSE.reason, CAUSE.time_ms)
    }
    assert log[0].agents == Selection("a*", 20.0)
    assert [one.version for one in log] == [1, 0, 0, 0, 1, 1]


def test_a_pin_survives_the_restart_of_broker_and_agent():
    """It is on the broker's disk like everything else."""
    client = f"test_{secrets.token_hex(6)}"
    with RedisServer() as server:
        world = World(server.url, client)
        with world.agent() as agent:
            eventually(world.registered)
            for version in (1, 2):
                world.publish(version, weights(version))
            rule = pin(world.broker, world.keys, 1, Selection("*"), CAUSE)
            eventually(lambda: agent.status().rule == rule.rule_id)  # not only on its way to 2
            acts_by(agent, 1)
            server.kill()
            server.start()
            with world.agent() as other:
                assert other.wait_for_model(20)
                assert (other.version, other.status().rule) == (1, rule.rule_id)
                assert agent.version == 1
            log = read_control_log(world.broker, world.keys)
            assert [(one.what, one.reason) for one in log] == [("pin", CAUSE.reason)]
        world.close()
