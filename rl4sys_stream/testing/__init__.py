"""Helpers for testing applications and the package itself against real brokers.

In: nothing. Out: a real server that can be killed (`RedisServer`), a wait with a deadline
(`eventually`), environments with a known optimum (`envs`). Test suites call it, ours and those of
applications that embed an agent; no other part of the package does.
"""

from rl4sys_stream.testing.eventually import eventually
from rl4sys_stream.testing.redis_server import RedisServer

__all__ = ["RedisServer", "eventually"]
