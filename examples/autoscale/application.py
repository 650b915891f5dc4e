"""The application: a pool of replicas whose number an agent decides.

    python -m examples.autoscale.application --client-id autoscale_live

Runs the live pool beside `rl4sys-stream up`, and learns from it, or with --serve only acts. What
concerns the agent stands in `make_agent`, `Episode` and `greedy`.
"""

from pathlib import Path
from typing import Final

import click

from examples.autoscale.control import (
    ACTION_SPACE,
    OBSERVATION_SPACE,
    Controller,
    ControlLoop,
    Outcome,
    View,
)
from examples.autoscale.demand import Span, flight_demand
from examples.autoscale.pool import LivePool
from rl4sys_stream import StreamAgent, TrajectoryHandle

__all__ = ["DEFINITION", "LIVE_DEFINITION", "Episode", "greedy", "make_agent"]

WORKERS: Final = Path(__file__).parents[2] / "workers"
DEFINITION: Final = WORKERS / "autoscale.json"
LIVE_DEFINITION: Final = WORKERS / "autoscale_live.json"
CAUTION: Final = 10.0
"""Lateness costs the learner half as much again as it is judged by: at the bare price a policy runs
so close to the edge that a busier season than the one it learned in takes it over."""
REWARD_SCALE: Final = 0.2
"""Returns of a few units are what the critic learns quickly. Scaled, never clipped: the outage that
a clipped reward hides is what must be learned."""
MODEL_WAIT_S: Final = 120.0


def make_agent(
    definition: Path,
    redis_url: str | None = None,
    seed: int | None = None,
    client_id: str | None = None,
) -> StreamAgent:
    """The agent of one process; it may have many episodes at once.

    Args:
        definition: Of the client, in workers/.
        redis_url: Of the broker; None takes the environment's.
        seed: Of its exploration.
        client_id: Name of the client; None takes the definition's.
    """
    return StreamAgent(
        definition,
        client_id=client_id,
        redis_url=redis_url,
        observation_space=OBSERVATION_SPACE,
        action_space=ACTION_SPACE,
        seed=seed,
    )


class Episode:
    """A pool that the agent controls and learns from, for a span of the demand."""

    def __init__(self, agent: StreamAgent, loop: ControlLoop, span: Span) -> None:
        """Begin it."""
        self._agent, self._loop = agent, loop
        self._trajectory: TrajectoryHandle | None = None
        loop.begin(span)

    def step(self) -> Outcome:
        """Decide, let half a second pass, and tell the agent what it brought."""
        view = self._loop.view
        self._trajectory, action = self._agent.request_for_action(
            self._trajectory, view.observation(), view.mask()
        )
        outcome = self._loop.step(view.target(int(action)))
        self._agent.add_to_trajectory(self._trajectory, action)
        action.update_reward(REWARD_SCALE * (outcome.reward - CAUTION * outcome.late))
        if self._loop.over:  # the demand goes on: only this span of it is over
            self._agent.mark_end_of_trajectory(
                self._trajectory, action, truncated=True, final_obs=self._loop.view.observation()
            )
        return outcome


def greedy(agent: StreamAgent) -> Controller:
    """The agent's best decisions; nothing is recorded or sent."""

    def decide(view: View) -> int:
        return view.target(int(agent.evaluate(view.observation(), view.mask())))

    return decide


@click.command()
@click.option("--client-id", default="autoscale_live", show_default=True)
@click.option("--redis-url", required=True, envvar="RL4SYS_STREAM_REDIS_URL")
@click.option("--begin", default=63_132, show_default=True, help="First step of the demand.")
@click.option("--steps", default=288, show_default=True, help="Of half a second each.")
@click.option("--serve", is_flag=True, help="Only act: learn nothing, record nothing.")
@click.option("--seed", default=1, show_default=True, help="Of the load and the exploration.")
def main(client_id: str, redis_url: str, begin: int, steps: int, serve: bool, seed: int) -> None:
    """Run a live pool under an agent."""
    span = Span(begin, begin + steps)
    with (
        make_agent(LIVE_DEFINITION, redis_url, seed, client_id) as agent,
        LivePool(redis_url, seed) as pool,
    ):
        if not agent.wait_for_model(MODEL_WAIT_S):
            click.echo("no model yet; the replicas are chosen by chance", err=True)
        loop = ControlLoop(pool, flight_demand())
        episode, decide = Episode(agent, loop, span), greedy(agent)
        while not loop.over:
            outcome = loop.step(decide(loop.view)) if serve else episode.step()
            read = outcome.reading
            click.echo(
                f"step={loop.view.moment} replicas={outcome.replicas} arrived={read.arrived} "
                f"late={read.late} waiting={read.waiting} died={read.died} version={agent.version}"
            )


if __name__ == "__main__":
    main()
