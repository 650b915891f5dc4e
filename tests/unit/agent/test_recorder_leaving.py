"""Rewards that never come, dropped handles, closing and forking: nothing goes uncounted."""

import gc
import logging
import threading

import numpy as np
import pytest

from rl4sys_stream.agent.outbox import Outbox
from rl4sys_stream.agent.parcels import Sealed
from rl4sys_stream.errors import TrajectoryStateError
from rl4sys_stream.wire.trajectory import End
from tests.unit.agent.rig import Rig

FINAL = np.array([9, 9, 9], np.float32)


def test_missing_rewards_quarantine_a_trajectory_after_the_timeout_and_not_before():
    """It is counted, and a reward that comes later still is refused."""
    rig = Rig(reward_timeout_s=60)
    handle = rig.recorder.begin()
    action = rig.step(handle, reward=None)
    rig.recorder.end(handle, None, End.TERMINATED, None)
    rig.clock.now_s += 59.9
    rig.recorder.sweep()
    assert rig.counts.sealing == 1
    rig.clock.now_s += 0.1
    rig.recorder.sweep()
    assert (rig.counts.sealing, rig.counts.quarantined, rig.counts.queued) == (0, 1, 0)
    with pytest.raises(TrajectoryStateError, match="given up"):
        action.update_reward(1)


def test_open_trajectories_are_never_timed_out():
    """An episode may last for days."""
    rig = Rig(reward_timeout_s=60)
    handle = rig.recorder.begin()
    rig.step(handle, reward=None)
    rig.clock.now_s += 1e6
    rig.recorder.sweep()
    assert (rig.counts.accepted, rig.recorder.open, handle.ended) == (0, 1, False)


def test_closing_cuts_an_open_trajectory_before_an_action_that_was_only_requested():
    """What that action was requested on is what the last recorded one led to."""
    rig = Rig()
    handle = rig.recorder.begin()
    rig.step(handle, 1)
    rig.step(handle, 2)
    rig.request(handle, 3)
    rig.recorder.close()
    (trajectory,) = rig.sent()
    assert trajectory.end is End.CUT
    assert trajectory.observations[:, 0].tolist() == [1, 2]
    assert trajectory.final_observation is not None
    assert trajectory.final_observation[0] == 3


def test_closing_gives_the_last_step_up_when_nothing_follows_it():
    """Its observation serves as what the step before it led to."""
    rig = Rig()
    handle = rig.recorder.begin()
    for value in (1, 2, 3):
        rig.step(handle, value)
    rig.recorder.close()
    (trajectory,) = rig.sent()
    assert trajectory.observations[:, 0].tolist() == [1, 2]
    assert trajectory.final_observation is not None
    assert trajectory.final_observation[0] == 3


def test_closing_cuts_an_open_trajectory_before_its_first_missing_reward():
    """The steps that are complete are worth sending."""
    rig = Rig()
    handle = rig.recorder.begin()
    for value, reward in ((1, 1.0), (2, None), (3, 1.0)):
        rig.step(handle, value, reward)
    rig.recorder.close()
    (trajectory,) = rig.sent()
    assert trajectory.observations[:, 0].tolist() == [1]
    assert trajectory.final_observation is not None
    assert trajectory.final_observation[0] == 2
    assert rig.recorder.abandoned == 0


@pytest.mark.parametrize("recorded", [1, 2])
def test_closing_knows_what_is_allowed_after_its_cut(recorded: int):
    """Where the action that follows was chosen, recorded or not."""
    rig = Rig()
    handle = rig.recorder.begin()
    rig.recorder.add(handle, first := rig.request(handle, 1, mask=[True, True, False, False]))
    second = rig.request(handle, 2, mask=[False, True, False, True])
    if recorded == 2:
        rig.recorder.add(handle, second)
    first.update_reward(0)
    rig.recorder.close()
    (trajectory,) = rig.sent()
    assert len(trajectory.actions) == 1
    assert trajectory.final_mask is not None
    assert trajectory.final_mask.tolist() == [False, True, False, True]


def test_closing_counts_what_it_cannot_send():
    """One open trajectory of a single step, and one ended without its rewards."""
    rig = Rig()
    lonely, unrewarded = rig.recorder.begin(), rig.recorder.begin()
    rig.step(lonely)
    rig.step(unrewarded, reward=None)
    rig.recorder.end(unrewarded, None, End.TERMINATED, None)
    rig.recorder.close()
    assert rig.sent() == []
    assert (rig.recorder.abandoned, rig.counts.quarantined) == (1, 1)
    assert (lonely.ended, rig.recorder.open) == (True, 0)


def test_a_trajectory_whose_handle_was_dropped_is_cut_and_sent():
    """Nobody could end it any more; its steps are as good as any."""
    rig = Rig()
    handle = rig.recorder.begin()
    for value in (1, 2, 3):
        rig.step(handle, value)
    kept = rig.recorder.begin()
    rig.step(kept)
    del handle
    gc.collect()
    rig.recorder.sweep()
    assert [t.observations[:, 0].tolist() for t in rig.sent()] == [[1, 2]]
    assert rig.recorder.open == 1


