"""A batch scheduler whose queue an agent orders: which waiting job of a supercomputer is next.

In: a trace of jobs. Out: when each of them starts. `swf` reads traces and `data` fetches one,
`cluster` runs them with EASY backfilling, `windows` are the episodes, `features` what the agent
sees, `application` embeds it, `heuristics` are what one does without it, `evaluation` holds them
against each other, `training` lets the agent learn, and `demo` runs it all.
"""
