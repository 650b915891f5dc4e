"""An honest spool is never taken for a hostile one: what a life wrote, the next agent reads."""

import tempfile
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from rl4sys_stream.agent.spool.folder import SpoolFolder
from rl4sys_stream.agent.spool.journal import SpoolJournal
from rl4sys_stream.clock import SystemClock

FIELDS = ((b"h", b"{}"), (b"obs", b"12345678"))
EVENTS = (
    "accepted",
    "accepted",
    "sealed",
    "sealed",
    "offered",
    "offered",
    "quarantined",
    "rejected",
    "dropped",
    "unsaved",
    "floor",
    "segment",
)


def live(journal: SpoolJournal, event: str) -> None:
    """One thing that happens to an agent, if it can happen now."""
    state = journal.state
    queued = [first + i for first, length in state.queued for i in range(length)]
    match event:
        case "accepted":
            journal.accepted(3)
        case "sealed" if state.sealing:
            journal.sealed(FIELDS)
        case "offered" if queued:
            journal.offered(state.issued + 1, queued[: 1 + len(queued) // 2])
        case "quarantined" if state.sealing:
            journal.quarantined(1)
        case "rejected" if state.sealing:
            journal.rejected(1)
        case "dropped" if queued:
            journal.dropped(queued[:1])
        case "unsaved" if state.sealing:
            journal.offered_unsaved(state.issued + 1)
        case "floor":
            journal.floor(1 + (state.issued + state.floor) // 2)
        case "segment":
            journal._behind = True  # as after a disk without room: the next record begins a file
        case _:
            pass


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(EVENTS), max_size=40))
def test_what_a_life_wrote_is_read_back_to_the_last_number(events):
    """Whatever order things happen in; only what waited for rewards is given up."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        journal = SpoolJournal.create(base, "agent-1", fsync=False, clock=SystemClock())
        for event in events:
            live(journal, event)
        journal.accepted(1)  # writes down what a full disk may have kept back
        wanted = msgspec.structs.replace(
            journal.state,
            quarantined=journal.state.quarantined + journal.state.sealing,
            sealing=0,
        )
        journal.close(remove=False)
        folder = SpoolFolder.adopt(base / "agent-1")
        assert folder is not None
        found = SpoolJournal.recover(folder, fsync=False, clock=SystemClock())
        assert found is not None
        assert found.state == wanted
        for ordinal in [o + i for _, o, n in wanted.offered for i in range(n)]:
            assert found.read(ordinal) == FIELDS
        found.close(remove=True)
