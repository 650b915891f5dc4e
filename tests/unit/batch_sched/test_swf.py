"""Traces: what is read of a job, and which files are refused, by which line."""

import numpy as np
import pytest

from examples.batch_sched.swf import TraceError, read_swf
from tests.unit.batch_sched.traces import busy_trace, trace_of, write_swf

HEADER = "; Version: 2.2\n;\n; MaxRecords: 2\n"
FIRST = "1 100 5 60 4 -1 -1 4 3600 -1 1 7 1 1 1 -1 -1 -1\n"
SECOND = "2 40 5 60 4 -1 -1 8 30 -1 1 9 1 1 2 -1 -1 -1\n"


@pytest.fixture
def file(tmp_path):
    """A function that writes a trace's text and returns the path."""

    def write(text):
        path = tmp_path / "cluster.swf"
        path.write_text(text)
        return path

    return write


def test_jobs_come_in_order_of_submission_counted_from_the_first(file):
    """Archives hold some that are not in order."""
    trace = read_swf(file(HEADER + FIRST + SECOND))
    assert trace.submit_s.tolist() == [0.0, 60.0]
    assert trace.users.tolist() == [9, 7]
    assert trace.processors.tolist() == [8, 4]


def test_a_job_that_ran_beyond_its_request_ends_with_it(file):
    """A reservation counts on it."""
    trace = read_swf(file(HEADER + FIRST + SECOND))
    assert trace.run_s.tolist() == [30.0, 60.0]
    assert trace.request_s.tolist() == [30.0, 3600.0]


def test_what_a_trace_does_not_know_is_taken_from_what_it_does(file):
    """-1 stands for unknown: as many processors as allocated, as long as it ran."""
    trace = read_swf(file("1 0 5 60 4 -1 -1 -1 -1 -1 1 7 1 1 1 -1 -1 -1\n"))
    assert (trace.processors[0], trace.request_s[0]) == (4, 60.0)


def test_jobs_that_never_ran_and_jobs_of_unwanted_queues_are_left_out(file):
    """They never took room from anybody, or are not what is to be scheduled."""
    never = "3 50 -1 -1 1 -1 -1 1 7200 -1 2 3 1 1 1 -1 -1 -1\n"
    path = file(FIRST + never + SECOND)
    assert len(read_swf(path)) == 2
    assert read_swf(path, without_queues=[2]).users.tolist() == [7]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2 40 5 60 4 -1 -1 8\n", "18 numbers, this line 8"),
        ("2 40 5 60 4 -1 -1 8 30 -1 1 9 1 1 2 -1 -1 -1 5\n", "18 numbers, this line 19"),
        ("2 40 5 x0 4 -1 -1 8 30 -1 1 9 1 1 2 -1 -1 -1\n", "not 18 numbers"),
        ("2 nan 5 60 4 -1 -1 8 30 -1 1 9 1 1 2 -1 -1 -1\n", "is not finite"),
    ],
)
def test_a_line_that_is_no_job_is_named(file, line, said):
    """With its number, so that it can be looked at."""
    with pytest.raises(TraceError, match=f"line 5: .*{said}"):
        read_swf(file(HEADER + FIRST + line))


def test_a_file_that_ends_early_is_truncated_even_after_a_whole_line(file):
    """The header says how many jobs there are."""
    with pytest.raises(TraceError, match=r"line 4: the file ends after 1 of the 2 jobs"):
        read_swf(file(HEADER + FIRST))


def test_no_beginning_of_a_file_passes_for_the_whole(tmp_path):
    """Wherever the download broke off."""
    path = write_swf(tmp_path / "cluster.swf", trace_of((0, 5, 6, 1), (9, 30, 30, 2)))
    content = path.read_text()
    for length in range(len(content) - 1):
        path.write_text(content[:length])
        with pytest.raises(TraceError, match=r"cluster\.swf"):
            read_swf(path)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08\x00\xff\xfe\n", b"<html></html>\n"])
def test_a_file_that_is_no_trace_is_refused(tmp_path, content):
    """Empty, compressed, or an error page instead of a download."""
    path = tmp_path / "cluster.swf"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=r"cluster\.swf"):
        read_swf(path)


def test_a_missing_file_is_named(tmp_path):
    """Not a traceback."""
    with pytest.raises(TraceError, match=r"cannot read the trace .*nowhere\.swf"):
        read_swf(tmp_path / "nowhere.swf")


def test_what_is_written_is_read(tmp_path):
    """A trace of the tests through a file and back."""
    trace = busy_trace(days=2)
    read = read_swf(write_swf(tmp_path / "busy.swf", trace))
    np.testing.assert_array_equal(read.submit_s, trace.submit_s - trace.submit_s[0])
    for column in ("run_s", "request_s", "processors", "users"):
        np.testing.assert_array_equal(getattr(read, column), getattr(trace, column))
