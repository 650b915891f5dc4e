"""Log lines: events with fields, conditions once a change, never a password."""

import logging

import pytest

from rl4sys_stream.telemetry import StateLog, configure_logging, log_event, redact_url

LOGGER = logging.getLogger("rl4sys_stream.test")


@pytest.fixture
def lines(caplog):
    """What was logged so far."""
    caplog.set_level(logging.DEBUG, logger="rl4sys_stream.test")
    return lambda: [record.getMessage() for record in caplog.records]


def test_an_event_is_its_name_and_its_fields(lines):
    """Values with spaces, and empty ones, are quoted."""
    log_event(LOGGER, logging.INFO, "worker.committed", client="c", version=3)
    log_event(LOGGER, logging.INFO, "worker.stopped")
    log_event(LOGGER, logging.INFO, "worker.failed", why="out of luck", what="")
    log_event(LOGGER, logging.INFO, "odd", percent="100%s")
    assert lines() == [
        "worker.committed client=c version=3",
        "worker.stopped",
        'worker.failed why="out of luck" what=""',
        "odd percent=100%s",
    ]


def test_an_event_below_the_level_is_not_formatted(caplog):
    """A field that is costly to print costs nothing then."""

    class Costly:
        def __str__(self) -> str:
            raise AssertionError

    caplog.set_level(logging.WARNING, logger="rl4sys_stream.test")
    log_event(LOGGER, logging.INFO, "event", field=Costly())
    assert caplog.records == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:s3cr3t@host", "redis://:***@host"),
        ("redis://u:p@s3cr3t@host", "redis://u:***@host"),
        ("redis://user:s3cr3t@host:1/2", "redis://user:***@host:1/2"),
        ("at rediss://user:s3cr3t@host, then", "at rediss://user:***@host, then"),
        ("redis://host:6379/0?password=s3cr3t&x=1", "redis://host:6379/0?password=***&x=1"),
        ("unix:///run/x.sock?db=1&PASSWORD=s3cr3t", "unix:///run/x.sock?db=1&PASSWORD=***"),
        ("redis://a:s3cr3t@h redis://b:s3cr3t@i", "redis://a:***@h redis://b:***@i"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("write to a@b.org: 10:30", "write to a@b.org: 10:30"),
    ],
)
def test_the_password_of_every_url_in_a_text_is_replaced(text, shown, lines):
    """And nothing else; in log fields, too."""
    assert redact_url(text) == shown
    log_event(LOGGER, logging.INFO, "event", field=text)
    assert "s3cr3t" not in lines()[-1]


def test_a_condition_is_logged_when_it_changes(lines):
    """With how often the state before was seen, named so that it is not taken for the new one's."""
    log = StateLog(LOGGER, client="c")
    assert log.get("broker") == ""
    assert log.set("broker", "down", error="x")
    assert not any(log.set("broker", "down", error=n) for n in range(3))
    assert log.set("lease", "held", level=logging.INFO)
    assert log.set("broker", "up")
    assert log.set("broker", "down")
    assert log.get("broker") == "down"
    assert lines() == [
        "broker.down client=c error=x",
        "lease.held client=c",
        "broker.up client=c before=down before_times=4",
        "broker.down client=c",
    ]


def test_commands_log_to_standard_error_and_the_library_nowhere(capsys):
    """Twice configured is once logged."""
    root = logging.getLogger("rl4sys_stream")
    before = root.handlers[:], root.level, root.propagate
    try:
        configure_logging()
        configure_logging(debug=True)
        assert [type(handler) for handler in root.handlers] == [logging.StreamHandler]
        log_event(logging.getLogger("rl4sys_stream.x"), logging.DEBUG, "seen", n=1)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("DEBUG rl4sys_stream.x seen n=1") == 1
    finally:
        root.handlers[:], root.level, root.propagate = before
