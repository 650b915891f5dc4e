"""The tables of benchmarks.batch_sched say nothing of what was not measured."""

from pathlib import Path

import msgspec

from benchmarks.batch_sched import by_fold, by_rule, by_run
from examples.batch_sched.report import Means, Point, Run, read_runs, write_runs

RULES = {"FCFS": 100.0, "SJF": 50.0, "SAF": 40.0, "SAF-LIFO": 20.0}


def run(*, fold: int, seed: int = 1, prior: bool = False, agent: float = 10.0) -> Run:
    """A training whose agent reached `agent` where the rules reached `RULES`."""
    held_out = {name: Means(value, value) for name, value in {**RULES, "agent": agent}.items()}
    return Run(
        trace="some.swf",
        seed=seed,
        fold=fold,
        prior=prior,
        decisions=100,
        windows_played=2,
        wall_s=9.0,
        best_version=1,
        validation_windows=5,
        held_out_windows=5,
        held_out=held_out,
        validation={},
        curve=(Point(0, 1, 7.0), Point(100, 2, 8.0)),
    )


def test_a_seed_counts_for_the_whole_trace_once_all_thirds_are_judged() -> None:
    """A geometric mean of the thirds that happen to be there would be of another trace."""
    runs = [*(run(fold=fold, agent=10.0 * 2**fold) for fold in range(3)), run(fold=2, seed=2)]
    assert "| **agent, from nothing** | 10.0 | 20.0 | 20.0 | 20.0 |" in by_rule(runs)
    assert "| **from nothing, whole trace** | **0.20** (0.20) |" in by_fold(runs)


def test_without_a_third_there_is_no_whole_trace() -> None:
    """Neither of agents nor of rules."""
    runs = [run(fold=0), run(fold=1)]
    assert "| SJF | 50.0 | 50.0 | – |" in by_rule(runs)
    assert "| **agent, with the prior** | – | – | – |" in by_rule(runs)
    assert "whole trace" not in by_fold(runs)


def test_shares_are_of_the_median_seed_and_of_each() -> None:
    """Three seeds, of which the middle one is what a table is read for."""
    runs = [run(fold=1, seed=seed, agent=agent) for seed, agent in ((1, 30), (2, 10), (3, 20))]
    assert "| from nothing, third 1 (5 windows) | **0.20** (0.30, 0.10, 0.20) |" in by_fold(runs)


def test_a_training_whose_processor_time_nobody_asked_for_has_none(tmp_path: Path) -> None:
    """Runs of the demo have none, and their files are read like those of the benchmark."""
    asked = msgspec.structs.replace(run(fold=0), cpu_s=130.4)
    write_runs(tmp_path / "runs.json", [run(fold=0), asked])
    table = by_run(read_runs(tmp_path / "runs.json"))
    assert "| 1 of 2 | 7.0 | 10.0 | 0.50 |  | 9 |" in table
    assert "| 1 of 2 | 7.0 | 10.0 | 0.50 | 130 | 9 |" in table
