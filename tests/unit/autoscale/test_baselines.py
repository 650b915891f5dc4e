"""The baselines do what their documentation says, and their settings are the tuned ones."""

import numpy as np
import pytest

from examples.autoscale.baselines import HPA, KEDA, WeeklyPredictive, WithFloor
from examples.autoscale.control import View
from examples.autoscale.demand import HISTORY, WEEK_STEPS, make_demand
from examples.autoscale.evaluation import baselines, compare, floored, score
from examples.autoscale.tuning import candidates


def view(rate: float, running: int = 10, waiting: int = 0, moment: int = 0) -> View:
    """A pool under a constant load."""
    return View(moment, running, (0, 0, 0), waiting, 0.5, (rate,) * HISTORY)


def test_the_hpa_multiplies_by_utilisation_over_target():
    """Of 10 replicas at 90 % with target 60 % become 15."""
    assert HPA(target=0.6, window=1)(view(90.0)) == 15


@pytest.mark.parametrize("rate", [55.0, 60.0, 65.0])
def test_the_hpa_leaves_alone_what_is_within_a_tenth(rate):
    """The tolerance of Kubernetes' default."""
    assert HPA(target=0.6, window=1)(view(rate)) == 10


def test_the_hpa_scales_up_at_once_and_down_when_the_window_agrees():
    """The largest recommendation of the window counts."""
    hpa = HPA(target=0.5, window=3)
    assert hpa(view(100.0)) == 20
    assert [hpa(view(10.0)) for _ in range(4)] == [20, 20, 20, 2]


def test_keda_takes_the_larger_of_queue_and_load():
    """Two triggers."""
    assert KEDA(queue=0.5, target=0.5, window=1)(view(50.0)) == 10
    assert KEDA(queue=0.5, target=0.5, window=1)(view(50.0, waiting=12)) == 24


def test_the_predictive_controller_orders_for_what_came_a_week_ago():
    """Four steps ahead: what is ordered now serves from the third step on."""
    rates = np.full(2 * WEEK_STEPS, 40.0)
    moment = WEEK_STEPS + 500
    rates[moment - WEEK_STEPS + 4] = 130.0
    assert WeeklyPredictive(rates, target=0.7)(view(40.0, moment=moment)) == 19
    assert WeeklyPredictive(rates, target=0.7)(view(40.0, moment=moment - 3)) == 6
    # Busier than a week ago, by half: at most a fifth of it is believed.
    assert WeeklyPredictive(rates, target=0.7)(view(60.0, moment=moment)) == 23
    # Without a week before, what is now is all that is known.
    assert WeeklyPredictive(rates, target=0.7)(view(40.0, moment=500)) == 6


def test_a_floor_holds_what_a_controller_wants_less_of():
    """And changes nothing above it."""
    held = WithFloor(HPA(target=0.5, window=1), 6)
    assert [held(view(rate)) for rate in (100.0, 1.0, 1.0)] == [20, 20, 6]


def test_the_hpa_may_look_at_the_newest_rate_alone():
    """An average is late by half its length."""
    rising = View(0, 10, (0, 0, 0), 0, 0.5, (30.0,) * (HISTORY - 1) + (90.0,))
    assert HPA(target=0.6, window=1, rate_steps=1)(rising) == 15
    assert HPA(target=0.6, window=1)(rising) == 8


def test_the_settings_in_use_are_among_those_that_were_tuned():
    """Tuning and use name the same controllers."""
    demand = make_demand(np.tile([5.0, 30.0, 60.0, 30.0], 300))
    tuned = candidates(demand)
    used = {**baselines(demand), **floored(demand)}
    assert tuned.keys() == used.keys()
    spans = [demand.known.windows(100)[0]]
    for name, make in used.items():
        (mine,) = compare({"mine": make}, demand, spans, 1)
        known = [found.objective for found in compare(tuned[name], demand, spans, 1)]
        assert mine.objective in known


def test_a_score_weighs_lateness_by_requests_and_cost_by_steps():
    """What the tables show is what happened."""
    demand = make_demand(np.tile([5.0, 30.0, 60.0, 30.0], 300))
    spans = demand.known.windows(50)[:2]
    (found,) = compare({"two": lambda: lambda _: 2}, demand, spans, 1)
    assert found.steps == 100
    assert found.late > 0.5
    assert found.replicas < 5.0
    assert found.name == "two"
    with pytest.raises(ZeroDivisionError):
        score("nothing", [])
