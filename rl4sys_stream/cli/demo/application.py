"""The application of the demo, a process of its own: a simulator with an agent embedded.

    python -m rl4sys_stream.cli.demo.application '{"number": 0, "seed": 1, ...}'

In: an `ApplicationOrder` as argument, the broker's URL in the environment; it ends when its
standard input does. Out: messages on standard output, its log on standard error. It is what an
application of anybody's looks like who plays Gymnasium environments, apart from the messages.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import msgspec

from rl4sys_stream.agent import StreamAgent
from rl4sys_stream.cli.demo.messages import (
    ApplicationOrder,
    Episode,
    Evaluated,
    Finished,
    Message,
    Ready,
    message_sender,
)
from rl4sys_stream.errors import StreamError
from rl4sys_stream.gymnasium import EpisodeRecord, Pace, Runner, evaluate, film, make_environment
from rl4sys_stream.telemetry import configure_logging, log_event

__all__ = ["main"]

logger = logging.getLogger("rl4sys_stream.cli.demo")

FLUSH_TIMEOUT_S = 30.0
ORPHAN_FLUSH_TIMEOUT_S = 5.0
"""With the demo its embedded broker goes, too; one of somebody else's still answers."""
FLUSH_SLICE_S = 0.5
EVALUATION_SEED = 1_000_000
"""Far from the seeds of training, so that the episodes are new."""


def main() -> int:
    """Do what the order says; the exit code is that of the error, if there is one."""
    send = message_sender(_claim_standard_output())
    order = msgspec.json.decode(sys.argv[1], type=ApplicationOrder)
    configure_logging()
    stopping = threading.Event()
    _stop_when_told(stopping)
    try:
        _run(order, send, stopping)
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
    order: ApplicationOrder, send: Callable[[Message], None], stopping: threading.Event
) -> None:
    parent = os.getppid()
    agent = StreamAgent(order.definition, client_id=order.client, seed=order.seed)
    try:
        runner = _make_runner(order, agent, send, stopping)
        # Before the first step, so that the demo's clock starts with it.
        runner.wait_for_model()
        if stopping.is_set():
            return
        send(Ready(agent_id=agent.agent_id))
        runner.run(steps=order.max_steps)
        runner.close()
        _flush(agent, parent)
        if order.eval_episodes:
            send(_evaluate(order, agent))
    finally:
        agent.close(FLUSH_TIMEOUT_S if os.getppid() == parent else FLUSH_SLICE_S)
    status = agent.status()
    send(
        Finished(
            agent_id=agent.agent_id,
            flushed=status.queued + status.unanswered == 0,
            steps=runner.steps,
            accepted_steps=status.steps,
            waited_s=runner.waited_s,
        )
    )


def _flush(agent: StreamAgent, parent: int) -> None:
    """Wait until all is sent, but not for long once nobody is left who would hear of it."""
    began = time.monotonic()
    while not agent.flush(FLUSH_SLICE_S):
        patience_s = FLUSH_TIMEOUT_S if os.getppid() == parent else ORPHAN_FLUSH_TIMEOUT_S
        if time.monotonic() - began >= patience_s:
            return


def _make_runner(
    order: ApplicationOrder,
    agent: StreamAgent,
    send: Callable[[Message], None],
    stopping: threading.Event,
) -> Runner:
    def tell(record: EpisodeRecord) -> None:
        send(
            Episode(
                total=record.total,
                length=record.length,
                steps=record.steps,
                version=record.version,
            )
        )

    environments = [
        make_environment(order.environment, max_episode_steps=order.max_episode_steps)
        for _ in range(order.envs)
    ]
    return Runner(
        environments,
        agent,
        seed=order.seed,
        pace=Pace(agents=order.agents),
        on_episode=tell,
        stopping=stopping,
    )


def _evaluate(order: ApplicationOrder, agent: StreamAgent) -> Evaluated:
    if order.film is not None:
        shown = film(
            lambda render_mode: make_environment(
                order.environment,
                render_mode=render_mode,
                max_episode_steps=order.max_episode_steps,
            ),
            agent,
            order.film,
            episodes=order.eval_episodes,
            seed=order.seed,
        )
        return Evaluated(returns=shown.returns, version=shown.version, filmed=shown.filmed)
    env = make_environment(order.environment, max_episode_steps=order.max_episode_steps)
    seed = EVALUATION_SEED + order.seed
    evaluation = evaluate(env, agent, episodes=order.eval_episodes, seed=seed)
    env.close()
    return Evaluated(returns=evaluation.returns, version=evaluation.version)


if __name__ == "__main__":
    sys.exit(main())
