"""`python -m benchmarks.learning`: run what is asked for, keep each run, write the report.

python -m benchmarks.learning --cases ppo_cartpole --seeds 1,2,3,4,5 [--resume]
"""

import signal
from pathlib import Path

import click

from benchmarks.learning.campaign import Campaign
from benchmarks.learning.cases import CASES, ROOT, Case, Reference, find_case
from benchmarks.learning.record import Run
from benchmarks.learning.report import table_lines, write_report
from benchmarks.learning.summary import summarise
from benchmarks.learning.threads import ThreadChoice, choose_threads
from benchmarks.rig.seeds import as_seeds


def _cases(_ctx: click.Context, _option: click.Parameter, text: str) -> tuple[Case, ...]:
    try:
        return tuple(find_case(name) for name in text.split(","))
    except KeyError as error:
        raise click.BadParameter(str(error.args[0])) from error


def _check_sides(cases: tuple[Case, ...], sides: tuple[str, ...]) -> None:
    known = {side.name for case in cases for side in case.sides}
    if unknown := [name for name in sides if name not in known]:
        raise click.BadParameter(
            f"no side {unknown[0]!r}; there are {', '.join(sorted(known))}", param_hint="--sides"
        )


def tell(run: Run) -> None:
    """One line a run, as it ends."""
    if run.steps_to_target is None or run.seconds_to_target is None:
        best = "no mean" if run.best_mean is None else f"best mean {run.best_mean:.1f}"
        end = f"not within {run.facts['steps']:,.0f} steps, {run.facts['seconds']:.1f} s ({best})"
    else:
        end = f"{run.steps_to_target:,} steps, {run.seconds_to_target:.1f} s"
    click.echo(f"{run.case:18} {run.side:16} seed {run.seed:<3} to {run.target:g}: {end}")


def _threads(campaign: Campaign) -> dict[str, ThreadChoice]:
    """What was measured, or chosen before."""
    return {
        case.name: choose_threads(case, side, budget=campaign.budget(case), folder=campaign.folder)
        for case in campaign.cases
        for side in campaign.chosen(case)
        if isinstance(side, Reference)
    }


@click.command()
@click.option(
    "--cases",
    default=",".join(case.name for case in CASES),
    callback=_cases,
    help="Names, separated by commas. Default: all.",
)
@click.option("--sides", default="", help="Names, separated by commas. Default: all.")
@click.option("--seeds", default="1,2,3,4,5", show_default=True, callback=as_seeds)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=ROOT / "runs" / "learning",
    help="Keeps every run.  [default: runs/learning]",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=ROOT / "docs" / "benchmarks",
    help="Where the report goes.  [default: docs/benchmarks]",
)
@click.option("--resume", is_flag=True, help="Do not repeat what is kept with the same settings.")
@click.option("--max-steps", type=click.IntRange(1), help="Upper limit of every budget.")
def main(
    cases: tuple[Case, ...],
    sides: str,
    seeds: tuple[int, ...],
    out: Path,
    results: Path,
    resume: bool,
    max_steps: int | None,
) -> None:
    """Compare learning, ours and Stable-Baselines3's, on this machine."""
    # Otherwise a broker and a worker would outlive a campaign that is stopped so.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = tuple(filter(None, sides.split(",")))
    _check_sides(cases, chosen)
    campaign = Campaign(
        cases=cases,
        sides=chosen,
        seeds=seeds,
        folder=out.resolve(),
        resume=resume,
        max_steps=max_steps,
    )
    runs: list[Run] = []
    for run in campaign.runs():
        runs.append(run)
        tell(run)
    summaries = [summarise(case, [r for r in runs if r.case == case.name]) for case in cases]
    write_report(results, summaries, _threads(campaign))
    for summary in summaries:
        click.echo("\n".join(["", summary.title, *table_lines(summary)]))
    click.echo(f"\nwritten to {results}/learning.json, learning.md and learning_*.png")


if __name__ == "__main__":
    main()
