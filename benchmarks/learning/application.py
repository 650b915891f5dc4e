"""An application of ours, a process of its own: `python -m benchmarks.learning.application ORDER`.

In: an `ApplicationOrder` as JSON; it begins with a line on standard input, and ends with its end.
Out: messages on standard output. What plays is the package's own runner.
"""

import os
import sys
import threading
import time

import gymnasium
import msgspec

from benchmarks.learning.delay import delayed_policies
from benchmarks.learning.messages import ApplicationOrder, Episode, Finished, Message, Ready
from rl4sys_stream import StreamAgent
from rl4sys_stream.gymnasium import EpisodeRecord, Pace, Runner

FLUSH_TIMEOUT_S = 30.0
MODEL_TIMEOUT_S = 120.0
NO_LIMIT = 1 << 62


def main() -> None:
    order = msgspec.json.decode(sys.argv[1], type=ApplicationOrder)
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what anything else prints is no message

    def send(message: Message) -> None:
        output.write(msgspec.json.encode(message) + b"\n")

    envs = [gymnasium.make(order.environment) for _ in range(order.envs)]
    with delayed_policies(order.versions_behind):
        agent = StreamAgent(order.definition, redis_url=order.redis_url, seed=order.seed)
    stopping = threading.Event()
    with agent:
        if not agent.wait_for_model(MODEL_TIMEOUT_S):
            sys.exit(f"no model within {MODEL_TIMEOUT_S} s: {agent.status()}")
        send(Ready())
        os.read(0, 1)
        threading.Thread(target=_watch, args=(stopping,), daemon=True).start()

        def tell(record: EpisodeRecord) -> None:
            send(Episode(at=time.monotonic(), steps=record.steps, total=record.total))

        pace = Pace(updates_ahead=order.updates_ahead, agents=order.agents)
        runner = Runner(envs, agent, seed=order.seed, pace=pace, on_episode=tell, stopping=stopping)
        began = time.monotonic()
        played = runner.run(steps=NO_LIMIT)
        ended = time.monotonic()
        runner.close()
        agent.flush(FLUSH_TIMEOUT_S)
    send(Finished(began=began, at=ended, steps=played.steps, waited_s=played.waited_s))


def _watch(stopping: threading.Event) -> None:
    """Not by sys.stdin, whose lock this thread would hold while the interpreter ends."""
    while os.read(0, 1024):
        pass
    stopping.set()


if __name__ == "__main__":
    main()
