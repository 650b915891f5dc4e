r"""Lunar Lander with an embedded agent, as in RL4Sys.

In one terminal:
    rl4sys-stream up --debug --port 50051

In another one:
    python -m examples.lunar.lunar_lander --seed 1 --number-of-iterations 10000 \
        --number-of-moves 200 --render False --client-id lunar_lander
"""

import logging
from collections import deque
from pathlib import Path

import click
import gymnasium
import numpy as np
from numpy.typing import NDArray

from rl4sys_stream import ActionHandle, RL4SysAgent, TrajectoryHandle

CONFIG = Path(__file__).with_name("luna_conf.json")
MODEL_WAIT_S = 30.0
REPORT_EVERY = 10
WINDOW = 100


class LunarLanderSim:
    """The application: a simulator that asks its agent what to do."""

    def __init__(
        self, seed: int, render: bool, client_id: str, redis_url: str | None, quiet: bool
    ) -> None:
        self._seed = seed
        self._quiet = quiet
        self.env: gymnasium.Env[NDArray[np.float32], int] = gymnasium.make(
            "LunarLander-v3", render_mode="human" if render else None
        )
        # The configuration is in RL4Sys's format, which says neither space. Its section agent lets
        # the simulator wait for the learner ("block"), because it is faster than any; a real system
        # would drop instead. The mark leaves room for a rollout even if every lander falls at once.
        self.rlagent = RL4SysAgent(
            conf_path=CONFIG,
            client_id=client_id,
            redis_url=redis_url,
            observation_space=self.env.observation_space,
            action_space=self.env.action_space,
            seed=seed,
        )
        self.rl4sys_traj: TrajectoryHandle | None = None
        self.rl4sys_action: ActionHandle | None = None
        self._returns: deque[float] = deque(maxlen=WINDOW)

    def run_application(
        self, num_iterations: int, max_moves: int, target_return: float | None = None
    ) -> float:
        """Play `num_iterations` episodes of at most `max_moves` steps each.

        Returns:
            The mean return of the last 100.
        """
        if not self.rlagent.wait_for_model(MODEL_WAIT_S):
            click.echo("no model yet; beginning with random actions", err=True)
        for iteration in range(num_iterations):
            self._returns.append(self._play(self._seed + iteration, max_moves))
            mean = sum(self._returns) / len(self._returns)
            full = len(self._returns) == WINDOW
            landed = target_return is not None and full and mean >= target_return
            last = landed or iteration + 1 == num_iterations
            if not self._quiet and (last or (iteration + 1) % REPORT_EVERY == 0):
                self._report(iteration + 1, mean)
            if landed:
                break
        return sum(self._returns) / max(len(self._returns), 1)

    def _play(self, seed: int, max_moves: int) -> float:
        obs, _ = self.env.reset(seed=seed)
        moves, total = 0, 0.0
        while True:
            # The agent decides here, in this process, with the newest policy that it has.
            self.rl4sys_traj, self.rl4sys_action = self.rlagent.request_for_action(
                self.rl4sys_traj, obs
            )
            obs, reward, terminated, truncated, _ = self.env.step(self.rl4sys_action.action)
            self.rlagent.add_to_trajectory(self.rl4sys_traj, self.rl4sys_action)
            self.rl4sys_action.update_reward(float(reward))
            moves, total = moves + 1, total + float(reward)
            if terminated or truncated or moves >= max_moves:
                # Out of moves is no end of the lander's own: what would have followed has a value.
                self.rlagent.mark_end_of_trajectory(
                    self.rl4sys_traj, self.rl4sys_action, truncated=not terminated, final_obs=obs
                )
                return total

    def _report(self, episodes: int, mean: float) -> None:
        status = self.rlagent.status()
        click.echo(
            f"episodes={episodes} mean_return={mean:.1f} steps={status.steps} "
            f"version={status.version} broker={status.broker}"
        )

    def close(self) -> None:
        """Send what is left, and end."""
        self.rlagent.close()
        self.env.close()


@click.command()
@click.option("--seed", default=1, show_default=True, help="Of the simulator and the agent.")
@click.option("--number-of-iterations", default=100, show_default=True, help="Episodes.")
@click.option("--number-of-moves", default=200, show_default=True, help="Most steps of each.")
@click.option("--render", type=bool, default=False, show_default=True, help="Open a window.")
@click.option("--client-id", default="lunar_lander", show_default=True)
@click.option("--redis-url", help="A broker other than the configuration's.")
@click.option("--target-return", type=float, help="End when the mean of 100 episodes is as high.")
@click.option("--quiet", is_flag=True, help="Print nothing.")
def main(
    seed: int,
    number_of_iterations: int,
    number_of_moves: int,
    render: bool,
    client_id: str,
    redis_url: str | None,
    target_return: float | None,
    quiet: bool,
) -> None:
    """Lunar Lander, controlled by an agent that learns over Redis streams."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    # That the sender pauses at the high water mark is what was asked for; the report shows it.
    logging.getLogger("rl4sys_stream.agent").setLevel(logging.ERROR)
    application = LunarLanderSim(seed, render, client_id, redis_url, quiet)
    try:
        application.run_application(number_of_iterations, number_of_moves, target_return)
    finally:
        application.close()


if __name__ == "__main__":
    main()
