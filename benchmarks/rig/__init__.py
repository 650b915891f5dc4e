"""Whole processes for the benchmarks that run for minutes, and evidence that is not theirs.

In: an address and a folder. Out: an application with an agent, a worker, and what an observer saw.
`benchmarks.outage` and `benchmarks.soak` call it; nothing in the package does. `seeds` is what the
command lines of those that train share.
"""
