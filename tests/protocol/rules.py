"""The rules of delivery, each of which can be broken; and how much may go wrong in one world."""

from dataclasses import dataclass, field
from typing import Final

from rl4sys_stream.worker.settlement import Books

__all__ = ["FAULTS", "SHIPPED", "Rules", "Scenario"]

FAULTS: Final = (
    "reply",  # an append arrives and its answer does not
    "refusal",  # the broker refuses one append of two
    "kill",  # an agent's process dies
    "drop",  # the drop policy discards what is queued
    "rollback",  # the broker loses its last writes, none older than retention
    "quiet",  # … and cuts no connection: a change of roles, or a failover behind a proxy
    "deep",  # … and all writes since the synchronisation before the last one
    "destroy",  # a third party deletes an entry
    "zombie",  # a worker is paused, and another one takes its client over
    "crash",  # a worker's process dies
    "commit_reply",  # a commit arrives and its answer does not
)


@dataclass(frozen=True)
class Rules:
    """What is shipped, unless a test breaks it.

    Attributes:
        retention: An entry is kept until no failure that is covered can undo its append.
        offers_again: After a reconnect everything retained is sent again.
        looks: Agents ask the server who it is, offer everything again when that is another, and let
            nothing go in between.
        fence: A commit under another token than the fence's is refused.
        head: A commit that started from another head is refused.
        names_its_commit: … and one that another commit without a version has written since.
        same_server: … and one of a worker that began at another server process.
        membership: Every entry that is settled must be in the pending list.
        high_water_id: A worker takes entries up to the newest settled id for settled.
        keeps_its_id: A dead agent is finished under its own id and numbers.
        drops_queued_only: The drop policy leaves alone what has a number.
        lowest_floor: The floor is the lowest number that is still offered, not the entry's own.
        books: The worker's accounts.
    """

    retention: bool = True
    offers_again: bool = True
    looks: bool = True
    fence: bool = True
    head: bool = True
    names_its_commit: bool = True
    same_server: bool = True
    membership: bool = True
    high_water_id: bool = False
    keeps_its_id: bool = True
    drops_queued_only: bool = True
    lowest_floor: bool = True
    books: type[Books] = field(default=Books)


SHIPPED: Final = Rules()


@dataclass(frozen=True)
class Scenario:
    """A small world.

    Attributes:
        trajectories: How many each agent ends.
        spools: Whether each agent owns a spool: killed, it is adopted instead of gone.
        unreadable: Trajectories that do not decode, as (agent, index from 0).
        faults: How often each of `FAULTS` may happen; the others never do.
        ids_return: The broker's clock goes back with its writes, so that it may give the id of a
            lost entry to another one.
        read_ahead: Entries that a worker may have read and not looked at.
    """

    trajectories: tuple[int, ...] = (2,)
    spools: tuple[bool, ...] = (False,)
    unreadable: frozenset[tuple[int, int]] = frozenset()
    faults: tuple[tuple[str, int], ...] = ()
    ids_return: bool = False
    read_ahead: int = 0

    def budget(self) -> tuple[int, ...]:
        """How often each fault may happen, in the order of `FAULTS`."""
        known = dict(self.faults)
        if unknown := set(known) - set(FAULTS):
            raise ValueError(f"no such faults: {sorted(unknown)}")
        return tuple(known.get(name, 0) for name in FAULTS)
