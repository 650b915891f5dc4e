"""A model that was trained under one client id acts under another."""

from dataclasses import replace

import numpy as np
import pytest

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.control_log import read_control_log
from rl4sys_stream.broker.head import Head, read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.lease import Lease, read_lease
from rl4sys_stream.broker.registry import read_registration, register
from rl4sys_stream.broker.steering import Cause
from rl4sys_stream.config import ClientSpec
from rl4sys_stream.errors import (
    ConfigError,
    NonFiniteError,
    SpecMismatchError,
    UnknownClientError,
    UnknownVersionError,
    UsageError,
)
from rl4sys_stream.exchange.importing import import_model
from rl4sys_stream.exchange.npz import decode_npz, encode_npz
from rl4sys_stream.exchange.package import ModelPackage, read_package
from rl4sys_stream.model_store.subscriber import ModelSubscriber
from rl4sys_stream.spaces import Box, Discrete
from rl4sys_stream.testing import eventually
from rl4sys_stream.wire.snapshot import Weights
from tests.integration.agent.world import OBS, SPEC, World, weights
from tests.unit.exchange.packages import package

pytestmark = pytest.mark.integration

CAUSE = Cause("alice@ops", 1_700_000_000_000, "from the twin")


def take(broker: Broker, keys: ClientKeys, model: ModelPackage, *, force: bool = False) -> Head:
    """Import `model`, without waiting for anything."""
    return import_model(broker, keys, model, CAUSE, force=force, pause=lambda: None)


def test_a_model_trained_under_one_client_acts_under_another(redis_url, client_name):
    """Through a file; the other client has no worker, and its lease is free afterwards."""
    twin, live = World(redis_url, f"{client_name}_twin"), World(redis_url, client_name)
    register(twin.broker, twin.keys, SPEC, {}, wall_ms=1)
    twin.publish(1, weights(3))
    twin.publish(2, weights(2))
    model = decode_npz(encode_npz(read_package(twin.broker, twin.keys, 1)))
    with live.agent() as agent:
        eventually(live.registered)
        head = take(live.broker, live.keys, model)
        assert (head.version, head.checkpoint) == (1, "")
        assert agent.wait_for_model(10)
        assert agent.evaluate(OBS).action == 3
        take(live.broker, live.keys, read_package(twin.broker, twin.keys, 2))
        eventually(lambda: agent.version == 2, 10, "the second import acts")
        assert agent.evaluate(OBS).action == 2
    assert read_lease(live.broker, live.keys).holder == ""
    log = read_control_log(live.broker, live.keys)
    assert [(one.what, one.version, one.reason) for one in log] == [
        ("import", 1, CAUSE.reason),
        ("import", 2, CAUSE.reason),
    ]
    assert log[0].detail == f"version 1 of {twin.client} (1:worker)"
    twin.close()
    live.close()


def test_a_client_that_nobody_registered_is_registered_with_the_models_spec(broker, client_name):
    """And with the definition that it was trained with."""
    keys, model = ClientKeys(client_name), package()
    take(broker, keys, model)
    registration = read_registration(broker, keys)
    assert registration is not None
    assert (registration.spec, registration.definition) == (model.spec, model.definition)
    found = ModelSubscriber(broker, keys).read(1)
    assert found.weights.flat.tobytes() == model.weights.flat.tobytes()
    assert found.extras.to_bytes() == model.extras.to_bytes()


def test_a_client_is_not_registered_with_a_definition_that_no_worker_could_go_by(
    broker, client_name
):
    """It would stay, and each worker would end with it; a client that is registered has its own."""
    keys = ClientKeys(client_name)
    strange = replace(package(), definition={"algorithm_parameters": {"gamma": "much"}})
    with pytest.raises(ConfigError, match="gamma"):
        take(broker, keys, strange)
    assert read_registration(broker, keys) is None
    register(broker, keys, strange.spec, {}, wall_ms=1)
    assert take(broker, keys, strange).version == 1


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        (
            ClientSpec(observation_space=Box((5,)), action_space=Discrete(4)),
            "action_space.n, network_architecture.hidden_sizes",
        ),
        (
            ClientSpec(algorithm="DQN", observation_space=Box((6,)), action_space=Discrete(3)),
            "algorithm, .*observation_space.shape",
        ),
    ],
)
def test_a_model_for_something_else_is_refused_by_the_names_of_the_fields(
    broker, client_name, spec, fields
):
    """Nothing was published; the lease was not touched."""
    keys = ClientKeys(client_name)
    register(broker, keys, spec, {}, wall_ms=1)
    with pytest.raises(SpecMismatchError, match=f"different {fields}"):
        take(broker, keys, package())
    assert read_head(broker, keys) is None
    assert read_lease(broker, keys).fence == ""


def test_weights_that_are_not_finite_are_refused(broker, client_name):
    """Before the client is registered."""
    model = package()
    flat = model.weights.flat.copy()
    flat[3] = np.nan
    broken = package()
    object.__setattr__(broken, "weights", Weights(model.weights.layout, flat))
    with pytest.raises(NonFiniteError):
        take(broker, ClientKeys(client_name), broken)
    assert read_registration(broker, ClientKeys(client_name)) is None


def test_a_client_with_a_worker_is_taken_over_only_by_force(broker, client_name):
    """The worker's next commit is refused: it begins again, from the import."""
    keys = ClientKeys(client_name)
    worker = Lease(broker, keys, ttl_s=30)
    assert worker.acquire()
    with pytest.raises(UsageError, match="give --force"):
        take(broker, keys, package())
    head = take(broker, keys, package(), force=True)
    assert head.token != worker.token
    assert not worker.renew()


def test_what_is_not_there_cannot_be_exported(broker, client_name):
    """Neither a client nor a version; what there is, is named."""
    keys = ClientKeys(client_name)
    with pytest.raises(UnknownClientError):
        read_package(broker, keys, 1)
    take(broker, keys, package())
    with pytest.raises(UnknownVersionError, match="retained versions: 1"):
        read_package(broker, keys, 2)
