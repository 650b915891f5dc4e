"""Stable-Baselines3's side: `python -m benchmarks.learning.reference_process ORDER`.

In: a `ReferenceOrder` as JSON. Out: a `ReferenceOutcome` as JSON on standard output. Timed from
before the first rollout, so that neither imports nor the making of environments count.
"""

import sys
import time
from collections.abc import Callable

import msgspec
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from benchmarks.learning.cases import Reference
from benchmarks.learning.record import EpisodeLog
from benchmarks.learning.reference import ReferenceOrder, ReferenceOutcome


def _train(order: ReferenceOrder) -> ReferenceOutcome:
    if order.threads is not None:
        torch.set_num_threads(order.threads)
    log = EpisodeLog(target=order.target, window=order.window)

    class Watch(BaseCallback):
        """Notes the episodes that Monitor reports, and ends the training."""

        began = 0.0

        def _on_training_start(self) -> None:
            self.began = time.monotonic()

        def _on_step(self) -> bool:
            for info in self.locals["infos"]:
                if episode := info.get("episode"):
                    seconds = time.monotonic() - self.began
                    log.add(steps=self.num_timesteps, seconds=seconds, total=episode["r"])
            return not log.reached and self.num_timesteps < order.stop_after

    side = order.side
    watch = Watch()
    model = getattr(sb3, side.algorithm)(
        "MlpPolicy",
        make_vec_env(order.environment, side.envs, seed=order.seed),
        policy_kwargs=side.hidden_sizes and {"net_arch": list(side.hidden_sizes)},
        seed=order.seed,
        device="cpu",
        **{name: _scheduled(side, name, value) for name, value in side.parameters.items()},
    )
    model.learn(order.budget, callback=watch)
    return ReferenceOutcome(
        threads=torch.get_num_threads(),
        steps=model.num_timesteps,
        seconds=time.monotonic() - watch.began,
        curve=log.curve(),
    )


def _scheduled(side: Reference, name: str, value: object) -> object | Callable[[float], float]:
    if name not in side.linear:
        return value
    start = float(str(value))
    return lambda remaining: remaining * start


if __name__ == "__main__":
    outcome = _train(msgspec.json.decode(sys.argv[1], type=ReferenceOrder))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
