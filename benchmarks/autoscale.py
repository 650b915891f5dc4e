"""The figures of examples/autoscale: three trainings on twins, judged on held-out weeks, then live.

    python -m benchmarks.autoscale                  # on a machine that has nothing else to do
    python -m benchmarks.autoscale --stretch 4      # on a busy one: live time passes more slowly

Each seed has a broker, a worker and a live client of its own, as `rl4sys-stream demo autoscale`
has. Writes docs/benchmarks/autoscale.json and the plots of the example's README after each. A seed
whose run folder is there already, from here or from the demo, is taken as it is.
"""

import shutil
from pathlib import Path

import click
import msgspec

from examples.autoscale.demo import LIVE_STEPS, AutoscaleOptions, measure
from examples.autoscale.report import Results, draw_comparison, draw_curves, markdown, write_json
from examples.autoscale.training import Plan
from rl4sys_stream.cli.demo.systems import CHECKOUT, SystemOptions

RESULTS = CHECKOUT / "docs" / "benchmarks" / "autoscale.json"
PLOTS = CHECKOUT / "examples" / "autoscale"
RUNS = CHECKOUT / "runs" / "autoscale"


@click.command()
@click.option("--decisions", default=Plan().decisions, show_default=True)
@click.option("--live-steps", default=LIVE_STEPS, show_default=True)
@click.option("--stretch", default=1.0, show_default=True)
@click.option("--seeds", default="1,2,3", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=RUNS, show_default=True)
def main(decisions: int, live_steps: int, stretch: float, seeds: str, out: Path) -> None:
    """Train, judge, serve, write."""
    results: list[Results] = []
    for seed in map(int, seeds.split(",")):
        options = AutoscaleOptions(
            system=SystemOptions(seed=seed, out=out, plain=True),
            plan=Plan(decisions=decisions),
            live_steps=live_steps,
            stretch=stretch,
        )
        results.append(_earlier(out, seed) or measure(options))
        print(f"seed {seed}\n{markdown(results[-1])}", flush=True)
        write_json(RESULTS, results)
        draw_curves(PLOTS / "learning_curve.png", results)
        draw_comparison(PLOTS / "comparison.png", results)
        if len(results) == 1:
            (run,) = sorted(out.glob(f"*-seed{seed}"))[-1:]
            for name in ("day.png", "live.png"):
                if (run / name).exists():
                    shutil.copy(run / name, PLOTS)


def _earlier(out: Path, seed: int) -> Results | None:
    for path in sorted(out.glob(f"*-seed{seed}/results.json")):
        return msgspec.json.decode(path.read_bytes(), type=list[Results])[0]
    return None


if __name__ == "__main__":
    main()
