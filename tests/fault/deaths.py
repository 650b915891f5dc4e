"""Workers that die by their own kill -9 at a named step: exactly there, not about there.

A kill from outside hits a step of a few microseconds once in a thousand tries. Here the real
function of the step runs, and after its n-th call the process is gone: no `finally`, no thread, no
exit handler runs any more. Nothing is replaced, so what a worker does up to its death is what it
always does.
"""

import functools
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["DIE_AT", "STEPS", "arrange", "dies_at"]

DIE_AT: Final = "TESTS_DIE_AT"

STEPS: Final = ("read", "learn", "learned", "checkpoint", "stage", "commit", "note")
"""In the order of a rollout: an entry was taken; a gradient step of many was made; the update is
complete; the checkpoint is staged; the model is staged; the broker has committed and nothing here
knows it; it is written down here as well."""


def dies_at(step: str, call: int) -> Mapping[str, str]:
    """The environment of a worker that dies after the `call`-th of its `step`s."""
    return {DIE_AT: f"{step}:{call}"}


def arrange() -> None:
    """In the worker's process, before it begins: have it die where its environment says."""
    order = os.environ.get(DIE_AT)
    if not order:
        return
    step, _, call = order.partition(":")
    owner, name = _function(step)
    setattr(owner, name, _deadly(getattr(owner, name), int(call)))


def _function(step: str) -> tuple[Any, str]:
    # Here, because only a worker's process has torch.
    import torch  # noqa: PLC0415

    from rl4sys_stream.algorithms.ppo import PPO  # noqa: PLC0415
    from rl4sys_stream.model_store.publisher import Publisher  # noqa: PLC0415
    from rl4sys_stream.worker import committer  # noqa: PLC0415
    from rl4sys_stream.worker.intake import Intake  # noqa: PLC0415

    functions: dict[str, tuple[Any, str]] = {
        "read": (Intake, "take"),
        "learn": (torch.optim.Adam, "step"),
        "learned": (PPO, "update"),
        "checkpoint": (committer, "stage_checkpoint"),
        "stage": (Publisher, "stage"),
        "commit": (committer, "commit"),
        "note": (committer.Committer, "_tell"),
    }
    return functions[step]


def _deadly(function: Callable[..., Any], call: int) -> Callable[..., Any]:
    calls, worker = 0, os.getpid()

    @functools.wraps(function)
    def deadly(*args: object, **kwargs: object) -> object:
        nonlocal calls
        result = function(*args, **kwargs)
        if os.getpid() != worker:
            # A child that tries an update. Whoever kills the worker does not aim at that.
            return result
        # Looking into an empty queue is no reading.
        calls += function.__name__ != "take" or result is not None
        if calls >= call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return deadly
