"""Rules that are wrong on purpose, each with a small world in which that shows.

They hold the explorer itself to account: one that finds nothing wrong with these finds nothing.
"""

from dataclasses import dataclass
from typing import Final

from rl4sys_stream.broker.head import Head
from rl4sys_stream.broker.ledger import Outcome
from rl4sys_stream.wire.trajectory import EntryAddress
from rl4sys_stream.worker.intake import Candidate
from rl4sys_stream.worker.settlement import Accepted, Books
from tests.protocol.rules import Rules, Scenario

__all__ = ["BROKEN", "Broken"]


class BooksWithoutRescan(Books):
    """Give numbers below the floor up without a look at the pending list."""

    def _recover_gap(self, entry_id: str, address: EntryAddress) -> list[Candidate]:
        """Nobody looks."""
        return []


class BooksWithoutCopies(Books):
    """Settle a copy of what the learner holds at once."""

    def accept(self, candidate: Candidate, head: Head) -> list[Accepted]:
        """No copy waits."""
        found = super().accept(candidate, head)
        copies, self._copies = self._copies, []
        for copy, address in copies:
            self._settle(copy, address, Outcome.DUPLICATE)
        return found


class BooksWithoutFloors(Books):
    """Use a floor only in the moment in which it comes."""

    def _pass_gap(self, address: EntryAddress) -> None:
        """Forgets it afterwards."""
        super()._pass_gap(address)
        self._floors.clear()


class BooksThatLetGoOfFloors(Books):
    """Settle what says a floor although a gap below it waits."""

    @property
    def unsettled(self) -> int:
        """All."""
        return len(self._settled)


@dataclass(frozen=True)
class Broken:
    """A rule that is broken, and what comes of it.

    Attributes:
        name: What is done instead.
        rules: The rules with that one broken.
        scenario: Where it shows.
        comes_of_it: How the violation begins.
        way: The steps to it, where finding them takes long.
    """

    name: str
    rules: Rules
    scenario: Scenario
    comes_of_it: str
    way: tuple[str, ...] = ()

    @property
    def heavy(self) -> bool:
        """Whether the way to it is followed rather than searched for."""
        return bool(self.way)


def _faults(**often: int) -> tuple[tuple[str, int], ...]:
    return tuple(often.items())


_FIRST = frozenset({(0, 0)})

BROKEN: Final = (
    Broken(
        "an entry is released at the answer",
        Rules(retention=False),
        Scenario(faults=_faults(rollback=1)),
        "lost without a word",
    ),
    Broken(
        "nothing is offered again after a reconnect",
        Rules(offers_again=False),
        Scenario(faults=_faults(rollback=1)),
        "lost without a word",
    ),
    Broken(
        "nobody asks the server who it is",
        Rules(looks=False),
        Scenario(faults=_faults(quiet=1)),
        "lost without a word",
    ),
    Broken(
        "numbers below the floor are skipped without a rescan",
        Rules(books=BooksWithoutRescan),
        Scenario(faults=_faults(zombie=1)),
        "lost without a word",
    ),
    Broken(
        "the floor is the entry's own number",
        Rules(lowest_floor=False),
        Scenario(faults=_faults(refusal=1)),
        "lost without a word",
    ),
    Broken(
        "the head is checked and the fence is not",
        Rules(fence=False, names_its_commit=False),
        Scenario(unreadable=_FIRST, faults=_faults(zombie=1)),
        "",
    ),
    Broken(
        "the fence is checked and the head is not",
        Rules(head=False, same_server=False),
        Scenario((1, 1), (False, False), faults=_faults(rollback=1)),
        "",
    ),
    Broken(
        "entries need not be pending",
        Rules(membership=False, same_server=False),
        Scenario((1, 1), (False, False), faults=_faults(rollback=1), ids_return=True),
        "lost without a word",
    ),
    Broken(
        "entries below the newest settled id are taken for settled",
        Rules(high_water_id=True),
        Scenario(faults=_faults(zombie=1), ids_return=True),
        "",
    ),
    Broken(
        "an adopted agent gets an id of its own",
        Rules(keeps_its_id=False),
        Scenario((1,), (True,), faults=_faults(kill=1, reply=1)),
        "trained twice",
    ),
    Broken(
        "the drop policy takes what has a number",
        Rules(drops_queued_only=False),
        Scenario(faults=_faults(drop=1, reply=1)),
        "dropped and taken in",
    ),
    Broken(
        "a copy is settled before what is in hand",
        Rules(same_server=False, books=BooksWithoutCopies),
        Scenario(faults=_faults(rollback=1)),
        "lost without a word",
    ),
    Broken(
        "a floor is forgotten",
        Rules(books=BooksWithoutFloors),
        Scenario((3,), faults=_faults(destroy=1)),
        "a gap for ever",
    ),
    Broken(
        "a floor is settled before the gap below it",
        Rules(books=BooksThatLetGoOfFloors),
        Scenario((3,), unreadable=frozenset({(0, 2)}), faults=_faults(destroy=1, crash=1)),
        "a gap for ever",
    ),
    Broken(
        "a commit does not name the commit that it follows",
        Rules(same_server=False, names_its_commit=False),
        Scenario(unreadable=_FIRST, faults=_faults(rollback=1)),
        "",
    ),
    Broken(
        "a session outlives the server process that it began at",
        Rules(same_server=False),
        Scenario(faults=_faults(rollback=1, zombie=1)),
        "lost without a word",
        way=(
            "a0 sends 1",
            "a worker takes token 1",
            "time passes",
            "a0 lets 1 go",
            "a0 sends 2",
            "token 2 takes over",
            "the worker reads 1",
            "the worker trains 1",
            "the zombie reads 2",
            "the broker loses its last writes",
            "the zombie reads 1",
            "the zombie settles 1",
        ),
    ),
)
