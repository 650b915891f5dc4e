"""When a run counts as learned, and which kept runs stand for it."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.learning.campaign import Campaign, order_of_runs
from benchmarks.learning.cases import CASES, Case, Reference, Streams
from benchmarks.learning.messages import Episode
from benchmarks.learning.record import Curve, EpisodeLog, Run, make_run, read_run, write_run
from benchmarks.learning.streams import merge_episodes
from benchmarks.learning.summary import summarise

SB3 = Reference(algorithm="PPO", parameters={"n_steps": 32})
OURS = Streams(definition={"algorithm": "PPO", "algorithm_parameters": {}})
CASE = Case(
    name="toy",
    title="Toy",
    environment="CartPole-v1",
    target=10.0,
    window=3,
    budget=1000,
    sides=(SB3, OURS),
)


def curve(*returns: float) -> Curve:
    """Episodes of ten steps and one second each."""
    numbers = range(1, len(returns) + 1)
    return Curve(
        steps=[10 * n for n in numbers], seconds=[float(n) for n in numbers], returns=list(returns)
    )


def run(*returns: float, side: Reference | Streams = SB3, seed: int = 1) -> Run:
    """A run of `CASE` with these episodes."""
    facts = {"steps": 10.0 * len(returns), "seconds": float(len(returns))}
    return make_run(
        CASE,
        side,
        seed=seed,
        budget=CASE.budget,
        threads=1,
        load_before=0.0,
        facts=facts,
        curve=curve(*returns),
    )


def test_a_run_has_learned_at_the_first_full_window_at_the_target() -> None:
    """Not before there are as many episodes, and not again when the mean has fallen since."""
    found = run(30.0, 0.0, 0.0, 30.0, 0.0, 0.0)
    assert (found.steps_to_target, found.seconds_to_target) == (30, 3.0)
    assert run(30.0, 30.0).steps_to_target is None
    never = run(0.0, 9.0, 9.0, 9.0)
    assert (never.steps_to_target, never.best_mean) == (None, 9.0)


def test_who_watches_a_run_stops_it_where_its_record_says_learned() -> None:
    """The log decides while it runs, the record afterwards; they must agree."""
    returns = (12.0, 0.0, 17.0, 1.0, 13.0, 0.0)
    log = EpisodeLog(target=CASE.target, window=CASE.window)
    reached = [log.add(steps=10 * n, seconds=n, total=r) for n, r in enumerate(returns, 1)]
    assert reached == [False, False, False, False, True, True]
    assert run(*returns).steps_to_target == 50


def test_steps_of_several_applications_are_counted_together() -> None:
    """One is 30 steps on when the other's episode ends: its steps come evenly in between."""
    first = [Episode(at=101.0, steps=20, total=3.0), Episode(at=103.0, steps=40, total=1.0)]
    second = [Episode(at=102.0, steps=5, total=2.0)]
    merged = merge_episodes([first, second], 100.0)
    assert merged.returns == [3.0, 2.0, 1.0]
    assert merged.seconds == [1.0, 2.0, 3.0]
    assert merged.steps == [22, 35, 45]


def test_a_median_over_seeds_counts_failures_as_longest() -> None:
    """Two of three that learned give the slower one's steps; one of three gives none."""
    fast, slow, never = (10.0,) * 3, (0.0, 10.0, 10.0, 10.0), (0.0,) * 9
    (side,) = summarise(CASE, [run(*r, seed=s) for s, r in enumerate((never, slow, fast))]).sides
    assert (side.reached, side.steps, side.seconds) == (2, 40.0, 4.0)
    (side,) = summarise(CASE, [run(*r, seed=s) for s, r in enumerate((never, never, fast))]).sides
    assert (side.reached, side.steps) == (1, None)


def test_what_is_kept_of_a_long_curve_is_short_and_ends_where_it_ends() -> None:
    """Documents hold the thinned means."""
    (side,) = summarise(CASE, [run(*(float(n) for n in range(1000)))]).sides
    kept = side.seeds[0].curve
    assert len(kept.steps) <= 102
    assert kept.steps[-1] == 10_000
    assert kept.returns[0] == 0.0
    assert kept.returns[-1] == pytest.approx(998.0)


def test_a_kept_run_counts_for_the_same_settings_alone(tmp_path: Path) -> None:
    """Resuming a campaign after a change of settings must not mix two experiments."""
    campaign = Campaign(cases=(CASE,), sides=(), seeds=(1,), folder=tmp_path, resume=True)
    assert campaign.kept(CASE, SB3, 1) is None
    write_run(campaign.path(CASE, SB3, 1), run(1.0, 2.0, 3.0))
    assert campaign.kept(CASE, SB3, 1) == read_run(campaign.path(CASE, SB3, 1))
    assert campaign.kept(CASE, SB3, 2) is None
    changed = replace(SB3, parameters={"n_steps": 64})
    assert campaign.kept(CASE, changed, 1) is None
    assert replace(campaign, max_steps=10).kept(CASE, SB3, 1) is None


def test_a_campaign_that_is_complete_runs_nothing(tmp_path: Path) -> None:
    """All of its runs are kept: it gives them back, without a process."""
    campaign = Campaign(cases=(CASE,), sides=("sb3",), seeds=(1, 2), folder=tmp_path, resume=True)
    kept = [run(1.0, 2.0, 3.0, seed=seed) for seed in (1, 2)]
    for one in kept:
        write_run(campaign.path(CASE, SB3, one.seed), one)
    assert list(campaign.runs()) == kept


def test_sides_take_turns_at_beginning() -> None:
    """A machine that slows down in the course of a campaign must not favour one of them."""
    order = [
        (side.name, seed) for _, side, seed in order_of_runs([CASE], lambda c: c.sides, [4, 5])
    ]
    assert order == [("sb3", 4), ("ours", 4), ("ours", 5), ("sb3", 5)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_sides_of_a_case_have_names_of_their_own(case: Case) -> None:
    """Files are named by them."""
    names = [side.name for side in case.sides]
    assert len(set(names)) == len(names)
