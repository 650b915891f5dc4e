"""Stable-Baselines3's side, seen from the benchmark: an order, a process, an outcome."""

import os
import subprocess
import sys

import msgspec

from benchmarks.learning.cases import ROOT, Case, Reference
from benchmarks.learning.record import Curve

__all__ = ["ReferenceOrder", "ReferenceOutcome", "run_reference"]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ReferenceOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is to do.

    Attributes:
        environment: Gymnasium's id.
        target: See `Case`.
        window: Likewise.
        budget: Environment steps at most; schedules end there.
        stop_after: Environment steps after which to stop all the same; schedules do not.
        side: The reference's settings.
        seed: Of everything.
        threads: Of torch; None leaves them at its default.
    """

    environment: str
    target: float
    window: int
    budget: int
    stop_after: int
    side: Reference
    seed: int
    threads: int | None


class ReferenceOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        threads: Of torch.
        steps: Environment steps taken.
        seconds: That they took.
        curve: Of the training episodes.
    """

    threads: int
    steps: int
    seconds: float
    curve: Curve


def run_reference(
    case: Case,
    side: Reference,
    *,
    seed: int,
    budget: int,
    threads: int | None,
    stop_after: int | None = None,
) -> ReferenceOutcome:
    """Run the process to its end.

    Raises:
        subprocess.CalledProcessError: If it fails; its standard error was passed on.
    """
    order = ReferenceOrder(
        environment=case.environment,
        target=case.target,
        window=case.window,
        budget=budget,
        stop_after=budget if stop_after is None else stop_after,
        side=side,
        seed=seed,
        threads=threads,
    )
    # Its default must be torch's own, not what this process happens to have been started with.
    environ = {k: v for k, v in os.environ.items() if k not in THREAD_VARIABLES}
    if threads is not None:
        environ |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.learning.reference_process",
            msgspec.json.encode(order).decode(),
        ],
        cwd=ROOT,
        env={**environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=ReferenceOutcome)
