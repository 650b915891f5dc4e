"""What a controller sees, may do, and is paid; the same for twins and live pools."""

from collections.abc import Iterable

import numpy as np
import pytest

from examples.autoscale.control import (
    ACTION_SPACE,
    BOOT_STEPS,
    CHANGES,
    MAX_REPLICAS,
    MIN_REPLICAS,
    OBSERVATION_SPACE,
    ControlLoop,
    Reading,
    View,
)
from examples.autoscale.demand import DAY_STEPS, HISTORY, WEEK_STEPS, Demand, Span
from examples.autoscale.twin import Twin

RATES = 100.0 + 50.0 * np.sin(np.arange(3 * WEEK_STEPS) / DAY_STEPS * 2 * np.pi)
DEMAND = Demand(RATES)


class ScriptedPool:
    """A pool whose readings were written down before."""

    running = 10
    booting = (1, 0, 2)

    def __init__(self, readings: Iterable[Reading]) -> None:
        self.readings = list(readings)
        self.targets: list[int] = []

    def begin(self, replicas: int) -> None:
        """See `Pool.begin`."""

    def scale(self, target: int) -> None:
        """See `Pool.scale`."""
        self.targets.append(target)

    def serve(self, rate: float) -> Reading:
        """See `Pool.serve`."""
        return self.readings.pop(0)


def view(
    running: int = 10,
    booting: tuple[int, ...] = (0, 0, 0),
    waiting: int = 0,
    moment: int = 0,
    rates: tuple[float, ...] = (50.0,) * HISTORY,
) -> View:
    """A view of a quiet pool, with some things changed."""
    return View(moment, running, booting, waiting, 0.5, rates)


def test_an_observation_fits_its_space_and_says_what_it_should():
    """Each number stands where the docstring says."""
    rates = tuple(float(rate) for rate in range(10, 10 + HISTORY))
    seen = view(17, (8, 0, 4), 34, DAY_STEPS // 4, rates).observation()
    assert seen.dtype == np.float32
    assert seen.shape == OBSERVATION_SPACE.shape
    mean, recent = np.mean(rates), np.mean(rates[-3:])
    expected = [1.0, 1.0, 0.0, 0.5, 2.0, 0.5, 1.0, 0.0, 0.0, -1.0]
    assert seen[:10] == pytest.approx(expected, abs=1e-6)
    assert seen[12:] == pytest.approx(
        [
            mean / 170,
            recent / 170,
            np.mean(rates[-6:]) / 170,
            *((rate - mean) / 170 for rate in rates[:-4:-1]),
            recent / 170,
        ],
        abs=1e-6,
    )


def test_a_long_queue_is_shown_as_four_a_replica():
    """A network needs no difference between bad and worse."""
    assert view(2, waiting=1000).observation()[4] == 4.0


@pytest.mark.parametrize("replicas", range(MIN_REPLICAS, MAX_REPLICAS + 1))
def test_exactly_the_changes_within_the_bounds_are_allowed(replicas):
    """And whatever is allowed leads to its target."""
    seen = view(replicas - 1, (0, 1, 0))
    allowed = seen.mask()
    assert allowed.shape == (ACTION_SPACE.n,)
    for action, change in enumerate(CHANGES):
        inside = MIN_REPLICAS <= replicas + change <= MAX_REPLICAS
        assert bool(allowed[action]) is inside
        assert seen.target(action) == replicas + change


def test_a_pool_that_lost_its_replicas_may_still_do_something():
    """A mask that forbids everything would be refused by the agent."""
    assert view(1).mask().tolist() == [False] * 4 + [True] * 5
    assert np.isfinite(view(0, waiting=9).observation()).all()


def test_a_step_costs_what_is_paid_for_and_the_share_that_is_late():
    """13 replicas run or boot, and 5 of 50 requests were late."""
    pool = ScriptedPool([Reading(60, 50, 5, 7, 4.0), Reading(0, 0, 0, 0, 0.0)])
    loop = ControlLoop(pool, DEMAND)
    loop.begin(Span(HISTORY, HISTORY + 2))
    outcome = loop.step(12)
    assert pool.targets == [12]
    assert outcome.replicas == 13
    assert outcome.reward == pytest.approx(-13 / 17 - 20 * 0.1)
    assert loop.view.waiting == 7
    assert loop.view.rates[-1] == 120.0
    assert loop.view.load == pytest.approx(4.0 / (0.5 * 10))
    assert loop.step(12).reward == pytest.approx(-13 / 17)  # nobody came, nobody was late
    assert loop.over


def test_targets_beyond_the_bounds_are_cut_off():
    """A baseline may want what it likes."""
    pool = ScriptedPool([Reading(1, 1, 0, 0, 0.1)] * 2)
    loop = ControlLoop(pool, DEMAND)
    loop.begin(Span(HISTORY, HISTORY + 2))
    loop.step(-3)
    loop.step(1000)
    assert pool.targets == [MIN_REPLICAS, MAX_REPLICAS]


def test_an_episode_begins_with_replicas_for_the_moment_and_its_history():
    """Nobody has to begin by repairing what an earlier controller left."""
    loop = ControlLoop(Twin(1), DEMAND)
    begin = DAY_STEPS // 4
    loop.begin(Span(begin, begin + 10))
    assert loop.view.rates == tuple(RATES[begin - HISTORY : begin])
    assert loop.view.running == np.ceil(150.0 / 10.0 / 0.7)
    assert loop.view.booting == (0,) * BOOT_STEPS
    for _ in range(10):
        assert not loop.over
        loop.step(20)
    assert loop.over
