"""The replay buffer against a plain list of trajectories."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rl4sys_stream.algorithms.replay_buffer import ReplayBuffer, Transitions
from rl4sys_stream.errors import ConfigError, NonFiniteError
from rl4sys_stream.wire.trajectory import End, Trajectory
from tests.unit.algorithms.samples import ENDS, N_ACTIONS, OBS_DIM, random_trajectory


def make_buffer(
    capacity: int = 50, *, n_step: int = 1, gamma: float = 0.9, headroom: int = 8
) -> ReplayBuffer:
    """A buffer so small that its rings wrap and grow."""
    return ReplayBuffer(capacity, OBS_DIM, n_step=n_step, gamma=gamma, headroom=headroom)


def trajectories(
    seed: int, lengths: Sequence[int], *, masked: Sequence[bool] = (False,)
) -> list[Trajectory]:
    """One of each length, ends and masks by turns."""
    rng = np.random.default_rng(seed)
    return [
        random_trajectory(rng, steps, end=ENDS[i % 3], masked=masked[i % len(masked)])
        for i, steps in enumerate(lengths)
    ]


def held(buffer: ReplayBuffer) -> Transitions:
    """All transitions in the buffer, oldest first."""
    positions = torch.arange(buffer.positions.start, buffer.positions.stop)
    return buffer.gather(positions % buffer.slots)


def fill(buffer: ReplayBuffer, parts: Sequence[Trajectory]) -> ReplayBuffer:
    """`buffer`, after it has appended `parts`."""
    for part in parts:
        buffer.append(part)
    return buffer


def expected_rows(
    parts: Sequence[Trajectory], n_step: int, gamma: float
) -> list[tuple[NDArray[np.float32], int, float, float, NDArray[np.float32], NDArray[np.bool_]]]:
    """The transitions of `parts`, looked up step by step."""
    rows = []
    for part in parts:
        steps = len(part.actions)
        if part.end is not End.TERMINATED and part.masks is not None and part.final_mask is None:
            steps -= 1
        for t in range(steps):
            k = min(n_step, steps - t)
            total = sum(gamma**i * float(part.rewards[t + i]) for i in range(k))
            discount, following = gamma**k, np.zeros(OBS_DIM, np.float32)
            mask = np.ones(N_ACTIONS, np.bool_)
            if t + k < len(part.actions):
                following = part.observations[t + k]
                mask = mask if part.masks is None else part.masks[t + k]
            elif part.end is End.TERMINATED:
                discount = 0.0
            else:
                assert part.final_observation is not None
                following = part.final_observation
                mask = mask if part.final_mask is None else part.final_mask
            rows.append(
                (part.observations[t], int(part.actions[t]), total, discount, following, mask)
            )
    return rows


def assert_holds(
    buffer: ReplayBuffer, parts: Sequence[Trajectory], n_step: int = 1, gamma: float = 0.9
) -> None:
    """Exactly the transitions of `parts`, in order."""
    found, rows = held(buffer), expected_rows(parts, n_step, gamma)
    assert len(found.actions) == len(buffer) == len(rows)
    for i, (observation, action, total, discount, following, mask) in enumerate(rows):
        assert (found.observations[i].numpy() == observation).all()
        assert found.actions[i].item() == action
        assert found.returns[i].item() == pytest.approx(total, rel=1e-5, abs=1e-5)
        assert found.discounts[i].item() == pytest.approx(discount)
        if discount:
            assert (found.next_observations[i].numpy() == following).all()
            if found.next_masks is not None:
                assert (found.next_masks[i].numpy() == mask).all()


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=25),
    masked=st.lists(st.booleans(), min_size=1, max_size=4),
    n_step=st.integers(1, 5),
    capacity=st.integers(1, 60),
    pause=st.integers(1, 4),
)
@settings(deadline=None)
def test_it_holds_the_newest_trajectories_that_fit_and_their_transitions(
    lengths: list[int], masked: list[bool], n_step: int, capacity: int, pause: int
) -> None:
    """Through wrapping, growing, all ends, masks that come late, and sums of several rewards."""
    buffer = make_buffer(capacity, n_step=n_step)
    parts = trajectories(len(lengths), lengths, masked=masked)
    kept: list[Trajectory] = []
    for index, part in enumerate(parts):
        buffer.append(part)
        kept.append(part)
        assert_holds(buffer, kept, n_step)
        fitting = len(kept)
        while sum(len(p.actions) for p in kept[len(kept) - fitting :]) > capacity:
            fitting -= 1
        assert buffer.retained == fitting
        if index % pause == 0:
            buffer.evict()
            kept = kept[len(kept) - fitting :]
            assert_holds(buffer, kept, n_step)


def test_the_observation_before_a_cut_is_followed_by_the_one_after_it() -> None:
    """A cut bootstraps from its final observation, a terminated end from nothing."""
    cut, terminated = trajectories(0, [3, 3, 3])[2], trajectories(0, [3])[0]
    found = held(fill(make_buffer(), [cut, terminated]))
    assert found.discounts[:, 0].tolist() == pytest.approx([0.9, 0.9, 0.9, 0.9, 0.9, 0.0])
    assert cut.final_observation is not None
    assert found.next_observations[2].tolist() == cut.final_observation.tolist()


def test_masks_are_stored_only_when_some_trajectory_had_them() -> None:
    """Until then nothing is spent on them, and everything counts as allowed."""
    plain, _, masked = trajectories(0, [3, 3, 5], masked=[False, False, True])
    buffer = fill(make_buffer(), [plain])
    assert held(buffer).next_masks is None
    masks = held(fill(buffer, [masked])).next_masks
    assert masks is not None
    assert masked.masks is not None
    assert masked.final_mask is not None
    assert masks[:3].all()
    assert masks[3:7].tolist() == masked.masks[1:].tolist()
    assert masks[7].tolist() == masked.final_mask.tolist()


def test_the_mask_of_a_final_observation_counts_where_no_step_had_one() -> None:
    """The first state in which something is forbidden may be the one after a cut."""
    plain = trajectories(0, [3, 3, 3])[2]
    mask = np.array([True, False, False, True])
    masks = held(fill(make_buffer(), [replace(plain, final_mask=mask)])).next_masks
    assert masks is not None
    assert masks.tolist() == [[True] * 4, [True] * 4, mask.tolist()]


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("end", [End.CUT, End.TRUNCATED])
def test_nothing_bootstraps_from_where_masks_are_used_and_none_is_known(
    end: End, n_step: int
) -> None:
    """The last step is left out; those before it stop at its observation, whose mask is known."""
    part = random_trajectory(np.random.default_rng(0), 4, end=end, masked=True)
    assert part.final_mask is None
    assert part.masks is not None
    found = held(fill(make_buffer(n_step=n_step), [part]))
    assert found.observations.tolist() == part.observations[:3].tolist()
    hops = [min(n_step, 3 - t) for t in range(3)]
    assert found.discounts[:, 0].tolist() == pytest.approx([0.9**k for k in hops])
    places = [t + k for t, k in enumerate(hops)]
    assert found.next_observations.tolist() == part.observations[places].tolist()
    assert found.next_masks is not None
    assert found.next_masks.tolist() == part.masks[places].tolist()


def test_steps_that_cannot_be_drawn_make_old_trajectories_leave_all_the_same() -> None:
    """Else what stays in the stream for a restart would grow for ever."""
    buffer = make_buffer(10)
    rng = np.random.default_rng(0)
    lonely = replace(random_trajectory(rng, 1, end=End.CUT, masked=True), final_mask=None)
    for _ in range(30):
        buffer.append(lonely)
        buffer.evict()
    assert (len(buffer), buffer.retained) == (0, 10)
    buffer.append(random_trajectory(rng, 10))
    assert (len(buffer), buffer.retained) == (10, 1)


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=12),
    back=st.integers(0, 12),
    evicting=st.booleans(),
)
@settings(deadline=None)
def test_what_was_appended_can_be_taken_back(lengths: list[int], back: int, evicting: bool) -> None:
    """To any earlier mark whose trajectories are still there, and then something else appended."""
    parts, others = trajectories(1, lengths), trajectories(2, [7, 3])
    buffer = make_buffer(30)
    marks = [buffer.mark]
    for part in parts:
        buffer.append(part)
        marks.append(buffer.mark)
    kept = parts
    if evicting:
        kept = kept[len(kept) - buffer.retained :]
        buffer.evict()
    stay = max(len(parts) - back, 0)
    reachable = stay >= len(parts) - len(kept)
    assert buffer.rewind(marks[stay]) == reachable
    kept = kept[: len(kept) - (len(parts) - stay)] if reachable else kept
    assert_holds(buffer, kept)
    assert_holds(fill(buffer, others), [*kept, *others])


def test_a_mark_of_another_history_leads_nowhere() -> None:
    """As many trajectories, but not the same ones."""
    ours, theirs = fill(make_buffer(), trajectories(1, [5, 5])), make_buffer()
    fill(theirs, [*trajectories(2, [5]), *trajectories(1, [5])])
    assert not ours.rewind(theirs.mark)
    assert_holds(ours, trajectories(1, [5, 5]))


def test_the_same_history_has_the_same_mark_and_a_different_one_another() -> None:
    """Order, content and end are part of it."""
    parts = trajectories(1, [5, 6])
    masked = replace(parts[1], final_mask=np.array([True, False, True, True]))
    assert fill(make_buffer(), parts).mark != fill(make_buffer(), [parts[0], masked]).mark
    assert fill(make_buffer(), parts).mark == fill(make_buffer(20), parts).mark
    assert fill(make_buffer(), parts).mark != fill(make_buffer(), parts[::-1]).mark
    assert 0 < fill(make_buffer(), parts).mark < 1 << 53


def test_refilled_it_holds_the_same_and_goes_on_under_the_same_marks() -> None:
    """After a restart: the retained tail, and then what comes next."""
    parts = trajectories(1, [10, 20, 15, 12])
    first = fill(make_buffer(40), parts)
    second = make_buffer(40)
    second.refill(parts[len(parts) - first.retained :], first.mark)
    first.evict()
    assert_holds(second, parts[2:])
    assert first.mark == second.mark
    more = trajectories(2, [9, 4])
    assert fill(first, more).mark == fill(second, more).mark
    assert second.rewind(fill(make_buffer(40), parts).mark)
    assert_holds(second, parts[2:])


def test_draws_are_uniform_and_do_not_depend_on_where_things_lie() -> None:
    """The same seed draws the same transitions from a ring that has turned."""
    parts = trajectories(3, [10, 20, 15, 12])
    turned, straight = make_buffer(40), make_buffer(40)
    for part in parts:
        turned.append(part)
        turned.evict()
    straight.refill(parts[2:], turned.mark)
    one, other = (
        buffer.gather(buffer.draw(20_000, torch.Generator().manual_seed(1)))
        for buffer in (turned, straight)
    )
    assert torch.equal(one.observations, other.observations)
    assert torch.equal(one.next_observations, other.next_observations)
    _, counts = np.unique(one.observations.numpy(), axis=0, return_counts=True)
    expected = 20_000 / 27
    assert len(counts) == 27
    # Chi-square with 26 degrees of freedom: 54 is exceeded once in a thousand seeds.
    assert ((counts - expected) ** 2 / expected).sum() < 54.0


def test_memory_is_bounded_by_capacity_and_headroom() -> None:
    """However much goes through it."""
    buffer = make_buffer(100, headroom=40)
    rows = buffer._rows.length
    for seed in range(200):
        fill(buffer, trajectories(seed, [20, 10, 10]))
        assert len(buffer) <= 140
        buffer.evict()
        assert len(buffer) <= 100
    assert buffer.slots == 140
    assert buffer._rows.length == rows


def test_sums_of_rewards_that_are_not_finite_are_refused() -> None:
    """Two finite rewards may add up to none."""
    buffer = fill(make_buffer(n_step=2), trajectories(0, [4]))
    (part,) = trajectories(1, [4])
    part.rewards[:] = 3e38
    with pytest.raises(NonFiniteError, match="rewards of 2 steps became infinite"):
        buffer.append(part)
    assert_holds(buffer, trajectories(0, [4]), n_step=2)
    assert buffer.mark == fill(make_buffer(), trajectories(0, [4])).mark


def test_continuous_actions_are_vectors() -> None:
    """float32, as they were drawn."""
    buffer = ReplayBuffer(50, OBS_DIM, action_dim=2)
    part = random_trajectory(np.random.default_rng(0), 4)
    actions = np.random.default_rng(1).standard_normal((4, 2)).astype(np.float32)
    object.__setattr__(part, "actions", actions)
    buffer.append(part)
    assert held(buffer).actions.tolist() == actions.tolist()


def test_a_buffer_beyond_all_memory_is_refused_by_name() -> None:
    """At the start, not after hours."""
    with pytest.raises(ConfigError, match="make buffer_size smaller") as caught:
        ReplayBuffer(1 << 44, 1 << 10)
    assert caught.value.path == "buffer_size"
