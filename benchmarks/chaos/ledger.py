"""The harness's own book: what each application says right after a call of it returned.

One file for each start of an application, one line an event, each written by one `os.write` on a
descriptor opened with O_APPEND: a killed process leaves whole lines. Lines are
`A agent agent_id client spooled`, `E id late` (an end was marked), `R id` (its late reward is set)
and `P id` (what comes now spoils any update; written before it is played).
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.identity import Identity

__all__ = ["AgentEntry", "Ledger", "LedgerWriter", "read_ledgers"]


class LedgerWriter:
    """Used by one application."""

    def __init__(self, path: Path) -> None:
        """Begin the file; it must not exist."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)

    def agent(self, identity: Identity, agent_id: str, client: str, *, spooled: bool) -> None:
        """An agent was made; `identity` with ordinal 0 names it."""
        self._write(f"A {identity.number():x} {agent_id} {client} {int(spooled)}")

    def ended(self, identity: Identity, *, late: bool) -> None:
        """`mark_end_of_trajectory` returned; `late`: one of its rewards is still missing."""
        self._write(f"E {identity.number():x} {int(late)}")

    def rewarded(self, identity: Identity) -> None:
        """The missing reward is set."""
        self._write(f"R {identity.number():x}")

    def poison(self, identity: Identity) -> None:
        """The next one is to be refused."""
        self._write(f"P {identity.number():x}")

    def _write(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())


@dataclass(frozen=True, slots=True)
class AgentEntry:
    """One agent, as its application knows it."""

    agent_id: str
    client: str
    spooled: bool


@dataclass(slots=True)
class Ledger:
    """All files together.

    Attributes:
        agents: Identity with ordinal 0 -> the agent.
        ended: Trajectories whose end was marked, in order, by client.
        unrewarded: Those whose last reward never came, because the application was killed.
        poison: Those that no update can use.
    """

    agents: dict[Identity, AgentEntry] = field(default_factory=dict)
    ended: dict[str, list[Identity]] = field(default_factory=dict)
    unrewarded: set[Identity] = field(default_factory=set)
    poison: set[Identity] = field(default_factory=set)

    def agent_of(self, identity: Identity) -> AgentEntry:
        """Whose trajectory it is."""
        key = Identity(identity.application, identity.incarnation, identity.agent, 0)
        return self.agents[key]

    def is_next(self, identity: Identity) -> bool:
        """Whether it follows the last one on record: its end was being marked when all stopped."""
        return identity.ordinal == self._last(identity) + 1

    def _last(self, identity: Identity) -> int:
        mine = (identity.application, identity.incarnation, identity.agent)
        client = self.agent_of(identity).client
        found = [
            one.ordinal
            for one in self.ended.get(client, [])
            if (one.application, one.incarnation, one.agent) == mine
        ]
        return max(found, default=0)


def read_ledgers(folder: Path) -> Ledger:
    """All ledgers in `folder`."""
    ledger = Ledger()
    for path in sorted(folder.glob("*.ledger")):
        for line in path.read_text(encoding="ascii").splitlines():
            kind, number, *rest = line.split()
            identity = Identity.from_number(int(number, 16))
            if kind == "A":
                agent_id, client, spooled = rest
                ledger.agents[identity] = AgentEntry(agent_id, client, spooled == "1")
            elif kind == "E":
                ledger.ended.setdefault(ledger.agent_of(identity).client, []).append(identity)
                if rest == ["1"]:
                    ledger.unrewarded.add(identity)
            elif kind == "P":
                ledger.poison.add(identity)
            else:
                ledger.unrewarded.discard(identity)
    return ledger
