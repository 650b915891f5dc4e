"""`rl4sys-stream demo`."""

import os
from pathlib import Path

import click

from rl4sys_stream.broker.connection import URL_ENV
from rl4sys_stream.cli.demo.settings import CLIENT, DemoSettings
from rl4sys_stream.clock import SystemClock

__all__ = ["demo"]


@click.command()
@click.argument("task", type=click.Choice([CLIENT]))
@click.option("--seed", default=1, show_default=True, help="Of environment, agent and learner.")
@click.option(
    "--max-steps",
    type=click.IntRange(min=1),
    default=300_000,
    show_default=True,
    help="Give up after so many environment steps.",
)
@click.option(
    "--target",
    default=200.0,
    show_default=True,
    help="Mean return of the last 100 episodes that counts as learned.",
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
@click.option("--no-gif", is_flag=True, help="Film no landing.")
@click.option("--plain", is_flag=True, help="Lines instead of a live display.")
def demo(
    task: str,  # noqa: ARG001 - there is one, and the command says which
    seed: int,
    max_steps: int,
    target: float,
    out: Path,
    redis_url: str | None,
    agents: int,
    no_gif: bool,
    plain: bool,
) -> int:
    """Watch a system learn: broker, dispatcher, worker and an application on this machine.

    Ends when the target is reached, or out of steps. Leaves a learning curve, a film of the
    trained policy, TensorBoard logs and a summary in a run folder, whose path it prints. Exits
    with 0 if it learned, with 1 if not.
    """
    from rl4sys_stream.cli.demo.system import require_extras

    settings = DemoSettings(
        seed=seed,
        max_steps=max_steps,
        target=target,
        out=out,
        redis_url=redis_url or os.environ.get(URL_ENV) or None,
        agents=agents,
        gif=not no_gif,
        plain=plain,
    )
    require_extras(own=settings.redis_url is None)
    # After the check: it draws and displays with what the extra brings.
    from rl4sys_stream.cli.demo.run import run_demo

    return run_demo(settings, SystemClock())
