"""The application with its agent: whatever becomes of a query, what is recorded is whole."""

import json
from pathlib import Path

import pytest

from examples.pg_steer import application
from examples.pg_steer.application import Steering, make_agent
from examples.pg_steer.data import SCHEMA
from examples.pg_steer.database import Database, QueryError
from examples.pg_steer.hints import DEFAULT

pytestmark = pytest.mark.integration

ENDLESS = "SELECT count(*) FROM generate_series(1, 1000000000)"
AGENT_LINES = 40


@pytest.fixture
def agent(redis_url, client_name, tmp_path):
    """An agent of a client that nobody else has, beside a broker without a worker."""
    definition = json.loads(application.DEFINITION.read_text())
    path = tmp_path / "definition.json"
    path.write_text(json.dumps({**definition, "client_id": client_name}))
    with make_agent(path, redis_url=redis_url, seed=1) as made:
        yield made


@pytest.fixture
def steering(agent, postgres_url):
    """The application."""
    with Database(postgres_url, schema=SCHEMA, timeout_s=0.3) as database:
        yield Steering(database, agent)


def test_without_a_model_postgresql_plans_by_itself(agent, steering):
    """And every query is an episode, accepted with its reward."""
    for _ in range(3):
        answer = steering.answer("SELECT count(*) FROM airlines")
        assert (answer.hint, answer.version) == (DEFAULT, 0)
        assert answer.outcome.rows == ((16,),)
    status = agent.status()
    assert (status.accepted, status.steps, status.sealing, status.open) == (3, 3, 0, 0)


def test_a_query_out_of_time_has_a_reward_and_the_next_one_an_answer(agent, steering):
    """What is slow is what must be learned."""
    answer = steering.answer(ENDLESS)
    assert answer.outcome.cost == 300.0
    assert steering.answer("SELECT 1").outcome.rows == ((1,),)
    assert (agent.status().accepted, agent.status().sealing) == (2, 0)


def test_a_query_that_postgresql_refuses_leaves_no_trace(agent, steering):
    """Nothing was decided."""
    with pytest.raises(QueryError):
        steering.answer("SELECT * FROM no_such_table")
    assert (agent.status().decisions, agent.status().open) == (0, 0)


def test_what_concerns_the_agent_is_short():
    """The page says fewer than 40 lines: `make_agent` and the body of `answer`."""
    text = Path(application.__file__).read_text()
    maker = text.partition("def make_agent(")[2].partition("\n\n\n")[0].splitlines()
    answer = text.partition("        explained = ")[2].partition("\n\n\n")[0].splitlines()
    assert 10 < len(maker) + len(answer) < AGENT_LINES
