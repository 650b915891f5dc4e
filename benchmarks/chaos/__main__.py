"""`make chaos`: the product under faults, then the control, then the report."""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from benchmarks.chaos.control import ControlResult, run_control
from benchmarks.chaos.report import write_report
from benchmarks.chaos.run import run_product
from benchmarks.chaos.settings import ChaosSettings, ClientPlan
from benchmarks.chaos.settling import say

CONTROL_MINUTES = 0.75
CONTROL_FAULTS = 20


@click.command()
@click.option("--minutes", default=20.0, show_default=True, help="Time in which faults begin.")
@click.option("--faults", default=200, show_default=True, help="Faults that have to strike.")
@click.option("--seed", default=1, show_default=True)
@click.option("--agents", default=3, show_default=True, help="For each client.")
@click.option(
    "--client",
    "algorithms",
    multiple=True,
    default=("PPO", "PPO", "DQN"),
    show_default=True,
    metavar="ALGORITHM",
    help="One client that trains with this; repeat for more.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/chaos"))
@click.option("--control/--no-control", default=True, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Keep logs and data here.")
def main(
    minutes: float,
    faults: int,
    seed: int,
    agents: int,
    algorithms: tuple[str, ...],
    out: Path,
    control: bool,
    keep: Path | None,
) -> None:
    """Strike a whole system at random, and prove that nothing was lost or trained twice."""
    clients = tuple(
        ClientPlan(f"chaos_{i}_{name.lower()}", name) for i, name in enumerate(algorithms, 1)
    )
    settings = ChaosSettings(
        minutes=minutes, faults=faults, seed=seed, clients=clients, agents=agents
    )
    with tempfile.TemporaryDirectory(prefix="rl4sys-chaos-") as temporary:
        folder = keep or Path(temporary)
        result = run_product(folder / "product", settings)
        found: ControlResult | None = None
        if control:
            say("the control")
            shorter = replace(
                settings,
                minutes=min(minutes, CONTROL_MINUTES),
                faults=min(faults, CONTROL_FAULTS),
            )
            found = run_control(folder / "control", shorter)
    write_report(out, result, found)
    print((out / "chaos.md").read_text(encoding="utf-8"))
    if found is not None and not found.failed:
        sys.exit("the control passed: this harness proves nothing")
    if not result.passed:
        sys.exit("the promise was broken; see the violations")


if __name__ == "__main__":
    main()
