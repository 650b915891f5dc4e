"""`rl4sys-stream demo`: a whole system on one machine that learns a task while one looks on.

In: a task, a seed and limits. Out: a run folder with what happened, and an exit code that says
whether it learned. Parent process: broker and dispatcher (or somebody else's), display, artifacts.
Child processes: the worker, and the applications with their agents (`application.py`).
"""
