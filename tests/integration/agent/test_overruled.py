"""Parameters that an agent states and that others have fixed before: never silently ignored."""

from rl4sys_stream import Box, Discrete, StreamAgent
from rl4sys_stream.testing import eventually


def make_agent(url: str, client: str, **parameters: object) -> StreamAgent:
    """An agent that states `parameters`."""
    return StreamAgent(
        client_id=client,
        redis_url=url,
        observation_space=Box((2,)),
        action_space=Discrete(2),
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
