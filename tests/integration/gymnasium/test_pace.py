"""Simulators that run ahead wait for what a worker has settled."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from rl4sys_stream import StreamAgent
from rl4sys_stream.broker.ledger import LedgerRecord
from rl4sys_stream.clock import SystemClock
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.gymnasium import Pace, Runner
from rl4sys_stream.testing import eventually
from tests.integration.agent.world import (
    ACTION_SPACE,
    OBSERVATION_SPACE,
    QUICK,
    World,
    weights,
)
from tests.integration.gymnasium.counting import Counting

pytestmark = pytest.mark.integration

UPDATE_STEPS, LENGTH = 12, 3


class Hurried(SystemClock):
    """A minute of patience takes a blink."""

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return 200 * super().monotonic()


class Simulator:
    """A runner in a thread of its own, at a client whose rollouts have 12 steps."""

    def __init__(self, world: World, pace: Pace, folder: Path, *, hurried: bool = False) -> None:
        config = folder / "conf.json"
        parameters = {"n_steps": UPDATE_STEPS, "batch_size": 4}
        config.write_text(json.dumps({"algorithm_parameters": parameters}))
        self.world = world
        self.agent = StreamAgent(
            config,
            world.client,
            world.url,
            OBSERVATION_SPACE,
            ACTION_SPACE,
            overrides=QUICK,
            environ={},
        )
        self.stopping = threading.Event()
        self.runner = Runner(
            Counting(length=LENGTH),
            self.agent,
            pace=pace,
            stopping=self.stopping,
            clock=Hurried() if hurried else SystemClock(),
        )
        self.thread = threading.Thread(
            target=self.runner.run, kwargs={"episodes": 1000}, daemon=True
        )
        self.thread.start()
        self.version = 0

    def publish(self) -> None:
        """A worker's next version."""
        self.version += 1
        self.world.publish(self.version, weights())

    def settle(self, record: LedgerRecord) -> None:
        """What a worker's commit says of this agent's trajectories, and then that it was one."""
        ledger = msgspec.json.encode(record)
        self.world.broker.hash_set(self.world.keys.seq, {self.agent.agent_id: ledger})
        self.world.broker.hash_set(self.world.keys.head, {"commit": f"commit {record}"})
        self.publish()

    def halts_at(self, steps: int) -> None:
        """It waits after so many steps, and not before."""
        eventually(lambda: self.runner.steps >= steps, 5, f"it plays {steps} steps")
        known = self.agent.settlement()
        assert not self.agent.wait_for_settlement(known, 0.3)
        assert self.runner.steps == steps


@contextmanager
def simulator(
    world: World, pace: Pace, folder: Path, *, hurried: bool = False
) -> Iterator[Simulator]:
    """One that has its first model."""
    made = Simulator(world, pace, folder, hurried=hurried)
    try:
        eventually(world.registered, 5)
        made.publish()
        yield made
    finally:
        made.stopping.set()
        made.thread.join(5)
        made.agent.close(1)
    assert not made.thread.is_alive()


def test_no_step_is_spent_before_the_first_model(world: World, tmp_path: Path) -> None:
    """A simulator has time; actions by chance are wasted."""
    made = Simulator(world, Pace(), tmp_path)
    eventually(world.registered, 5)
    assert made.runner.steps == 0
    made.publish()
    made.halts_at(UPDATE_STEPS)
    made.stopping.set()
    made.thread.join(5)
    made.agent.close(1)


def test_a_simulator_stays_one_update_ahead(world: World, tmp_path: Path) -> None:
    """It goes on by as many steps as a commit has settled; what was not used counts as settled."""
    with simulator(world, Pace(), tmp_path) as made:
        made.halts_at(UPDATE_STEPS)
        made.settle(LedgerRecord(watermark=3, trained=3, steps=3 * LENGTH))
        made.halts_at(UPDATE_STEPS + 3 * LENGTH)

        record = LedgerRecord(watermark=5, trained=3, steps=3 * LENGTH, quarantined=1, dropped=1)
        made.settle(record)
        made.halts_at(UPDATE_STEPS + 5 * LENGTH)


