"""The application of the demo, a process of its own: a simulator with an agent embedded.

    python -m rl4sys_stream.cli.demo.application '{"number": 0, "seed": 1, ...}'

In: an `ApplicationOrder` as argument, the broker's URL in the environment; it ends when its
standard input does. Out: messages on standard output, its log on standard error. It is what an
application of anybody's looks like, apart from `Pace` and the messages.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

import gymnasium
import msgspec
import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.agent import StreamAgent, TrajectoryHandle
from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import parse_definition, require_registration
from rl4sys_stream.cli.demo.landing import film_landing
from rl4sys_stream.cli.demo.messages import (
    ApplicationOrder,
    Episode,
    Finished,
    Message,
    Ready,
    message_sender,
)
from rl4sys_stream.cli.demo.pace import Pace
from rl4sys_stream.cli.demo.settings import CLIENT, ENVIRONMENT
from rl4sys_stream.cli.options import resolve
from rl4sys_stream.clock import Clock, SystemClock
from rl4sys_stream.config import AgentSettings
from rl4sys_stream.errors import ConfigError, StreamError
from rl4sys_stream.telemetry import configure_logging, log_event

__all__ = ["main"]

logger = logging.getLogger("rl4sys_stream.cli.demo")

Observation = NDArray[np.float32]

FLUSH_TIMEOUT_S = 30.0
MODEL_WAIT_S = 0.25


def main() -> int:
    """Do what the order says; the exit code is that of the error, if there is one."""
    send = message_sender(_claim_standard_output())
    order = msgspec.json.decode(sys.argv[1], type=ApplicationOrder)
    configure_logging()
    stopping = threading.Event()
    _stop_when_told(stopping)
    try:
        _run(order, send, stopping, SystemClock())
    except StreamError as error:
        log_event(logger, logging.ERROR, "application.failed", error=error)
        return error.exit_code
    return 0


def _claim_standard_output() -> Callable[[bytes], object]:
    """Keep standard output for messages; what anything else prints goes to standard error."""
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "wb", buffering=0).write


def _stop_when_told(stopping: threading.Event) -> None:
    """At the end of standard input (the parent closed it, or is gone) and at SIGTERM."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopping.set())

    def watch() -> None:
        # Not by sys.stdin, whose lock this thread would hold while the interpreter ends.
        while os.read(0, 1024):
            pass
        stopping.set()

    threading.Thread(target=watch, name="rl4sys-standard-input", daemon=True).start()


def _run(
    order: ApplicationOrder,
    send: Callable[[Message], None],
    stopping: threading.Event,
    clock: Clock,
) -> None:
    agent = StreamAgent(order.definition, client_id=CLIENT, seed=order.seed)
    try:
        if not _wait_for_model(agent, stopping):
            return
        send(Ready(agent_id=agent.agent_id))
        pace = _make_pace(agent.agent_id, stopping, clock)
        steps = _train(agent, order, pace, send, stopping)
        agent.flush(FLUSH_TIMEOUT_S)
        if order.gif is not None:
            send(film_landing(agent, order.gif, seed=order.seed))
    finally:
        agent.close(FLUSH_TIMEOUT_S)
    status = agent.status()
    send(
        Finished(
            agent_id=agent.agent_id,
            flushed=status.queued + status.unanswered == 0,
            steps=steps,
            accepted_steps=status.steps,
            waited_s=pace.waited_s,
        )
    )


def _wait_for_model(agent: StreamAgent, stopping: threading.Event) -> bool:
    """Do not begin with random actions while the worker is still starting: a simulator can wait.

    Raises:
        ConfigError: If the client is registered with another spec.
    """
    while not stopping.is_set():
        if agent.wait_for_model(MODEL_WAIT_S):
            return True
        if refused := agent.status().refused:
            raise ConfigError(refused)
    return False


def _make_pace(agent_id: str, stopping: threading.Event, clock: Clock) -> Pace:
    """The rollout is as long as the registered definition says: it is the worker's."""
    broker, keys = Broker(resolve(None), name="rl4sys-demo-pace"), ClientKeys(CLIENT)
    registration = require_registration(broker, keys)
    parameters, _ = parse_definition(registration.spec.algorithm, registration.definition)
    return Pace(
        broker,
        keys,
        agent_id,
        n_steps=parameters.steps_per_update,
        max_trajectory_steps=AgentSettings().max_trajectory_steps,
        stopping=stopping,
        clock=clock,
    )


def _train(
    agent: StreamAgent,
    order: ApplicationOrder,
    pace: Pace,
    send: Callable[[Message], None],
    stopping: threading.Event,
) -> int:
    """Play episodes until told to stop or out of steps; the environment steps taken."""
    env: gymnasium.Env[Observation, int] = gymnasium.make(ENVIRONMENT, disable_env_checker=True)
    obs, _ = env.reset(seed=order.seed)
    traj: TrajectoryHandle | None = None
    steps, total, length = 0, 0.0, 0
    while steps < order.max_steps and not stopping.is_set():
        if steps >= pace.allowed:
            pace.wait(steps)
            continue
        traj, action = agent.request_for_action(traj, obs)
        obs, reward, terminated, truncated, _ = env.step(action.action)
        agent.add_to_trajectory(traj, action)
        action.update_reward(reward)
        steps, total, length = steps + 1, total + float(reward), length + 1
        if terminated or truncated:
            cut_short = truncated and not terminated
            agent.mark_end_of_trajectory(traj, action, cut_short, final_obs=obs)
            send(Episode(total=total, length=length, steps=steps, version=action.version))
            obs, _ = env.reset()
            traj, total, length = None, 0.0, 0
    if traj is not None:
        # Stopped in the middle of an episode: what would have followed, the critic estimates.
        agent.mark_end_of_trajectory(traj, truncated=True, final_obs=obs)
    env.close()
    return steps


if __name__ == "__main__":
    sys.exit(main())
