"""The demand: from counts to rates, and what of it may be used for what."""

import io

import numpy as np
import pytest

from examples.autoscale.demand import (
    DAY_STEPS,
    HISTORY,
    STEPS_PER_COUNT,
    WEEK_STEPS,
    Span,
    _departures,
    flight_demand,
    make_demand,
)
from rl4sys_stream.errors import ConfigError

COUNTS = np.tile([0.0, 10.0, 20.0, 10.0], 500)


def test_rates_go_through_the_counts_and_straight_between_them():
    """The 99.5th percentile is the peak."""
    rates = make_demand(COUNTS, peak_rate=200.0).rates
    assert len(rates) == len(COUNTS) * STEPS_PER_COUNT
    assert np.percentile(rates, 99.5) == pytest.approx(200.0)
    at_counts = rates[::STEPS_PER_COUNT]
    assert at_counts[:4] == pytest.approx([0.0, 100.0, 200.0, 100.0])
    assert rates[STEPS_PER_COUNT // 2] == pytest.approx(50.0)


def test_what_is_held_out_is_neither_trained_on_nor_validated_on():
    """The spans follow each other, and the last 40 % are held out."""
    demand = make_demand(COUNTS)
    assert demand.training.end == demand.validation.start
    assert demand.validation.end == demand.held_out.start == demand.known.end
    assert demand.held_out.end == len(demand.rates)
    assert demand.held_out.start == pytest.approx(0.6 * len(demand.rates), abs=1)


def test_windows_lie_inside_with_their_history():
    """A controller sees the steps before the first one, and they are not another span's."""
    span = Span(1000, 1000 + HISTORY + 2 * DAY_STEPS + 5)
    windows = span.windows(DAY_STEPS)
    assert [window.start for window in windows] == [1012, 1012 + DAY_STEPS]
    assert all(window.end - window.start == DAY_STEPS for window in windows)


def test_a_varied_demand_differs_in_its_span_alone():
    """By chance, a little, and never below nothing; the one that it came from stays."""
    demand = make_demand(COUNTS + 5.0)
    before = demand.rates.copy()
    span = Span(1000, 1000 + DAY_STEPS)
    varied = demand.varied(span, np.random.default_rng(1)).rates
    assert np.array_equal(demand.rates, before)
    changed = np.flatnonzero(varied != before)
    assert (changed[0], changed[-1]) == (1000 - HISTORY, 1000 + DAY_STEPS - 1)
    ratios = np.log(varied[changed] / before[changed])
    assert 0.05 < ratios.std() < 0.2
    assert abs(ratios.mean()) < 0.3


@pytest.mark.parametrize(
    ("counts", "word"),
    [
        (np.ones(10), "week"),
        (np.ones((400, 2)), "week"),
        (np.full(400, -1.0), "negative"),
        (np.full(400, np.nan), "finite"),
        (np.zeros(400), "nothing"),
    ],
)
def test_counts_that_are_no_demand_are_refused(counts, word):
    """Before anything is trained on them."""
    with pytest.raises(ConfigError, match=word):
        make_demand(counts)


def test_departures_are_counted_by_their_half_hour():
    """By the header's names, wherever the columns stand."""
    table = b"day,month,x,sched_dep_time\n1,1,NA,5\n1,1,0,29\n1,1,0,2359\n31,12,NA,1730\n"
    counts = _departures(io.BytesIO(table))
    assert len(counts) == 365 * 48
    assert {int(slot): int(counts[slot]) for slot in np.flatnonzero(counts)} == {
        0: 2,
        47: 1,
        364 * 48 + 35: 1,
    }


@pytest.mark.parametrize(
    "table", [b"year,month\n2013,1\n", b"month,day,sched_dep_time\n1,1,noon\n", b"<html>"]
)
def test_a_table_that_is_none_is_refused_by_name(table):
    """A broken download says so."""
    with pytest.raises(ConfigError, match="table of flights"):
        _departures(io.BytesIO(table))


def test_the_flights_of_2013_make_a_year_with_nights_and_weeks():
    """336,776 departures; nobody leaves at three in the morning."""
    demand = flight_demand()
    assert len(demand.rates) == 365 * DAY_STEPS
    days = demand.rates.reshape(365, DAY_STEPS)
    assert days[:, 3 * 12].max() < 5.0
    assert days[:, 8 * 12].mean() > 150.0
    assert len(demand.held_out.windows(WEEK_STEPS)) == 20
