"""An algorithm that is PPO until it meets certain rewards: then its update fails, or kills."""

import os
import signal
from collections.abc import Sequence
from typing import Any

from rl4sys_stream.algorithms.base import Sample, UpdateReport
from rl4sys_stream.algorithms.ppo import PPO

RAISES, KILLS = 666.0, 667.0


class PoisonablePPO(PPO):
    """PPO with two weaknesses."""

    _samples: list[Sample]

    def update(self) -> UpdateReport:
        """Fail with an exception, or end the process, if a sample says so."""
        if _holds(self._samples, KILLS):
            os.kill(os.getpid(), signal.SIGKILL)
        if _holds(self._samples, RAISES):
            raise ValueError("a shape that nobody thought of")
        return super().update()


def _holds(samples: Sequence[Sample], reward: float) -> bool:
    return any((sample.trajectory.rewards == reward).any() for sample in samples)


def make(*arguments: Any, **named: Any) -> PoisonablePPO:
    """As `make_algorithm`."""
    return PoisonablePPO(*arguments, **named)