def test_an_ended_trajectory_outlives_its_handle_while_it_waits_for_rewards():
    """The application keeps action handles alone."""
    rig = Rig()
    handle = rig.recorder.begin()
    action = rig.step(handle, reward=None)
    rig.recorder.end(handle, None, End.TERMINATED, None)
    del handle
    gc.collect()
    rig.recorder.sweep()
    action.update_reward(4)
    assert rig.sent()[0].rewards.tolist() == [4]


def test_a_sealed_trajectory_frees_its_steps():
    """An application that keeps old handles does not keep every observation alive."""
    rig = Rig()
    handle = rig.recorder.begin()
    rig.step(handle)
    rig.recorder.end(handle, None, End.TERMINATED, None)
    assert handle.segment.steps == []


def test_a_forked_copy_sends_nothing():
    """The parent does; the same steps may not be sent twice."""
    rig = Rig()
    handle = rig.recorder.begin()
    action = rig.step(handle, reward=None)
    rig.recorder.orphan()
    rig.recorder.end(handle, None, End.TERMINATED, None)
    action.update_reward(1)
    assert rig.counts.accepted == 0
    assert rig.sent() == []


def test_the_steps_that_wait_for_rewards_are_bounded():
    """An application that never rewards must not fill its own memory; the oldest are given up."""
    rig = Rig(reward_wait_steps=5)
    handles = []
    for _ in range(4):
        handle = rig.recorder.begin()
        action = rig.step(handle, reward=None)
        rig.step(handle, reward=None)
        rig.recorder.end(handle, None, End.TERMINATED, None)
        handles.append(action)
    assert (rig.counts.sealing, rig.counts.quarantined) == (2, 2)
    with pytest.raises(TrajectoryStateError, match="too many steps"):
        handles[0].update_reward(1.0)
    handles[3].update_reward(1.0)


def test_giving_up_is_told_in_one_line_after_the_lock_is_free(caplog):
    """A slow log must not hold the application up, and nobody reads thousands of lines."""
    rig = Rig(reward_timeout_s=1.0)
    free = []

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            free.append(rig.recorder._lock.acquire(blocking=False))
            rig.recorder._lock.release()

    handler = Slow()
    logging.getLogger("rl4sys_stream.agent").addHandler(handler)
    try:
        for _ in range(50):
            handle = rig.recorder.begin()
            rig.step(handle, reward=None)
            rig.recorder.end(handle, None, End.TERMINATED, None)
        rig.clock.now_s += 2.0
        rig.recorder.sweep()
    finally:
        logging.getLogger("rl4sys_stream.agent").removeHandler(handler)
    assert free == [True]
    assert rig.counts.quarantined == 50


def test_sweeping_never_waits_for_room_and_loses_nothing():
    """The refresher's thread has models to fetch; only the application may be made to wait."""
    rig = Rig(max_entries=1, drop_policy="block", block_timeout_s=3600.0)
    for _ in range(3):
        handle = rig.recorder.begin()
        rig.step(handle)
        rig.step(handle)
        del handle
    rig.recorder.sweep()
    assert (rig.counts.queued, rig.counts.sealing, rig.counts.dropped) == (1, 2, 0)
    sent = 0
    for _ in range(3):
        sent += len(rig.sent())
        rig.recorder.sweep()
    assert sent + len(rig.sent()) == 3
    assert (rig.counts.sealing, rig.counts.dropped) == (0, 0)


def test_closing_during_a_sweep_puts_each_trajectory_once():
    """Both put what was put off; the refresher's thread is interrupted right after a put."""
    closed = threading.Event()

    class Interrupted(Outbox):
        def put(self, sealed: Sealed, *, patient: bool = True) -> bool:
            taken = super().put(sealed, patient=patient)
            if threading.current_thread() is refresher:
                swept.set()
                closed.wait(0.2)
            return taken

    rig = Rig(max_entries=1, drop_policy="block", block_timeout_s=3600.0, outbox=Interrupted)
    swept = threading.Event()
    refresher = threading.Thread(target=rig.recorder.sweep)
    for value in range(3):
        handle = rig.recorder.begin()
        rig.step(handle, value)
        rig.step(handle, value)
        del handle
    rig.recorder.sweep()
    sent = [trajectory.observations[0, 0] for trajectory in rig.sent()]
    refresher.start()
    assert swept.wait(10)
    sent += [trajectory.observations[0, 0] for trajectory in rig.sent()]
    rig.outbox.stop_blocking()
    rig.recorder.close()
    closed.set()
    refresher.join()
    sent += [trajectory.observations[0, 0] for trajectory in rig.sent()]
    assert sent == [0, 1, 2]
    assert (rig.counts.sealing, rig.counts.dropped) == (0, 0)
