"""Traces in the Standard Workload Format: what a cluster's users asked for, and what came of it.

The format is Feitelson's (Parallel Workloads Archive, "The Standard Workload Format", version 2.2):
lines that begin with a semicolon are comments, every other one is a job of 18 numbers, -1 where a
number is unknown. A file that is cut short or is something else is refused, by the line.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.errors import ConfigError

__all__ = ["Trace", "TraceError", "read_swf"]

FIELDS: Final = 18
SUBMIT, RUN, ALLOCATED, PROCESSORS, REQUEST, USER, QUEUE = 1, 3, 4, 7, 8, 11, 14
"""Columns that are read, counted from 0."""
RECORDS: Final = "maxrecords:"
EXCERPT: Final = 60


class TraceError(ConfigError):
    """A trace that cannot be used."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """N jobs in the order in which they were submitted.

    Attributes:
        submit_s: float64 [N], seconds since the first of them.
        run_s: float64 [N], how long they ran, or would have been allowed to.
        request_s: float64 [N], how long their users said that they would run; at least `run_s`.
        processors: int64 [N].
        users: int64 [N].
    """

    submit_s: NDArray[np.float64]
    run_s: NDArray[np.float64]
    request_s: NDArray[np.float64]
    processors: NDArray[np.int64]
    users: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.submit_s)


def read_swf(path: Path, *, without_queues: Collection[int] = ()) -> Trace:
    """Read a trace.

    Jobs that never ran or used no processor are left out. One that ran for longer than its user
    had said ends when that time is over, as it would under a scheduler that enforces it.

    Args:
        path: Of the file.
        without_queues: Numbers of queues whose jobs are left out.

    Raises:
        TraceError: If the file cannot be read, is truncated, or is not SWF; names the line.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            jobs = [job for job in _jobs(path, file) if int(job[QUEUE]) not in without_queues]
    except OSError as error:
        raise TraceError(f"cannot read the trace {path}: {error.strerror}") from error
    table = np.asarray(jobs, np.float64).reshape(-1, FIELDS)
    processors = np.where(table[:, PROCESSORS] > 0, table[:, PROCESSORS], table[:, ALLOCATED])
    ran = (table[:, RUN] > 0) & (processors > 0)
    table, processors = table[ran], processors[ran]
    if not len(table):
        raise TraceError(f"no job of the trace {path} ever ran; is it the right file?")
    order = np.argsort(table[:, SUBMIT], kind="stable")
    table, processors = table[order], processors[order]
    request = np.where(table[:, REQUEST] > 0, table[:, REQUEST], table[:, RUN])
    return Trace(
        submit_s=table[:, SUBMIT] - table[0, SUBMIT],
        run_s=np.minimum(table[:, RUN], request),
        request_s=request,
        processors=processors.astype(np.int64),
        users=table[:, USER].astype(np.int64),
    )


def _jobs(path: Path, lines: Iterator[str]) -> Iterator[list[float]]:
    """The jobs of a file.

    Raises:
        TraceError: At the first line that is none, or after the last if the header promised more.
    """
    promised, found, number = None, 0, 0
    for number, line in enumerate(lines, 1):
        if line.startswith(";"):
            promised = _promise(line) or promised
        elif words := line.split():
            yield _job(path, number, words)
            found += 1
    if promised is not None and found < promised:
        raise TraceError(
            f"{path}, line {number}: the file ends after {found} of the {promised} jobs that its "
            "header announces; it is truncated, so fetch it again"
        )


def _promise(comment: str) -> int | None:
    words = comment[1:].split()
    if len(words) == 2 and words[0].lower() == RECORDS and words[1].isdecimal():  # noqa: PLR2004
        return int(words[1])
    return None


def _job(path: Path, number: int, words: list[str]) -> list[float]:
    excerpt = " ".join(words)[:EXCERPT]
    if len(words) != FIELDS:
        raise TraceError(
            f"{path}, line {number}: a job of SWF has {FIELDS} numbers, this line {len(words)}: "
            f"{excerpt!r}; the file is truncated, or not a trace"
        )
    try:
        job = [float(word) for word in words]
    except ValueError:
        raise TraceError(
            f"{path}, line {number}: not {FIELDS} numbers: {excerpt!r}; is this a trace in the "
            "Standard Workload Format?"
        ) from None
    if not np.isfinite(job).all():
        raise TraceError(f"{path}, line {number}: a number of {excerpt!r} is not finite")
    return job
