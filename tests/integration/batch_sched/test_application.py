"""The application with its agent: what is asked, what is recorded, and what it brings."""

import json
import math
from pathlib import Path

import pytest

from examples.batch_sched import application
from examples.batch_sched.application import Scheduler, make_agent, reward
from examples.batch_sched.cluster import Cluster, Snapshot
from examples.batch_sched.windows import Window
from tests.unit.batch_sched.traces import trace_of

pytestmark = pytest.mark.integration

AGENT_LINES = 40
QUEUE = Window(Snapshot(), 4, sjf=2.0)
"""One job runs, two wait and compete, one comes when all is quiet."""
TRACE = trace_of((0, 20, 20, 2), (1, 30, 30, 1), (2, 30, 30, 2), (500, 9, 9, 1))


@pytest.fixture
def agent(redis_url, client_name, tmp_path):
    """An agent of a client that nobody else has, beside a broker without a worker."""
    definition = json.loads(application.DEFINITION.read_text())
    path = tmp_path / "definition.json"
    path.write_text(json.dumps({**definition, "client_id": client_name}))
    with make_agent(path, redis_url=redis_url, seed=1) as made:
        yield made


@pytest.mark.parametrize("prior", [False, True])
def test_only_real_choices_are_asked_for_and_the_last_one_brings_it_all(agent, prior):
    """Of four jobs none had to be chosen from several but one."""
    scheduler = Scheduler(Cluster(TRACE, 2), agent, prior=prior)
    cluster = scheduler._cluster
    cluster.restore(QUEUE.start, QUEUE.end)
    cluster.start(0)
    assert cluster.queue == [1]  # of one that waits there is no choice: it gets its reservation
    scheduler.learn(QUEUE)
    status = agent.status()
    assert (status.decisions, status.steps, status.sealing, status.open) == (0, 0, 0, 0)

    crowd = Window(Snapshot(queue=(1, 2), next_job=3, running=((0, 0.0),), time_s=3.0), 4, sjf=2.0)
    reached = scheduler.learn(crowd)
    assert reached > 1.0
    status = agent.status()
    assert (status.decisions, status.steps, status.accepted) == (1, 1, 1)
    assert (status.sealing, status.open) == (0, 0)


def test_judging_leaves_no_trace(agent):
    """The same choices, and nothing to learn from them."""
    crowd = Window(Snapshot(queue=(1, 2), next_job=3, running=((0, 0.0),), time_s=3.0), 4, sjf=2.0)
    assert Scheduler(Cluster(TRACE, 2), agent, prior=True).judge(crowd) > 1.0
    assert (agent.status().decisions, agent.status().accepted) == (1, 0)


def test_a_reward_is_the_logarithm_of_how_much_better_it_went_within_two():
    """Twice as good is worth as much as twice as bad costs."""
    assert reward(QUEUE, 1.0) == pytest.approx(math.log(2))
    assert reward(QUEUE, 4.0) == pytest.approx(-math.log(2))
    assert reward(QUEUE, 1e6) == -2.0


def test_what_concerns_the_agent_is_short():
    """`make_agent` and `learn`, at most 40 lines with their documentation."""
    text = Path(application.__file__).read_text()
    maker = text.partition("def make_agent(")[2].partition("\n\n\n")[0].splitlines()
    learn = text.partition("def learn(")[2].partition("\n\n")[0].splitlines()
    assert 20 < len(maker) + len(learn) <= AGENT_LINES
