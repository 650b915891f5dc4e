"""Ten questions with gaps, about the flights that left New York in 2013.

Joins of two to four tables, joins of a table with itself, EXISTS, and ORDER BY … LIMIT: carriers,
destinations and distances are correlated, which the planner's statistics do not know.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["TEMPLATES", "Query", "Template"]


@dataclass(frozen=True, slots=True)
class Query:
    """One question to the database.

    Attributes:
        template: Where it is from.
        sql: One statement, without a semicolon.
    """

    template: str
    sql: str


@dataclass(frozen=True, slots=True)
class Template:
    """A question with gaps.

    Attributes:
        name: What it asks for.
        text: SQL with a `{name}` for each gap.
        values: What may fill each gap.
    """

    name: str
    text: str
    values: Mapping[str, tuple[object, ...]]

    def draw(self, rng: random.Random) -> Query:
        """Fill each gap with one of its values, uniformly."""
        chosen = {name: rng.choice(values) for name, values in self.values.items()}
        return Query(self.name, self.text.format_map(chosen))


_CARRIERS: Final = (
    *("UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E"),
    *("WN", "VX", "FL", "AS", "F9", "YV", "HA", "OO"),
)
_BUSY: Final = ("ATL", "ORD", "LAX", "BOS", "MCO", "CLT", "SFO", "FLL", "MIA", "DCA", "DEN", "IAH")
_QUIET: Final = ("SEA", "HNL", "ANC", "LEX", "SBN", "MTJ", "EYW", "HDN", "BUR", "LGB")
_DESTINATIONS: Final = _BUSY + _QUIET
_ORIGINS: Final = ("EWR", "JFK", "LGA")
_MAKERS: Final = (
    *("BOEING", "EMBRAER", "AIRBUS", "AIRBUS INDUSTRIE", "BOMBARDIER INC"),
    *("MCDONNELL DOUGLAS", "CESSNA", "CANADAIR", "PIPER"),
)
_MONTHS: Final = tuple(range(1, 13))
_DAYS: Final = tuple(range(1, 29))
_DELAYS: Final = (0, 30, 60, 120, 240)
_RAIN: Final = (0, 0.05, 0.2, 0.5)

TEMPLATES: Final = (
    Template(
        "farthest_late_flights",
        # The planner walks the index on distance, in the hope to meet k matches soon. Carrier,
        # destination and distance are correlated, which it does not know: it may walk all of it.
        "SELECT * FROM flights WHERE carrier = '{carrier}' AND dest = '{dest}' "
        "AND dep_delay > {delay} ORDER BY distance DESC, dep_delay LIMIT {limit}",
        {"carrier": _CARRIERS, "dest": _DESTINATIONS, "delay": (0, 15, 30, 60), "limit": (5, 20)},
    ),
    Template(
        "delays_in_rain",
        "SELECT count(*), avg(f.arr_delay) FROM flights f "
        "JOIN weather w ON w.origin = f.origin AND w.time_hour = f.time_hour "
        "JOIN planes p ON p.tailnum = f.tailnum "
        "WHERE f.carrier = '{carrier}' AND f.dest = '{dest}' AND f.origin = '{origin}' "
        "AND w.precip > {rain} AND p.manufacturer = '{maker}'",
        {
            "carrier": _CARRIERS,
            "dest": _DESTINATIONS,
            "origin": _ORIGINS,
            "rain": _RAIN,
            "maker": _MAKERS,
        },
    ),
    Template(
        "delay_carried_on",
        "SELECT count(*) FROM flights f JOIN flights g ON g.tailnum = f.tailnum "
        "AND g.month = f.month AND g.day = f.day AND g.sched_dep_time > f.sched_dep_time "
        "WHERE f.carrier = '{carrier}' AND f.dest = '{dest}' "
        "AND f.dep_delay > {delay} AND g.dep_delay > {delay}",
        {"carrier": _CARRIERS, "dest": _DESTINATIONS, "delay": _DELAYS},
    ),
    Template(
        "makers_across_time_zones",
        "SELECT p.manufacturer, count(*) FROM flights f JOIN planes p ON p.tailnum = f.tailnum "
        "JOIN airports a ON a.faa = f.dest WHERE a.tz = {zone} AND f.distance > {miles} "
        "AND f.dep_delay > {delay} AND f.carrier = '{carrier}' GROUP BY p.manufacturer",
        {
            "zone": (-5, -6, -7, -8, -10),
            "miles": (200, 1000, 2000, 2400, 4000),
            "delay": _DELAYS,
            "carrier": _CARRIERS,
        },
    ),
    Template(
        "one_windy_day",
        "SELECT count(*) FROM weather w JOIN flights f ON f.origin = w.origin "
        "AND f.time_hour = w.time_hour WHERE w.month = {month} AND w.day = {day} "
        "AND w.wind_speed > {wind} AND f.month = {month} AND f.day = {day} "
        "AND f.carrier = '{carrier}'",
        {"month": _MONTHS, "day": _DAYS, "wind": (5, 15, 25), "carrier": _CARRIERS},
    ),
    Template(
        "longest_flight",
        # The same trap without LIMIT: for max() the planner walks the index until the first match.
        "SELECT max(distance) FROM flights "
        "WHERE carrier = '{carrier}' AND dest = '{dest}' AND dep_delay > {delay}",
        {"carrier": _CARRIERS, "dest": _DESTINATIONS, "delay": (0, 30, 60)},
    ),
    Template(
        "small_planes_of_an_airline",
        "SELECT a.name, count(*) FROM planes p JOIN flights f ON f.tailnum = p.tailnum "
        "JOIN airports a ON a.faa = f.dest JOIN airlines l ON l.carrier = f.carrier "
        "WHERE p.manufacturer = '{maker}' AND p.seats < {seats} AND f.origin = '{origin}' "
        "AND f.month = {month} AND l.name LIKE '%{name}%' "
        "GROUP BY a.name ORDER BY count(*) DESC LIMIT 10",
        {
            "maker": _MAKERS,
            "seats": (10, 60, 150, 300),
            "origin": _ORIGINS,
            "month": _MONTHS,
            "name": ("Jet", "Air", "Delta", "Southwest", "Hawaiian"),
        },
    ),
    Template(
        "flights_out_of_fog",
        "SELECT count(*) FROM flights f WHERE f.origin = '{origin}' AND EXISTS "
        "(SELECT 1 FROM weather w WHERE w.origin = f.origin AND w.time_hour = f.time_hour "
        "AND w.precip > {rain} AND w.visib < {sight}) "
        "AND f.carrier = '{carrier}' AND f.dest = '{dest}'",
        {
            "origin": _ORIGINS,
            "rain": _RAIN,
            "sight": (1, 3, 8),
            "carrier": _CARRIERS,
            "dest": _DESTINATIONS,
        },
    ),
    Template(
        "where_old_planes_go",
        "SELECT f.dest, max(g.dep_delay) FROM planes p JOIN flights f ON f.tailnum = p.tailnum "
        "JOIN flights g ON g.tailnum = p.tailnum WHERE p.manufacturer = '{maker}' "
        "AND p.year < {year} AND f.carrier = '{carrier}' AND f.month = {month} "
        "AND g.month = {month} AND g.dest = '{dest}' GROUP BY f.dest",
        {
            "maker": _MAKERS,
            "year": (1970, 1985, 1995, 2005),
            "carrier": _CARRIERS,
            "month": _MONTHS,
            "dest": _DESTINATIONS,
        },
    ),
    Template(
        "cold_mountain_airports",
        "SELECT count(*) FROM flights f JOIN airports a ON a.faa = f.dest "
        "JOIN weather w ON w.origin = f.origin AND w.time_hour = f.time_hour "
        "WHERE a.lat > {latitude} AND a.alt > {feet} AND w.temp < {fahrenheit} "
        "AND f.dest = '{dest}' AND f.distance > {miles}",
        {
            "latitude": (20, 35, 45, 60),
            "feet": (0, 1000, 5000, 6500),
            "fahrenheit": (20, 30, 50),
            "dest": _DESTINATIONS,
            "miles": (500, 1500, 2000),
        },
    ),
)
