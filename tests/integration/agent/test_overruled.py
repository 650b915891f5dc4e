"""Parameters that an agent states and that others have fixed before: never silently ignored."""

from rl4sys_stream import StreamAgent
from rl4sys_stream.broker.registry import make_definition, record_definition
from rl4sys_stream.config import PPOParameters, WorkerSettings
from rl4sys_stream.testing import eventually
from tests.integration.agent.world import ACTION_SPACE, OBSERVATION_SPACE, weights


def make_agent(url: str, client: str, **parameters: object) -> StreamAgent:
    """An agent that states `parameters`."""
    return StreamAgent(
        client_id=client,
        redis_url=url,
        observation_space=OBSERVATION_SPACE,
        action_space=ACTION_SPACE,
        overrides={f"algorithm_parameters.{name}": value for name, value in parameters.items()},
    )


def test_a_later_agents_other_parameters_are_named_in_log_and_status(
    redis_url, client_name, caplog
):
    """The first registration holds; the second agent is told which of its settings do not."""
    with make_agent(redis_url, client_name, learning_rate=0.001) as first:
        eventually(lambda: first.status().broker == "up", 10, "the first is registered")
        with make_agent(redis_url, client_name, learning_rate=0.002, gamma=0.99) as second:
            eventually(lambda: second.status().overruled, 10, "the second is told")
            assert second.status().overruled == ("algorithm_parameters.learning_rate",)
        assert first.status().overruled == ()
    assert "agent.parameters.overruled" in caplog.text


def test_a_worker_that_comes_after_the_first_agent_overrules_it(world, caplog):
    """Its definition is recorded before its first model, and a later worker's before its own."""

    def worker(token: str, learning_rate: float) -> None:
        parameters = PPOParameters(learning_rate=learning_rate)
        definition = make_definition(parameters, WorkerSettings())
        record_definition(world.broker, world.keys, definition, wall_ms=1)
        world.publish(1, weights(), token=token)

    with make_agent(world.url, world.client, learning_rate=0.001) as agent:
        eventually(lambda: agent.status().broker == "up", 10, "it is registered")
        assert agent.status().overruled == ()
        worker("1:worker", learning_rate=0.002)
        eventually(lambda: agent.status().overruled, 10, "it is told")
        assert agent.status().overruled == ("algorithm_parameters.learning_rate",)
        worker("2:worker", learning_rate=0.001)
        eventually(lambda: not agent.status().overruled, 10, "the next worker agrees with it")
    assert caplog.text.count("agent.parameters.overruled") == 1
