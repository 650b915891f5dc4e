"""Any Gymnasium environment as an application: three lines, and it learns.

    env = gymnasium.make("CartPole-v1")
    agent = StreamAgent(
        client_id="cartpole",
        observation_space=env.observation_space,
        action_space=env.action_space,
    )
    play(env, agent, steps=100_000)

In: an environment, a vector environment, several environments or an id, and an agent. Out:
episodes that the agent records and sends, and their returns; `evaluate` and `film` record nothing.
Called by applications, by the demo and by benchmarks; nothing below knows of it. Needs the extra
`gymnasium`.
"""

from rl4sys_stream.gymnasium.environments import Environments, make_environment
from rl4sys_stream.gymnasium.evaluation import Evaluation, evaluate
from rl4sys_stream.gymnasium.film import Film, film
from rl4sys_stream.gymnasium.pace import Pace
from rl4sys_stream.gymnasium.runner import EpisodeRecord, Played, Runner, play

__all__ = [
    "Environments",
    "EpisodeRecord",
    "Evaluation",
    "Film",
    "Pace",
    "Played",
    "Runner",
    "evaluate",
    "film",
    "make_environment",
    "play",
]
