"""What an agent hears of its own trajectories: how many steps a worker has settled.

A simulator needs it, which can wait for its learner; an application in production does not ask, and
then nothing is read.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from rl4sys_stream.broker.ledger import LedgerRecord
from rl4sys_stream.config.algorithms import read_parameters
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.wire.json import decode_json

__all__ = ["Settled", "Settlement", "SettlementNews", "wait_for_learner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The worker's half.

    Attributes:
        trained_steps: Environment steps of this agent in trajectories that were taken in.
        unused: Trajectories that were quarantined, dropped or skipped.
        update_steps: Environment steps, over all agents of the client, after which the learner
            trains and publishes; None while nobody has said it.
    """

    trained_steps: int = 0
    unused: int = 0
    update_steps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """Both halves at one instant.

    Attributes:
        accepted: Trajectories that have ended or were cut.
        accepted_steps: Environment steps in them.
        lost: Those that no worker will see: dropped by the drop policy, or quarantined here.
        settled: What the worker made of the others, as far as this agent has heard.
    """

    accepted: int
    accepted_steps: int
    lost: int
    settled: Settled

    @property
    def unsettled_steps(self) -> int:
        """Environment steps in trajectories whose fate is open.

        Nobody counts the steps of trajectories that were not trained on; each is taken to be as
        long as this agent's are on average.
        """
        gone = self.lost + self.settled.unused
        average = self.accepted_steps / self.accepted if self.accepted else 0.0
        return self.accepted_steps - self.settled.trained_steps - round(gone * average)


class SettlementNews:
    """Where the refresher leaves the worker's half, and others wait for it. Takes no lock.

    Attributes:
        settled: The newest.
        wanted: Somebody asks for it, so it has to be read.
    """

    __slots__ = ("_heard", "settled", "wanted")

    def __init__(self) -> None:
        self.settled = Settled()
        self.wanted = False
        self._heard = threading.Event()

    def tell(self, data: bytes | None) -> None:
        """Take over this agent's ledger as it is stored; None if it has none.

        Raises:
            WireFormatError: If it does not decode.
        """
        record = LedgerRecord() if data is None else decode_json(data, LedgerRecord, "the ledger")
        self._replace(
            replace(
                self.settled,
                trained_steps=record.steps,
                unused=record.quarantined + record.dropped + record.skipped,
            )
        )

    def tell_definition(self, algorithm: str, definition: Mapping[str, object]) -> None:
        """Take over what the registered definition says of the learner's updates."""
        parameters = definition.get("algorithm_parameters")
        known = parameters if isinstance(parameters, Mapping) else {}
        try:
            steps: int | None = read_parameters(algorithm, known).steps_per_update
        except ConfigError:  # another version's, which the agent need not understand to act
            steps = None
        self._replace(replace(self.settled, update_steps=steps))

    def wait(self, known: Settled, timeout_s: float) -> bool:
        """Return once there is something else than `known`; False if there is not in time."""
        # In this order, as `_replace` writes the news before it wakes up those who wait.
        heard = self._heard
        if self.settled != known:
            return True
        return heard.wait(timeout_s)

    def _replace(self, settled: Settled) -> None:
        if settled != self.settled:
            self.settled = settled
            heard, self._heard = self._heard, threading.Event()
            heard.set()


def wait_for_learner(
    look: Callable[[], Settlement], wait: Callable[[Settled, float], bool], timeout_s: float
) -> bool:
    """Wait until less than one update's steps are unsettled.

    Args:
        look: The settlement as it is now.
        wait: See `SettlementNews.wait`.
        timeout_s: Longest silence between two settlements.

    Returns:
        False if there was silence for so long.
    """
    settlement = look()
    while settlement.unsettled_steps >= (settlement.settled.update_steps or 1):
        if not wait(settlement.settled, timeout_s):
            return False
        settlement = look()
    return True
