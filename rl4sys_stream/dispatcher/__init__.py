"""Sees to it that each registered client has one worker process.

In come the registry and the leases, out go processes that run `rl4sys-stream worker`. Light and
free of torch itself; several dispatchers on several hosts share the clients through the leases.
"""
