"""`rl4sys-stream demo`."""

import os
from pathlib import Path

import click

from rl4sys_stream.broker.connection import URL_ENV
from rl4sys_stream.cli.demo.settings import DemoSettings
from rl4sys_stream.cli.demo.systems import SYSTEMS, load_system
from rl4sys_stream.clock import SystemClock

__all__ = ["demo"]

FILMED_EPISODES = 5

_EPILOG = """
\b
Real systems instead of environments, from a checkout, each with options of its own (--help):
  rl4sys-stream demo autoscale    replicas of a service, on a twin and then live
  rl4sys-stream demo batch_sched  the queue of a supercomputer, on a real trace
  rl4sys-stream demo pg_steer     PostgreSQL's planner, steered query by query
"""


class _DemoCommand(click.Command):
    """The demo of an environment; before a system's name it makes way for that system's command."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: object,
    ) -> click.Context:
        """See `click.Command.make_context`."""
        if args and args[0] in SYSTEMS:
            system = load_system(args[0])
            return system.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(cls=_DemoCommand, epilog=_EPILOG)
@click.argument("task", metavar="ENV_ID")
@click.option("--seed", default=1, show_default=True, help="Of environment, agent and learner.")
@click.option(
    "--max-steps",
    type=click.IntRange(min=1),
    help="Give up after so many environment steps. Default: where the definition's schedules end, "
    "else 300,000.",
)
@click.option(
    "--target",
    type=float,
    help="Mean return of the last 100 episodes that counts as learned. Default: what Gymnasium "
    "says of the environment, 200 for Lunar Lander; if nothing, run until out of steps.",
)
@click.option("--algorithm", metavar="NAME", help="Instead of the definition's; else PPO.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Definition. Default: the one in ./workers that is called like the environment.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder for the run folder.",
)
@click.option(
    "--redis-url",
    metavar="URL",
    help=f"A broker that runs already, with a dispatcher beside it; also ${URL_ENV}. Without one "
    "the demo starts both.",
)
@click.option(
    "--agents",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Application processes, which share the steps.",
)
@click.option(
    "--envs",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Environments in each of them.",
)
@click.option(
    "--max-episode-steps",
    type=click.IntRange(min=1),
    help="Truncate longer episodes. Default: the environment's own limit.",
)
@click.option(
    "--eval-episodes",
    type=click.IntRange(min=0),
    help=f"Greedy episodes of the trained policy. Default: {FILMED_EPISODES} with a film, else 0.",
)
@click.option(
    "--video",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the film of the trained policy goes (.gif or .webp). Default: into the run folder.",
)
@click.option("--no-gif", is_flag=True, help="Make no film.")
@click.option("--plain", is_flag=True, help="Lines instead of a live display.")
def demo(
    task: str,
    seed: int,
    max_steps: int | None,
    target: float | None,
    algorithm: str | None,
    config: Path | None,
    out: Path,
    redis_url: str | None,
    agents: int,
    envs: int,
    max_episode_steps: int | None,
    eval_episodes: int | None,
    video: Path | None,
    no_gif: bool,
    plain: bool,
) -> int:
    """Watch a system learn: broker, dispatcher, worker and an application on this machine.

    ENV_ID is any Gymnasium environment, such as CartPole-v1 or lunar_lander. Ends when the target
    is reached, or out of steps. Leaves a learning curve, a film of the trained policy, TensorBoard
    logs and a summary in a run folder, whose path it prints. Exits with 0 if it learned (or there
    was no target), with 1 if not.
    """
    if task in SYSTEMS:
        raise click.UsageError(f"the name of a system comes first: rl4sys-stream demo {task} …")
    from rl4sys_stream.cli.demo.system import require_extras

    gif = video is not None or not no_gif
    settings = DemoSettings(
        seed=seed,
        max_steps=max_steps,
        target=target,
        out=out,
        redis_url=redis_url or os.environ.get(URL_ENV) or None,
        agents=agents,
        envs=envs,
        algorithm=algorithm,
        config=config,
        max_episode_steps=max_episode_steps,
        eval_episodes=FILMED_EPISODES * gif if eval_episodes is None else eval_episodes,
        gif=gif and eval_episodes != 0,
        video=video.absolute() if video else None,
        plain=plain,
    )
    require_extras(own=settings.redis_url is None)
    # After the check: it draws and displays with what the extra brings.
    from rl4sys_stream.cli.demo.run import run_demo
    from rl4sys_stream.cli.demo.task import find_task
    from rl4sys_stream.gymnasium.film import check_film_path

    if settings.video is not None:
        check_film_path(settings.video)
    return run_demo(find_task(task, settings, os.environ), settings, SystemClock())
