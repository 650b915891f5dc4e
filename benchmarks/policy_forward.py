"""How long one decision takes: `python -m benchmarks.policy_forward [--json]`.

Prints p50 and p99, in microseconds, of the bare numpy forward pass and of `ModelPolicy.act`
(normalise, forward, sample, log-probability) for a 64×64 tanh actor with 8 inputs and 4 actions,
then of variants. A sample is the mean of `BATCH` calls, since a clock read costs as much as a tenth
of a call; p99 therefore shows the machine's hiccups smoothed, not single calls.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable

import numpy as np

from rl4sys_stream.config import ClientSpec, NetworkSpec
from rl4sys_stream.policy.extras import BehaviorExtras, ObservationNormalization
from rl4sys_stream.policy.mlp import actor_layout
from rl4sys_stream.policy.policy import ModelPolicy, build_policy
from rl4sys_stream.spaces import Box, Discrete
from rl4sys_stream.wire.snapshot import Weights

BATCH = 10
SAMPLES = 5000
WARMUP = 2000


def make_policy(
    hidden: tuple[int, ...] = (64, 64), *, n_actions: int = 4, normalised: bool = True
) -> ModelPolicy:
    """A random actor with 8 inputs."""
    rng = np.random.default_rng(0)
    layout = actor_layout(8, hidden, n_actions)
    weights = Weights(layout, rng.normal(0, 0.1, layout.size).astype(np.float32))
    norm = ObservationNormalization(np.zeros(8, np.float32), np.ones(8, np.float32), 10.0)
    spec = ClientSpec(
        observation_space=Box((8,)),
        action_space=Discrete(n_actions),
        network=NetworkSpec(hidden_sizes=hidden),
    )
    return build_policy(spec, weights, BehaviorExtras(norm if normalised else None), 1, "bench")


def make_item_policy() -> ModelPolicy:
    """A random actor for 128 items of 12 features."""
    layout = actor_layout(12, (32, 16), 1)
    flat = np.random.default_rng(0).normal(0, 0.1, layout.size).astype(np.float32)
    spec = ClientSpec(
        observation_space=Box((128, 12)),
        action_space=Discrete(128),
        network=NetworkSpec(hidden_sizes=(32, 16), per_item=True),
    )
    return build_policy(spec, Weights(layout, flat), BehaviorExtras(), 1, "bench")


def draw() -> float:
    """The same action every time."""
    return 0.7


def measure(call: Callable[[], object]) -> dict[str, float]:
    """p50 and p99 of `call`, in microseconds."""
    for _ in range(WARMUP):
        call()
    samples = np.empty(SAMPLES)
    for index in range(SAMPLES):
        start = time.perf_counter_ns()
        for _ in range(BATCH):
            call()
        samples[index] = time.perf_counter_ns() - start
    p50, p99 = np.percentile(samples / BATCH / 1e3, [50, 99])
    return {"p50_us": round(float(p50), 2), "p99_us": round(float(p99), 2)}


def cases() -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    obs = np.random.default_rng(1).normal(0, 1, 8).astype(np.float32)
    mask = np.array([True, False, True, True])
    plain, normalised = make_policy(normalised=False), make_policy()
    queue = np.random.default_rng(2).normal(0, 1, 128 * 12).astype(np.float32)
    quarter, picks = np.arange(128) < 32, make_item_policy()
    many, wide = make_policy(n_actions=100), make_policy((256, 256))
    return {
        "forward 64x64": lambda: plain.network.forward(obs),
        "forward 64x64, normalised": lambda: normalised.network.forward(obs),
        "act 64x64": lambda: plain.act(obs, None, draw),
        "act 64x64, normalised": lambda: normalised.act(obs, None, draw),
        "act 64x64, normalised, masked": lambda: normalised.act(obs, mask, draw),
        "act 64x64, normalised, 100 actions": lambda: many.act(obs, None, draw),
        "act 256x256, normalised": lambda: wide.act(obs, None, draw),
        "act 32x16 on 128 items": lambda: picks.act(queue, None, draw),
        "act 32x16 on 32 of 128 items": lambda: picks.act(queue, quarter, draw),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    results = {name: measure(call) for name, call in cases().items()}
    if arguments.json:
        machine = {"python": platform.python_version(), "numpy": np.__version__}
        print(json.dumps({"benchmark": "policy_forward", **machine, "results": results}))
        return
    for name, result in results.items():
        print(f"{name:36} p50 {result['p50_us']:6.2f} us   p99 {result['p99_us']:6.2f} us")


if __name__ == "__main__":
    main()
