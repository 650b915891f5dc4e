"""The clock that everything is given."""

import threading

from rl4sys_stream.clock import SystemClock

CLOCK = SystemClock()


def test_monotonic_time_does_not_go_back():
    """Durations are never negative."""
    times = [CLOCK.monotonic() for _ in range(100)]
    assert times == sorted(times)


def test_wall_time_is_milliseconds_of_this_century():
    """A stamp in seconds or microseconds would be off by a factor of 1000."""
    assert 1_600_000_000_000 < CLOCK.wall_ms() < 4_000_000_000_000


def test_a_wait_ends_with_the_event_or_the_timeout():
    """And says which."""
    event = threading.Event()
    assert not CLOCK.wait(event, 0.001)
    event.set()
    begun = CLOCK.monotonic()
    assert CLOCK.wait(event, 60)
    assert CLOCK.monotonic() - begun < 30
