"""How long a simulator waits for its learner."""

from dataclasses import replace

import pytest

from rl4sys_stream.agent.settlement import Settled, Settlement, wait_for_learner

ROLLOUT = 10


class Learner:
    """Settles one entry of 5 steps at each wait, until it has nothing more to say."""

    def __init__(self, accepted_steps: int, settles: int, update_steps: int | None = ROLLOUT):
        self.now = Settlement(
            accepted=accepted_steps // 5,
            accepted_steps=accepted_steps,
            lost=0,
            settled=Settled(update_steps=update_steps),
        )
        self.settles = settles
        self.waits: list[float] = []

    def look(self) -> Settlement:
        """See `wait_for_learner`."""
        return self.now

    def wait(self, known: Settled, timeout_s: float) -> bool:
        """See `wait_for_learner`."""
        assert known == self.now.settled
        self.waits.append(timeout_s)
        if not self.settles:
            return False
        self.settles -= 1
        trained = replace(known, trained_steps=known.trained_steps + 5)
        self.now = replace(self.now, settled=trained)
        return True


def test_it_waits_until_less_than_an_update_is_unsettled() -> None:
    """25 steps, 10 a rollout: four entries are settled, and the fifth makes no update."""
    learner = Learner(25, settles=9)
    assert wait_for_learner(learner.look, learner.wait, 3.0)
    assert learner.waits == [3.0] * 4


def test_less_than_an_update_is_not_waited_for() -> None:
    """The learner waits for more itself."""
    learner = Learner(5, settles=0)
    assert wait_for_learner(learner.look, learner.wait, 3.0)
    assert learner.waits == []


@pytest.mark.parametrize(("update_steps", "waits"), [(ROLLOUT, 2), (None, 2)])
def test_a_silent_worker_ends_the_wait(update_steps: int | None, waits: int) -> None:
    """After one settlement nothing more is heard; nor where nobody has said what one takes."""
    learner = Learner(25, settles=1, update_steps=update_steps)
    assert not wait_for_learner(learner.look, learner.wait, 3.0)
    assert len(learner.waits) == waits
