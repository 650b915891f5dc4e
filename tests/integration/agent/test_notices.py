"""Diffs that ride in notices: an agent acts by them without a read, or falls back to reading."""

from dataclasses import replace
from functools import partial

import msgspec
import pytest

from rl4sys_stream import StreamAgent
from rl4sys_stream.broker.control import Selection
from rl4sys_stream.broker.head import head_fields, read_head
from rl4sys_stream.broker.steering import Cause, pin
from rl4sys_stream.model_store.notice import MAX_PASSENGER_BYTES, Notice, read_notice
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.testing import eventually
from rl4sys_stream.wire.compact import encode_compact_diff
from rl4sys_stream.wire.grid import GridWeights, round_to_grid
from rl4sys_stream.wire.snapshot import Weights
from tests.integration.agent.world import OBS, World, weights

pytestmark = pytest.mark.integration

EXTRAS = BehaviorExtras().to_bytes()
SLOW = 60.0
"""Polling that no test waits for."""


def preferring(action: int) -> GridWeights:
    """An actor on a grid that prefers `action`; one differs from another in a few weights."""
    flat = weights(0).flat.copy()
    flat[-4:] = 0.0
    flat[-4 + action] = 20.0
    return round_to_grid(Weights(weights(0).layout, flat), [-8] * 6)


def notice_of(base: int, version: int, *, token: str = "1:worker", digest: str = "") -> Notice:
    """From version `base` to `version`, whose number says what it prefers."""
    before, after = preferring(base % 4), preferring(version % 4)
    diff = encode_compact_diff(before, after)
    assert diff is not None
    return Notice(
        version=version,
        token=token,
        lineage="first",
        base_version=base,
        base_token="1:worker",
        digest=digest or after.weights.digest(EXTRAS),
        extras=EXTRAS,
        diff=diff,
    )


def tell(world: World, notice: Notice) -> None:
    """Nothing but the notice: the head does not know of this version."""
    world.broker.call("PUBLISH", world.keys.updates, notice.to_bytes())


def damage_diff(world: World, version: int) -> None:
    """Let the manifest name a diff that is none."""
    head = read_head(world.broker, world.keys)
    assert head is not None
    *others, last = head.manifest
    damaged = replace(head, manifest=(*others, msgspec.structs.replace(last, diff_bytes=1)))
    world.broker.hash_set(world.keys.model(version, "1:worker"), {"diff": b"?"})
    world.broker.hash_set(world.keys.head, head_fields(damaged))


def acts(agent: StreamAgent, version: int) -> bool:
    """Whether that version acts."""
    return agent.version == version


def settled(agent: StreamAgent) -> bool:
    """Whether it has read the control since the last notice that it had to look for."""
    return not agent._runtime._refresher._follower.must_look


def acting(world: World, agent: StreamAgent) -> None:
    """Wait until `agent` acts by version 1, which the head knows."""
    eventually(lambda: agent.status().broker == "up")
    eventually(world.registered)
    world.publish(1, preferring(1).weights)
    eventually(lambda: agent.version == 1 and settled(agent))


def test_an_agent_acts_by_a_diff_that_rode_in_the_notice(world: World):
    """Version after version, without a read: the head has never heard of them."""
    with world.agent(poll_interval_s=SLOW) as agent:
        acting(world, agent)
        for version in range(2, 7):
            tell(world, notice_of(version - 1, version))
            eventually(partial(acts, agent, version))
            _, action = agent.request_for_action(None, OBS)
            assert (int(action), action.token) == (version % 4, "1:worker")
        assert agent.status().last_error == ""


