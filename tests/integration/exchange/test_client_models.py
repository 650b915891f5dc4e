"""`ClientModels`: what programs do with versions, without the command line."""

from pathlib import Path

import pytest

from rl4sys_stream.broker.control import read_control
from rl4sys_stream.broker.control_log import read_control_log
from rl4sys_stream.broker.registry import register
from rl4sys_stream.errors import (
    ConfigError,
    UnknownClientError,
    UnknownVersionError,
    UsageError,
    WireFormatError,
)
from rl4sys_stream.exchange import ClientModels
from rl4sys_stream.exchange.npz import read_npz
from rl4sys_stream.testing import eventually
from tests.integration.agent.world import OBS, SPEC, World, weights

pytestmark = pytest.mark.integration


def test_a_twins_version_is_served_under_another_name_and_pinned(
    redis_url: str, client_name: str, tmp_path: Path
) -> None:
    """Export, import, pin; what comes later does not reach the agents until they are released."""
    twin, live = World(redis_url, f"{client_name}_twin"), World(redis_url, client_name)
    register(twin.broker, twin.keys, SPEC, {}, wall_ms=1)
    twin.publish(1, weights(3))
    twin.publish(2, weights(2))
    files = [tmp_path / "one.npz", tmp_path / "two.npz"]
    with ClientModels(twin.client, redis_url) as models:
        models.export(1, files[0])
        models.export(2, files[1])
    assert read_npz(files[0]).origin.version == 1
    with live.agent() as agent, ClientModels(client_name, redis_url) as models:
        eventually(live.registered)
        assert models.import_file(files[0], pinned=True, reason="the best") == 1
        assert agent.wait_for_model(10)
        assert models.import_file(files[1]) == 2
        assert agent.evaluate(OBS).action == 3
        models.unpin(reason="enough")
        eventually(lambda: agent.version == 2, 10, "the second import acts")
        models.pin(1)
        eventually(lambda: agent.version == 1, 10, "the pin holds the agent")
    assert [rule.version for rule in read_control(live.broker, live.keys).rules] == [1]
    log = read_control_log(live.broker, live.keys)
    assert {(one.what, one.reason) for one in log} >= {("pin", "the best"), ("unpin", "enough")}
    assert all("@" in one.by for one in log)
    twin.close()
    live.close()


def test_what_is_not_there_is_named(redis_url: str, client_name: str, tmp_path: Path) -> None:
    """A client, a version, a folder; each with the error that the command line has an exit for."""
    world = World(redis_url, client_name)
    with ClientModels(client_name, redis_url) as models:
        with pytest.raises(UnknownClientError, match=client_name):
            models.pin(1)
        register(world.broker, world.keys, SPEC, {}, wall_ms=1)
        world.publish(1, weights(3))
        with pytest.raises(UnknownVersionError, match="7"):
            models.export(7, tmp_path / "seven.npz")
        with pytest.raises(UsageError, match="cannot be written"):
            models.export(1, tmp_path / "nowhere" / "one.npz")
        with pytest.raises(WireFormatError, match=r"\.npz or \.safetensors"):
            models.import_file(tmp_path / "one.onnx")
    world.close()


def test_a_name_that_no_client_may_have_is_refused(redis_url: str) -> None:
    """Before it becomes part of a key."""
    with pytest.raises(ConfigError, match="client_id"):
        ClientModels("two words", redis_url)
