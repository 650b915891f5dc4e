"""SECURITY.md: the user that it tells operators to make can do what an agent does, and no more."""

import re
from pathlib import Path

import msgspec
import pytest

from rl4sys_stream import StreamAgent
from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.ledger import LedgerRecord
from rl4sys_stream.errors import BrokerAuthError
from rl4sys_stream.testing import RedisServer, eventually
from tests.integration.agent.world import (
    ACTION_SPACE,
    OBSERVATION_SPACE,
    QUICK,
    World,
    play,
    weights,
)

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).resolve().parents[2] / "SECURITY.md").read_text(encoding="utf-8")
SECRET = "s3cr3t"


def rule_of(page: str) -> list[str]:
    """The ACL command of the page, in words."""
    found = re.search(r"^  ```\n(  ACL SETUSER .*?)^  ```", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found.group(1).replace("PASSWORD", SECRET).split()


def test_the_user_of_the_page_is_enough_for_an_agent_and_for_nothing_else() -> None:
    """It registers, sends, reports, hears of models and reads them; the rest is refused."""
    with RedisServer() as server:
        world = World(server.url, "my_queue")
        world.broker.call(*rule_of(PAGE))
        url = f"redis://my_queue@127.0.0.1:{server.port}"
        environ = {"RL4SYS_STREAM_REDIS_PASSWORD": SECRET}
        with StreamAgent(
            client_id="my_queue",
            redis_url=url,
            observation_space=OBSERVATION_SPACE,
            action_space=ACTION_SPACE,
            overrides=QUICK,
            environ=environ,
        ) as agent:
            eventually(world.registered, 10, "registered")
            world.publish(1, weights())
            eventually(lambda: agent.version == 1, 10, "a model taken over")
            play(agent, 2)
            eventually(lambda: len(world.sent()) == 2, 10, "both sent")
            known = agent.settlement()
            ledger = msgspec.json.encode(LedgerRecord(watermark=2, trained=2, steps=6))
            world.broker.hash_set(world.keys.seq, {agent.agent_id: ledger})
            world.broker.hash_set(world.keys.head, {"commit": "of a worker"})
            world.publish(2, weights())
            assert agent.wait_for_settlement(known, 10)
            assert agent.settlement().unsettled_steps == 0
            said = eventually(lambda: world.heartbeat(agent.agent_id), 10, "a report")
            assert said is not None
            assert agent.status().last_error == ""
        with Broker(BrokerAddress.from_url(url, environ), name="t") as user:
            for command in (
                ("DEL", world.keys.traj),
                ("EVAL", "return 1", 0),
                ("CONFIG", "GET", "requirepass"),
                ("HGETALL", world.keys.checkpoint(1, "1:worker")),
                ("HSET", world.keys.head, "version", 2),
                ("HSET", world.keys.seq, agent.agent_id, "{}"),
                ("HSET", world.keys.control, "rules", "[]"),
                ("XLEN", "rl4sys:{other}:traj"),
            ):
                with pytest.raises(BrokerAuthError, match="its ACL must let that user do it"):
                    user.call(*command)
        world.close()
