"""What third parties destroy: entries of the stream, and keys."""

import signal
import time

from benchmarks.chaos.processes import send
from benchmarks.chaos.site import Site
from benchmarks.chaos.strike import Carry, Strike
from rl4sys_stream.errors import BrokerError

__all__ = ["delete_key", "delete_unread", "trim"]

RESOLVED_S = 40.0
"""Patience until what was destroyed is counted as skipped, or trained after all."""

# ARGV: the group, how many, the agents whose entries may be destroyed.
_OWNER = """
local theirs = {}
for i = 3, #ARGV do theirs[ARGV[i]] = true end
local function is_theirs(entry)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'agent_id' then return theirs[entry[2][i + 1]] end
  end
end
"""
# The entries that follow the group's last delivered one have been read by nobody.
_DESTROY_UNREAD = f"""{_OWNER}
local last
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local named = {{}}
  for i = 1, #group, 2 do named[group[i]] = group[i + 1] end
  if named['name'] == ARGV[1] then last = named['last-delivered-id'] end
end
if not last then return {{}} end
local found = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', ARGV[2])
local gone = {{}}
for _, entry in ipairs(found) do
  if is_theirs(entry) then
    redis.call('XDEL', KEYS[1], entry[1])
    gone[#gone + 1] = entry
  end
end
return gone
"""
_TRIM = f"""{_OWNER}
local found = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[2])
local gone = {{}}
for _, entry in ipairs(found) do
  if #gone == #found - 1 or not is_theirs(entry) then break end
  gone[#gone + 1] = entry
end
if #gone > 0 then redis.call('XTRIM', KEYS[1], 'MINID', found[#gone + 1][1]) end
return gone
"""


def _destroy(strike: Strike, script: str, count: int) -> str:
    """Destroy entries while no worker reads, and wait until the books have closed over them.

    Anything may happen to worker, broker and network meanwhile. The application is left in peace:
    an agent that is gone cannot say that it offers a number no more, so what is destroyed belongs
    to agents that stay.
    """
    site, client = strike.site, strike.client
    stopped = [pid for pid in site.trainers(client) if send(pid, signal.SIGSTOP)]
    try:
        strike.wait(1.0, 2.0)
        agents = site.lasting_agents(client)
        with site.network.broker.admin() as admin:
            reply = admin.call("EVAL", script, 1, site.stream(client), site.group(), count, *agents)
        found = dict(_address(row) for row in reply)
        site.note_destroyed(client, found)
    finally:
        for pid in stopped:
            send(pid, signal.SIGCONT)
    strike.let_in("worker", "broker")
    deadline = time.monotonic() + RESOLVED_S
    while found and time.monotonic() < deadline and not _are_settled(site, client, found):
        site.stopping.wait(0.3)
    return f"{len(found)} entries" if found else ""


def _are_settled(site: Site, client: str, found: dict[str, tuple[str, int]]) -> bool:
    try:
        return site.are_settled(client, found)
    except BrokerError:
        return False  # another fault has the broker


def _address(row: list[object]) -> tuple[str, tuple[str, int]]:
    entry_id, flat = row
    assert isinstance(entry_id, bytes)
    assert isinstance(flat, list)
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return entry_id.decode(), (fields[b"agent_id"].decode(), int(fields[b"seq"]))


def delete_unread(strike: Strike) -> str:
    """Delete entries that no worker has seen."""
    return _destroy(strike, _DESTROY_UNREAD, strike.rng.randint(1, 6))


def trim(strike: Strike) -> str:
    """Trim the stream's oldest entries, read or not."""
    return _destroy(strike, _TRIM, strike.rng.randint(2, 8))


def delete_key(name: str) -> Carry:
    """Delete one of the client's keys; `name` is the attribute of `ClientKeys`."""

    def carry_out(strike: Strike) -> str:
        keys = strike.site.keys(strike.client)
        return "deleted" if strike.ask("DEL", getattr(keys, name)) else ""

    return carry_out
