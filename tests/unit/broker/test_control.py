"""Which agents a rule selects, and what a control says of each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl4sys_stream.broker.control import (
    FOLLOW,
    Control,
    Directive,
    Promotion,
    RollbackRequest,
    Rule,
    Selection,
    control_fields,
    parse_control,
)
from rl4sys_stream.errors import UsageError, WireError

IDS = [f"host-{number}-ab" for number in range(2000)]


def test_a_share_selects_about_that_many_and_always_the_same():
    """A larger one has all those of a smaller one; another client's salt selects others."""
    tenth = {one for one in IDS if Selection(percent=10).has(one, "salt")}
    fifth = {one for one in IDS if Selection(percent=20).has(one, "salt")}
    assert 140 < len(tenth) < 260
    assert tenth < fifth
    assert tenth == {one for one in IDS if Selection(percent=10).has(one, "salt")}
    assert tenth != {one for one in IDS if Selection(percent=10).has(one, "other")}
    assert all(Selection(percent=100).has(one, "salt") for one in IDS)


def test_a_pattern_selects_by_the_id():
    """As a shell does, letter for letter."""
    assert Selection("host-7-*").has("host-7-ab", "")
    assert not Selection("host-7-*").has("host-77-ab", "")
    assert not Selection("HOST*").has("host-7-ab", "")
    both = Selection("host-1*", 50.0)
    assert {one for one in IDS if both.has(one, "s")} < {
        one for one in IDS if Selection("host-1*").has(one, "s")
    }


@pytest.mark.parametrize("percent", [0.0, -1.0, 100.1, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused_before_anybody_reads_it(percent):
    """JSON has no NaN: written down it would be all agents."""
    with pytest.raises(UsageError, match="above 0 and up to 100"):
        Selection(percent=percent)


SELECTIONS = st.builds(
    Selection,
    st.sampled_from(["", "host-1*", "host-*"]),
    st.sampled_from([None, 10.0, 50.0, 100.0]),
)


@given(SELECTIONS, SELECTIONS)
def test_what_covers_a_selection_has_all_its_agents(large, small):
    """A rule behind one that covers it can never hold."""
    if large.covers(small):
        assert all(large.has(one, "s") for one in IDS if small.has(one, "s"))


RULES = (
    Rule(rule_id="a", action="fallback", agents=Selection("sick-*")),
    Rule(rule_id="b", action="pin", agents=Selection("s*"), version=3, token="1:a"),
    Rule(rule_id="c", action="pin", agents=Selection("canary-*")),
)
WHOLE = Control(
    revision="r",
    salt="s",
    rules=RULES,
    promoted=Promotion(version=5, token="2:b", reason="good"),
    request=RollbackRequest(request_id="q", version=2, token="1:a"),
)


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("sick-1", Directive("stopped", rule_id="a")),
        ("s-1", Directive("pinned", 3, "1:a", "b")),
        ("canary-1", Directive("pinned", 0, "", "c")),
        ("other", Directive("promoted", 5, "2:b")),
    ],
)
def test_the_first_rule_that_selects_an_agent_decides(agent, said):
    """Else the promotion, else the head."""
    assert WHOLE.directive(agent) == said
    assert Control(salt="s").directive(agent) == FOLLOW


def test_all_that_is_named_is_protected():
    """By a pin, the promotion, or an open request."""
    assert WHOLE.protected == {(3, "1:a"), (5, "2:b"), (2, "1:a")}


def test_a_control_is_read_as_it_was_written():
    """Field by field, as the broker holds it; without any it asks for nothing."""
    stored = {name.encode(): value for name, value in control_fields(WHOLE).items()}
    assert parse_control(stored) == WHOLE
    assert parse_control({}) == Control()


@pytest.mark.parametrize(
    "damage",
    [
        {b"rules": b"[1]"},
        {b"rules": b'[{"id":"a","action":"explode"}]'},
        {b"rules": b'[{"id":"a","action":"pin","agents":{"percent":0}}]'},
        {b"rules": b'[{"id":"a","action":"pin","agents":{"region":"eu"}}]'},
        {b"rules": b"[" + b",".join([b'{"id":"a","action":"pin"}'] * 1001) + b"]"},
        {b"promoted": b"\xff"},
        {b"request": b"{}"},
        {b"salt": b"\xff"},
    ],
)
def test_what_is_no_control_is_refused(damage):
    """An agent obeys what it understands, and nothing else."""
    with pytest.raises(WireError):
        parse_control(damage)