@pytest.mark.parametrize(
    ("wrong", "refused"),
    [
        (notice_of(2, 3), 0),
        (notice_of(1, 2, token="2:other"), 0),
        (notice_of(1, 2, digest="0" * 32), 1),
        (msgspec.structs.replace(notice_of(1, 2), diff=b"RL4D\1\2nothing"), 1),
        (msgspec.structs.replace(notice_of(1, 2), lineage="second"), 0),
        (msgspec.structs.replace(notice_of(1, 2), extras=b"{}"), 1),
    ],
    ids=["another base", "another worker", "digest", "damaged", "another lineage", "extras"],
)
def test_a_notice_that_does_not_fit_makes_the_agent_look_at_the_head(
    world: World, wrong: Notice, refused: int
):
    """It keeps acting by what it has, finds there what is true, and counts what was damaged."""
    with world.agent(poll_interval_s=SLOW) as agent:
        acting(world, agent)
        world.publish(2, preferring(3).weights, notice=False)
        tell(world, wrong)
        eventually(lambda: agent.version == 2)
        _, action = agent.request_for_action(None, OBS)
        assert int(action) == 3
        assert (agent.status().frames_refused, agent.status().models_refused) == (refused, 0)
    told = world.heartbeat(agent.agent_id)
    assert told is not None
    assert told.frames_refused == refused


def test_a_damaged_diff_is_counted_where_the_keyframe_takes_its_place(world: World):
    """The agent acts by the right version, and somebody learns that the broker's bytes are not."""
    with world.agent() as agent:
        acting(world, agent)
        world.publish(2, preferring(2).weights)
        eventually(lambda: agent.version == 2)
        world.publish_damaged(3, preferring(2).weights, preferring(3).weights)
        eventually(lambda: agent.version == 3)
        assert (agent.status().frames_refused, agent.status().models_refused) == (1, 0)


def test_an_agent_counts_a_diff_that_led_nowhere_and_acts_by_the_keyframe(world: World):
    """It is as good as ever; whoever looks at it learns that something is damaged."""
    with world.agent(poll_interval_s=SLOW) as agent:
        eventually(world.registered)
        world.publish(1, weights(1))
        eventually(partial(acts, agent, 1), 10, "version 1")
        world.publish(2, weights(2), notice=False)
        damage_diff(world, 2)
        world.broker.call("PUBLISH", world.keys.updates, b"{}")
        eventually(partial(acts, agent, 2), 10, "version 2")
        assert agent.status().frames_refused == 1


def test_a_notice_does_not_move_an_agent_that_is_held(world: World):
    """Whoever is pinned stays at the version that the pin names."""
    with world.agent(poll_interval_s=SLOW) as agent:
        acting(world, agent)
        pin(world.broker, world.keys, 1, Selection(), Cause("alice@ops", 1, "wait"))
        eventually(lambda: agent.status().control == "pinned")
        tell(world, notice_of(1, 2))
        world.publish(3, preferring(3).weights)
        eventually(
            lambda: (beat := world.heartbeat(agent.agent_id)) is not None and beat.version == 1
        )
        assert agent.version == 1


def test_agents_of_one_process_share_weights_and_policy(world: World):
    """A hundred of them need the memory of one model, and decode it once."""
    with world.agent(poll_interval_s=SLOW) as first, world.agent(poll_interval_s=SLOW) as second:
        eventually(lambda: second.status().broker == "up")
        acting(world, first)
        eventually(lambda: second.version == 1 and settled(second))
        assert first._slot.policy is second._slot.policy
        tell(world, notice_of(1, 2))
        eventually(lambda: first.version == second.version == 2)
        assert first._slot.policy is second._slot.policy
        models = [agent._slot.model for agent in (first, second)]
        assert len({id(model.weights) for model in models if model}) == 1


def test_a_large_diff_stays_at_home():
    """Then the notice says what it always said."""
    small, large = notice_of(1, 2), Notice(version=2, token="1:a", lineage="l")
    large = msgspec.structs.replace(large, diff=bytes(MAX_PASSENGER_BYTES), extras=b"{}")
    assert read_notice(small.to_bytes()) == small
    found = read_notice(large.to_bytes())
    assert (found.version, found.token, found.lineage, found.diff) == (2, "1:a", "l", b"")
    assert found.digest == ""