def test_two_updates_ahead_are_twice_as_many_steps(world: World, tmp_path: Path) -> None:
    """So that it plays on while the learner trains."""
    with simulator(world, Pace(updates_ahead=2.0), tmp_path) as made:
        made.halts_at(2 * UPDATE_STEPS)


def test_a_limit_below_one_update_lets_one_update_through(world: World, tmp_path: Path) -> None:
    """Otherwise the learner would wait for the simulator, and the simulator for it."""
    with simulator(world, Pace(max_ahead_steps=2), tmp_path) as made:
        made.halts_at(UPDATE_STEPS)


def test_agents_share_what_they_may_be_ahead(world: World, tmp_path: Path) -> None:
    """Two of them fill one update together."""
    with simulator(world, Pace(agents=2), tmp_path) as made:
        made.halts_at(UPDATE_STEPS // 2)


def test_the_share_of_a_peer_that_is_gone_is_taken_over(world: World, tmp_path: Path) -> None:
    """The learner waits for a whole update, and one agent alone can fill it in the end."""
    with simulator(world, Pace(agents=4), tmp_path, hurried=True) as made:
        made.halts_at(UPDATE_STEPS)


def test_a_client_that_was_reset_does_not_hold_its_simulators(world: World, tmp_path: Path) -> None:
    """The ledger begins anew, and what was settled before stays so."""
    with simulator(world, Pace(), tmp_path) as made:
        made.halts_at(UPDATE_STEPS)
        made.settle(LedgerRecord(watermark=4, trained=4, steps=UPDATE_STEPS))
        made.halts_at(2 * UPDATE_STEPS)
        made.settle(LedgerRecord())
        made.halts_at(3 * UPDATE_STEPS)


def test_a_refused_registration_ends_the_wait_for_a_model(world: World, tmp_path: Path) -> None:
    """In words, instead of waiting for ever."""
    with world.agent():
        eventually(world.registered, 5)
    overrides = QUICK | {"network_architecture.hidden_sizes": [7]}
    agent = StreamAgent(
        None,
        world.client,
        world.url,
        OBSERVATION_SPACE,
        ACTION_SPACE,
        overrides=overrides,
        environ={},
    )
    with agent, pytest.raises(ConfigError, match="hidden_sizes"):
        Runner(Counting(), agent).run(steps=1)


def test_an_update_gets_every_step_before_it_and_none_of_an_older_policy(
    world: World, tmp_path: Path
) -> None:
    """Episodes of 3 and 4 steps in two environments: what is open after 12 steps is cut."""
    config = tmp_path / "conf.json"
    parameters = {"n_steps": UPDATE_STEPS, "batch_size": 4}
    config.write_text(json.dumps({"algorithm_parameters": parameters}))
    with StreamAgent(
        config,
        world.client,
        world.url,
        OBSERVATION_SPACE,
        ACTION_SPACE,
        overrides=QUICK,
        environ={},
    ) as agent:
        world.publish(1, weights())
        stopping = threading.Event()
        runner = Runner([Counting(0), Counting(1)], agent, pace=Pace(), stopping=stopping)
        playing = threading.Thread(target=runner.run, kwargs={"steps": 1000})
        playing.start()
        eventually(lambda: agent.settlement().unsettled_steps == UPDATE_STEPS)
        stopping.set()
        playing.join()
        assert runner.steps == UPDATE_STEPS
        assert agent.flush()
    sent = [entry.trajectory for entry in world.sent()]
    assert sorted((t.end.value, len(t.rewards)) for t in sent) == [
        ("cut", 2),
        ("truncated", 3),
        ("truncated", 3),
        ("truncated", 4),
    ]
