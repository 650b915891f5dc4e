"""One fault as it happens: what it may touch, and what it shares with others."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.chaos.site import Site

__all__ = ["Carry", "Strike", "lock_names"]


def lock_names(names: Iterable[str], client: str) -> frozenset[str]:
    """The locks of one fault: `worker` and `producer` are the client's own."""
    own = {"worker", "producer"}
    return frozenset(f"{name}:{client}" if name in own else name for name in names)


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault about to happen: where, with which chance, on which client.

    `give_back` returns locks early.
    """

    site: Site
    rng: random.Random
    client: str
    give_back: Callable[[frozenset[str]], None]

    def let_in(self, *names: str) -> None:
        """From here on other faults may have these."""
        self.give_back(lock_names(names, self.client))

    def wait(self, low_s: float, high_s: float) -> None:
        """Some time between the two, or until the run ends."""
        self.site.stopping.wait(self.rng.uniform(low_s, high_s))

    def ask(self, *command: str | int) -> object:
        """The broker's answer, past the proxies."""
        with self.site.network.broker.admin() as admin:
            return admin.call(*command)

    def trainer(self) -> int | None:
        """One of the client's trainers."""
        found = self.site.trainers(self.client)
        return self.rng.choice(found) if found else None


Carry = Callable[[Strike], str]
"""Carries a fault out; says what it did, "" if there was nothing to strike."""
