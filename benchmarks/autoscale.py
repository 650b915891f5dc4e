"""The figures of examples/autoscale: three trainings on twins, judged on held-out weeks, then live.

    python -m benchmarks.autoscale                  # on a machine that has nothing else to do
    python -m benchmarks.autoscale --stretch 4      # on a busy one: live time passes more slowly
    python -m benchmarks.autoscale --live-again --out FOLDER    # trained models, served once more

Each seed has a broker, a worker and a live client of its own, as `rl4sys-stream demo autoscale`
has. Writes docs/benchmarks/autoscale.json and the plots of the example's README after each. A seed
whose run folder is there already, from here or from the demo, is taken with what its agent reached,
beside the baselines as they are now; with --live-again its model is served once more.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import click
import msgspec

from examples.autoscale.demand import WEEK_STEPS, flight_demand
from examples.autoscale.demo import AutoscaleOptions, measure
from examples.autoscale.evaluation import (
    HELD_OUT_SEED,
    VALIDATION_SEED,
    baselines,
    compare,
    floored,
)
from examples.autoscale.report import Results, draw_comparison, draw_curves, markdown, write_json
from examples.autoscale.serving import LiveSettings, serve_model
from examples.autoscale.training import Plan
from rl4sys_stream.cli.demo.systems import CHECKOUT, SystemOptions

RESULTS = CHECKOUT / "docs" / "benchmarks"
PLOTS = CHECKOUT / "examples" / "autoscale"
RUNS = CHECKOUT / "runs" / "autoscale"


@click.command()
@click.option("--decisions", default=Plan().decisions, show_default=True)
@click.option("--live-steps", default=LiveSettings().steps, show_default=True)
@click.option("--stretch", default=1.0, show_default=True)
@click.option("--seeds", default="1,2,3", show_default=True)
@click.option("--live-again", is_flag=True, help="Serve the models of earlier runs once more.")
@click.option("--out", type=click.Path(path_type=Path), default=RUNS, show_default=True)
@click.option(
    "--figures",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for figures and plots. Default: where the documents have them.",
)
def main(
    decisions: int,
    live_steps: int,
    stretch: float,
    seeds: str,
    live_again: bool,
    out: Path,
    figures: Path | None,
) -> None:
    """Train, judge, serve, write."""
    numbers, plots = figures or RESULTS, figures or PLOTS
    numbers.mkdir(parents=True, exist_ok=True)
    results: list[Results] = []
    for seed in map(int, seeds.split(",")):
        options = AutoscaleOptions(
            system=SystemOptions(seed=seed, out=out, plain=True),
            plan=Plan(decisions=decisions),
            live=LiveSettings(steps=live_steps, stretch=stretch, seed=seed) if live_steps else None,
        )
        folders = sorted(out.glob(f"autoscale-[0-9]*-seed{seed}"))
        found = [folder for folder in folders if (folder / "results.json").exists()]
        run = _earlier(found[-1], options, live_again) if found else measure(options)
        results.append(run)
        print(f"seed {seed}\n{markdown(run)}", flush=True)
        write_json(numbers / "autoscale.json", results)
        draw_curves(plots / "learning_curve.png", results)
        draw_comparison(plots / "comparison.png", results)
        for name in ("day.png", "live.png"):
            drawn = sorted(out.glob(f"*-seed{seed}/{name}"), key=lambda path: path.stat().st_mtime)
            if drawn and len(results) == 1:
                shutil.copy(drawn[-1], plots)


def _earlier(folder: Path, options: AutoscaleOptions, live_again: bool) -> Results:
    path = folder / "results.json"
    run = _beside_todays_baselines(
        msgspec.json.decode(path.read_bytes(), type=list[Results])[0], options.plan
    )
    if live_again and options.live:
        live = serve_model(options.system, options.live, folder / "model.npz")
        run = replace(run, live=live, stretch=options.live.stretch)
        write_json(path, [run])
    return run


def _beside_todays_baselines(run: Results, plan: Plan) -> Results:
    """The same requests as ever, so whoever has not changed reaches the same."""
    demand = flight_demand()
    makers = {**baselines(demand), **floored(demand)}
    weeks = demand.held_out.windows(WEEK_STEPS)[: run.agent.steps // WEEK_STEPS]
    return replace(
        run,
        validation=tuple(compare(makers, demand, plan.validation(demand), VALIDATION_SEED)),
        held_out=(*compare(makers, demand, weeks, HELD_OUT_SEED), run.agent),
    )


if __name__ == "__main__":
    main()
