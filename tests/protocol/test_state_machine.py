"""The shipped parts over a real server, in any order that Hypothesis thinks of.

Agents end trajectories, offer, lose answers, are killed and adopted; workers read, commit, crash,
come back as zombies; somebody deletes entries; the server is killed and comes back without its last
writes. After every step, and when all has come to rest, the keys of the broker are compared with a
ledger that the test keeps of its own.
"""

import tempfile
from itertools import count
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rl4sys_stream.broker.audit import audit_client
from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.ledger import LedgerRecord, read_ledgers
from rl4sys_stream.broker.registry import register, write_heartbeat
from rl4sys_stream.config import AgentSettings, ClientSpec
from rl4sys_stream.errors import BrokerError, CommitRefusedError
from rl4sys_stream.spaces import Box, Discrete
from rl4sys_stream.testing import RedisServer, eventually
from tests.protocol.machine_agents import RETAIN_S, SteppedAgent, tag_of
from tests.protocol.machine_workers import SteppedWorker, trained_tags
from tests.unit.agent.rig import ManualClock
from tests.unit.worker.entries import N_ACTIONS, OBS_DIM

LOSS_S = 2.5
"""A server may lose the writes of so long: less than agents retain."""

which = st.integers(0, 2)


class Delivery(RuleBasedStateMachine):
    """One client: two agents with a spool, one without, a worker and its zombies."""

    server: RedisServer
    names = count()

    @initialize()
    def begin(self) -> None:
        """A fresh client."""
        self.clock = ManualClock()
        self.keys = ClientKeys(f"machine_{next(self.names)}")
        self.broker = Broker(BrokerAddress.from_url(self.server.url), name="machine")
        spec = ClientSpec(observation_space=Box((OBS_DIM,)), action_space=Discrete(N_ACTIONS))
        register(self.broker, self.keys, spec, {}, wall_ms=1)
        self.folder = tempfile.TemporaryDirectory()
        self.agents = [
            SteppedAgent(
                name,
                self.broker.address,
                self.keys,
                self.clock,
                Path(self.folder.name) if name != "without" else None,
            )
            for name in ("one", "two", "without")
        ]
        self.accepted: list[int] = []
        self.destroyed: set[int] = set()
        self.worker: SteppedWorker | None = SteppedWorker(self.broker, self.keys)
        self.zombies: list[SteppedWorker] = []
        self.saved: list[tuple[float, dict[str, bytes]]] = []

    # -- agents -------------------------------------------------------------------------------

    def _put(self, agent: SteppedAgent, *, readable: bool = True) -> None:
        self.accepted.append(len(self.accepted) + 1)
        agent.put(self.accepted[-1], readable=readable)

    @rule(agent=which, readable=st.booleans(), number=st.integers(1, 4))
    def trajectories_end(self, agent, readable, number):
        """More than three that wait are one too many: the oldest is dropped."""
        if not self.agents[agent].adopted:
            for _ in range(number):
                self._put(self.agents[agent], readable=readable)

    @rule(agent=which, lost=st.booleans())
    def agent_sends(self, agent, lost):
        """Numbers, appends, and perhaps loses the answer."""
        self.agents[agent].connection.breaks = lost
        self.agents[agent].turn()
        self.agents[agent].connection.breaks = False

    @rule(agent=st.integers(0, 1), numbered=st.booleans())
    def agent_is_killed_and_adopted(self, agent, numbered):
        """At any moment, and also between a number and its first attempt."""
        if numbered:
            self.agents[agent].number_and_die()
        else:
            self.agents[agent].die_and_be_adopted()

    @rule(seconds=st.sampled_from([0.6, 0.6, 1.5, 3.1]))
    def time_passes(self, seconds):
        """Agents send, prove their connections alive, and let go of what is old enough."""
        self.clock.now_s += seconds
        for agent in self.agents:
            agent.turn()
            agent.turn()

    # -- workers ------------------------------------------------------------------------------

    @rule(zombie=st.booleans())
    def a_worker_begins(self, zombie):
        """The one before is dead, or only believed to be."""
        if self.worker is not None and zombie:
            self.zombies.append(self.worker)
        self.worker = SteppedWorker(self.broker, self.keys)

    @precondition(lambda self: self.worker)
    @rule(
        number=st.integers(1, 4),
        then=st.sampled_from(["", "trains", "settles"]),
        lost=st.booleans(),
    )
    def the_worker_reads(self, number, then, lost=False):
        """And commits, perhaps, and perhaps misses the answer; refused, it begins again."""
        assert self.worker is not None
        self.worker.read(number)
        self.worker.take(number)
        try:
            if then:
                self.worker.commit(train=then == "trains", lose_reply=lost)
        except CommitRefusedError:
            self.worker = None

    @precondition(lambda self: self.zombies)
    @rule(reads=st.booleans(), train=st.booleans())
    def a_zombie_wakes(self, reads, train):
        """It takes entries under the shared name, or commits late."""
        zombie = self.zombies[-1]
        if reads:
            zombie.read(1)
            zombie.take(1)
            return
        try:
            zombie.commit(train=train)
        except CommitRefusedError:
            self.zombies.pop()

    # -- the broker ---------------------------------------------------------------------------

    @invariant()
    def this_moment_is_on_disk(self) -> None:
        """The server may come back with it, for a while."""
        keys = sorted(self.broker.scan(f"rl4sys:{{{self.keys.client}}}:*"))
        dumps = {key: self.broker.call("DUMP", key) for key in keys}
        oldest = self.clock.now_s - LOSS_S
        self.saved = [(at, m) for at, m in self.saved if at >= oldest]
        self.saved.append((self.clock.now_s, dumps))

    @precondition(lambda self: self.saved)
    @rule(place=st.integers(0, 9))
    def the_server_dies_and_loses_its_last_writes(self, place):
        """All keys go back together. The workers' pool connects again and says nothing."""
        _, moment = self.saved[-1 - place % len(self.saved)]
        self.server.kill()
        self.server.start()
        eventually(self._answers, ignoring=(BrokerError,))
        for key, value in moment.items():
            self.broker.call("RESTORE", key, 0, value)
        self.saved = []

    def _answers(self) -> bool:
        self.broker.ping()
        return True

    @precondition(lambda self: len(self.destroyed) < 2)
    @rule(place=st.integers(0, 5))
    def somebody_deletes_an_entry(self, place):
        """Whether it was read or not."""
        entries = self._entries(self.keys.traj)
        if entries:
            entry_id, fields = entries[place % len(entries)]
            self.broker.call("XDEL", self.keys.traj, entry_id)
            self.destroyed.add(tag_of(fields))

    # -- the ledger of the test ---------------------------------------------------------------

    def _entries(self, key: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        return cast("list[tuple[bytes, dict[bytes, bytes]]]", self.broker.redis.xrange(key))

    def _settled(self, fields: dict[bytes, bytes], ledgers: dict[str, LedgerRecord]) -> bool:
        record = ledgers.get(fields[b"agent_id"].decode(), LedgerRecord())
        seq = int(fields[b"seq"])
        return seq <= record.watermark or seq in record.above

    @invariant()
    def nothing_is_lost_and_nothing_taken_in_twice(self) -> None:
        """Every trajectory is somewhere, or was dropped and counted, or destroyed by a stranger."""
        trained = trained_tags(self.broker, self.keys)
        ledgers = read_ledgers(self.broker, self.keys)
        quarantine = self._entries(self.keys.quarantine)
        refused = [tag_of(fields) for _, fields in quarantine if b"h" in fields]
        taken = trained + refused
        assert len(set(taken)) == len(taken), f"taken in twice: {sorted(taken)}"
        found = set(taken) | self.destroyed
        for _, fields in self._entries(self.keys.traj):
            if not self._settled(fields, ledgers):
                found.add(tag_of(fields))
        for agent in self.agents:
            found |= agent.tags()
        dropped = sum(agent.outbox.counts().dropped for agent in self.agents)
        nowhere = set(self.accepted) - found
        assert len(nowhere) == dropped, f"{sorted(nowhere)} are nowhere, {dropped} were dropped"
        assert sum(record.trained for record in ledgers.values()) == len(trained)
        # Of an entry that was deleted after it was read, the quarantine keeps the reason alone.
        assert sum(record.quarantined for record in ledgers.values()) == len(quarantine)

    def teardown(self) -> None:
        """All comes to rest, each agent moves on once more, and the audit closes."""
        if not hasattr(self, "agents"):
            return
        try:
            self._come_to_rest()
            self.nothing_is_lost_and_nothing_taken_in_twice()
            self._check_audit()
        finally:
            for agent in self.agents:
                agent.close()
            for key in self.broker.scan(f"rl4sys:{{{self.keys.client}}}:*"):
                self.broker.unlink(key)
            self.broker.close()
            self.folder.cleanup()

    def _come_to_rest(self) -> None:
        for last in (False, True):
            for agent in self.agents:
                if last:
                    self._put(agent)
                while not agent.sender.idle or agent.outbox.counts().queued:
                    agent.turn()
                    self.clock.now_s += RETAIN_S / 2
            worker = SteppedWorker(self.broker, self.keys)
            while self.broker.call("XLEN", self.keys.traj) or worker.busy:
                worker.read(100)
                worker.take(100)
                worker.commit(train=False)
                worker.commit(train=True)

    def _check_audit(self) -> None:
        for agent in self.agents:
            write_heartbeat(self.broker, self.keys, agent.beat())
        report = audit_client(self.broker, self.keys)
        assert report.closes, report
        assert report.total("accepted") == len(self.accepted)
        assert report.total("trained") == len(trained_tags(self.broker, self.keys))
        assert report.total("skipped") <= len(self.destroyed)
        assert report.total("pending") == 0


@pytest.fixture(scope="module", autouse=True)
def server():
    """One that forgets; what it comes back with is the machine's to say."""
    with RedisServer(aof=None) as started:
        Delivery.server = started
        yield started


def test_nothing_is_lost_and_nothing_trained_twice_over_a_real_server():
    """See the module. Raise max_examples to look for longer."""
    run_state_machine_as_test(
        Delivery,
        settings=settings(
            max_examples=20,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


@pytest.fixture
def machine():
    """A machine whose rules the test calls; torn down as after any other run."""
    made = Delivery()
    made.begin()
    made.this_moment_is_on_disk()
    yield made
    made.teardown()


LONG_S = RETAIN_S + 0.1


def test_an_entry_that_is_released_too_early_is_missed(machine):
    """The machine's own ledger is no decoration."""
    agent = machine.agents[2]
    agent.sender._settings = AgentSettings(retain_s=0.001, heartbeat_s=0.1)
    machine.trajectories_end(2, readable=True, number=1)
    agent.turn()
    machine.time_passes(0.6)
    machine.the_server_dies_and_loses_its_last_writes(place=0)
    with pytest.raises(AssertionError, match="are nowhere"):
        machine.nothing_is_lost_and_nothing_taken_in_twice()
    machine.destroyed.add(1)  # or teardown would miss it as well


@pytest.mark.parametrize("server_told", [True, False])
def test_a_copy_of_what_a_worker_lost_without_noticing_is_trained(machine, server_told):
    """It holds number 1, the server has forgotten it, and the agent offers it again."""
    machine.trajectories_end(2, readable=True, number=1)
    machine.agents[2].turn()
    if not server_told:
        machine.worker._server = ""
    machine.the_worker_reads(1, then="")
    machine.the_server_dies_and_loses_its_last_writes(place=0)
    for _ in range(3):
        machine.time_passes(LONG_S)
    machine.the_worker_reads(1, then="settles")
    machine.nothing_is_lost_and_nothing_taken_in_twice()
    assert machine.agents[2].sender.idle


def test_a_zombie_whose_fence_came_back_settles_nothing(machine):
    """It took number 1 for destroyed, because its successor had trained it; now it is back."""
    for _ in range(2):
        machine.trajectories_end(2, readable=True, number=1)
        machine.time_passes(LONG_S)
        machine.time_passes(LONG_S)
    machine.this_moment_is_on_disk()
    machine.saved = machine.saved[-1:]
    machine.a_worker_begins(zombie=True)
    machine.the_worker_reads(1, then="trains")
    machine.a_zombie_wakes(reads=True, train=False)
    machine.the_server_dies_and_loses_its_last_writes(place=0)
    machine.a_zombie_wakes(reads=True, train=False)
    machine.a_zombie_wakes(reads=False, train=False)
    machine.nothing_is_lost_and_nothing_taken_in_twice()
    assert machine.zombies == []
