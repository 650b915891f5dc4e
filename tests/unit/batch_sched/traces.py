"""Traces for the tests of batch_sched, made up."""

from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from examples.batch_sched.swf import Trace

DAY_S = 86_400
PROCESSORS = 32
"""Of the cluster that `busy_trace` is for."""


def trace_of(*jobs: tuple[float, float, float, int]) -> Trace:
    """Jobs as (submit, run, request, processors); users 0, 1, 2, … in turn."""
    table = np.asarray(jobs, float).reshape(-1, 4)
    return Trace(
        submit_s=table[:, 0],
        run_s=table[:, 1],
        request_s=table[:, 2],
        processors=table[:, 3].astype(np.int64),
        users=np.arange(len(table)) % 3,
    )


@st.composite
def small_traces(draw: st.DrawFn, processors: int) -> Trace:
    """Few jobs, so close together that they compete; all times are whole seconds."""
    submit, jobs = 0, []
    for _ in range(draw(st.integers(1, 14))):
        submit += draw(st.integers(0, 4))
        run = draw(st.integers(1, 9))
        request = run + draw(st.sampled_from((0, 0, 1, 8, 40)))
        jobs.append((submit, run, request, draw(st.integers(1, processors))))
    return trace_of(*jobs)


def busy_trace(seed: int = 1, days: int = 60) -> Trace:
    """A rush each morning, of short and long jobs that are so wide that few run side by side.

    Whoever serves them as they come lets the short ones wait for the long ones.
    """
    rng = np.random.default_rng(seed)
    submit = np.concatenate([day * DAY_S + rng.uniform(0, DAY_S / 6, 50) for day in range(days)])
    count = len(submit)
    run = np.exp(rng.uniform(np.log(20), np.log(5400), count))
    return Trace(
        submit_s=np.sort(submit).round(),
        run_s=run.round(),
        request_s=(run * rng.uniform(1.0, 1.5, count)).round(),
        processors=rng.integers(PROCESSORS // 3, PROCESSORS + 1, count),
        users=rng.integers(0, 12, count),
    )


def write_swf(path: Path, trace: Trace) -> Path:
    """That trace as a file."""
    lines = ["; a trace that was made up", f"; MaxRecords: {len(trace)}"]
    for job in range(len(trace)):
        fields = [-1.0] * 18
        fields[0], fields[1], fields[3] = job + 1, trace.submit_s[job], trace.run_s[job]
        fields[7], fields[8] = trace.processors[job], trace.request_s[job]
        fields[11], fields[14] = trace.users[job], 1
        lines.append(" ".join(f"{field:g}" if field < 0 else f"{field:.0f}" for field in fields))
    path.write_text("\n".join(lines) + "\n")
    return path
