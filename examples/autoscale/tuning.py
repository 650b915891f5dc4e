"""The settings of the baselines: each combination on weeks of the known demand.

    python -m examples.autoscale.tuning

`evaluation.baselines` holds what came out; a learner deserves opponents that do their best.
"""

from collections.abc import Callable
from itertools import product
from typing import Final

import click

from examples.autoscale.baselines import HPA, KEDA, WeeklyPredictive, WithFloor
from examples.autoscale.control import Controller
from examples.autoscale.demand import WEEK_STEPS, Demand, flight_demand
from examples.autoscale.evaluation import Score, compare

__all__ = ["candidates", "main"]

SEED: Final = 7_000_000
TARGETS: Final = (0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85)
WINDOWS: Final = (1, 3, 6, 12)
QUEUES: Final = (0.1, 0.25, 0.5)
FLOORS: Final = (6, 8, 10, 12)


def candidates(demand: Demand) -> dict[str, dict[str, Callable[[], Controller]]]:
    """Baseline -> its settings in words -> what makes a controller with them."""
    return {
        "HPA": {
            f"target={target}, window={window}": lambda t=target, w=window: HPA(t, w)  # type: ignore[misc]
            for target, window in product(TARGETS, WINDOWS)
        },
        "KEDA": {
            f"queue={queue}, target={target}, window={window}": (
                lambda q=queue, t=target, w=window: KEDA(q, t, w)  # type: ignore[misc]
            )
            for queue, target, window in product(QUEUES, TARGETS, WINDOWS[::2])
        },
        "weekly predictive": {
            f"target={target}": lambda t=target: WeeklyPredictive(demand.rates, t)  # type: ignore[misc]
            for target in TARGETS
        },
        "HPA, floor": {
            f"target={target}, floor={floor}": (
                lambda t=target, f=floor: WithFloor(HPA(t, 6, rate_steps=1), f)  # type: ignore[misc]
            )
            for target, floor in product((0.6, 0.65, 0.7), FLOORS)
        },
        "weekly predictive, floor": {
            f"target={target}, floor={floor}": (
                lambda t=target, f=floor: WithFloor(WeeklyPredictive(demand.rates, t), f)  # type: ignore[misc]
            )
            for target, floor in product((0.7, 0.75, 0.8), FLOORS)
        },
    }


@click.command()
@click.option("--every", default=8, show_default=True, help="Of the known weeks, take each n-th.")
@click.option("--top", default=3, show_default=True, help="Settings to print of each baseline.")
def main(every: int, top: int) -> None:
    """Print the best settings of each baseline."""
    demand = flight_demand()
    # The first week has no week before it, which the predictive controller would need.
    weeks = demand.known.windows(WEEK_STEPS)[1::every]
    for name, makers in candidates(demand).items():
        scores = compare(makers, demand, weeks, SEED)
        for found in sorted(scores, key=_objective)[:top]:
            click.echo(
                f"{name}: {found.name}: objective {found.objective:.3f}, "
                f"{found.replicas:.2f} replicas, {found.late:.2%} late"
            )


def _objective(found: Score) -> float:
    return -found.objective


if __name__ == "__main__":
    main()
