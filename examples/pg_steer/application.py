"""The application: it answers queries, and asks an agent how PostgreSQL should plan each.

    python -m examples.pg_steer.application --postgres-url URL < queries.sql

One query is one episode of one step: look at it, choose a hint, run it, tell what it cost.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from examples.pg_steer.database import Cost, Database, Outcome, QueryError
from examples.pg_steer.features import observe
from examples.pg_steer.hints import DEFAULT, HINTS
from rl4sys_stream import StreamAgent

__all__ = ["Answer", "Steering", "make_agent", "reward"]

DEFINITION: Final = Path(__file__).parents[2] / "workers" / "pg_steer.json"
FLOOR: Final = 0.05
"""Added to each cost before the logarithm: twice as fast counts nothing below this."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query got.

    Attributes:
        outcome: Its rows and cost.
        hint: Number of the hint that it ran under.
        version: Model version that chose it; 0: nobody did, and PostgreSQL planned by itself.
        agent_ms: What the agent added: observation, decision, hint and record.
        explain_ms: What asking the planner added.
    """

    outcome: Outcome
    hint: int
    version: int
    agent_ms: float
    explain_ms: float


def make_agent(
    definition: Path = DEFINITION, *, redis_url: str | None = None, seed: int | None = None
) -> StreamAgent:
    """An agent that leaves PostgreSQL alone until it has a model.

    Args:
        definition: Of the client, in workers/.
        redis_url: Of the broker; None takes the environment's.
        seed: Of its exploration.
    """
    return StreamAgent(
        definition, redis_url=redis_url, seed=seed, fallback=lambda _obs, _mask: DEFAULT
    )


def reward(cost: float) -> float:
    """-log10 of what a query cost: ten times faster is worth 1, whether that is 1 s or 10 ms.

    Never clipped: what is slow beyond measure is what must be learned.
    """
    return -math.log10(cost + FLOOR)


class Steering:
    """Answers queries, each by the plan that the agent chooses.

    Args:
        database: Who answers.
        agent: Who chooses.
        clock_s: Of the agent's share of the time.
    """

    def __init__(
        self,
        database: Database,
        agent: StreamAgent,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._database = database
        self._agent = agent
        self._clock_s = clock_s

    def answer(self, sql: str) -> Answer:
        """Run one statement.

        Raises:
            QueryError: If PostgreSQL refuses it.
            DatabaseError: If PostgreSQL is gone.
        """
        explained = self._database.explain(sql)
        began_s = self._clock_s()
        observation = observe(explained, self._database.relations)
        traj, action = self._agent.request_for_action(None, observation)
        self._agent.add_to_trajectory(traj, action)
        hint = HINTS[int(action)]
        chosen_s = self._clock_s()
        outcome = self._database.run(sql, hint)
        answered_s = self._clock_s()
        action.update_reward(reward(outcome.cost))
        self._agent.mark_end_of_trajectory(traj, action)
        agent_s = chosen_s - began_s + self._clock_s() - answered_s
        return Answer(outcome, int(action), action.version, agent_s * 1000.0, explained.took_ms)


@click.command()
@click.option("--postgres-url", required=True, help="postgresql://user@host/database")
@click.option("--redis-url", help="A broker with a dispatcher beside it (`rl4sys-stream up`).")
@click.option(
    "--cost",
    type=click.Choice([cost.value for cost in Cost]),
    default=Cost.TIME.value,
    show_default=True,
)
def main(postgres_url: str, redis_url: str | None, cost: str) -> None:
    """Answer the SQL on standard input, one statement a line, and learn from each."""
    with (
        make_agent(redis_url=redis_url) as agent,
        Database(postgres_url, cost=Cost(cost)) as database,
    ):
        steering = Steering(database, agent)
        for line in sys.stdin:
            if not (sql := line.strip().rstrip(";")):
                continue
            try:
                answer = steering.answer(sql)
            except QueryError as error:
                click.echo(f"error: {error}", err=True)
                continue
            for row in answer.outcome.rows:
                click.echo("\t".join(map(str, row)))
            click.echo(
                f"-- {answer.outcome.error or f'{answer.outcome.cost:.1f}'} "
                f"hint={HINTS[answer.hint].name} version={answer.version}",
                err=True,
            )


if __name__ == "__main__":
    main()
