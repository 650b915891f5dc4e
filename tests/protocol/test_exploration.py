"""The rules of delivery hold in every reachable state of small worlds, and broken ones do not."""

import pytest

from tests.protocol.broken import BROKEN, Broken
from tests.protocol.explore import QUICK, explore, follow
from tests.protocol.rules import SHIPPED, Rules

TOO_MANY = 200_000
"""States at which a test gives up; none needs a fifth of them."""


@pytest.mark.parametrize("name", QUICK)
def test_nothing_is_lost_or_trained_twice_in_any_order_of_events(name):
    """Every state is visited: a violation would come with the shortest way to it."""
    finding = explore(QUICK[name], max_states=TOO_MANY)
    assert not finding.wrong, "\n".join([finding.wrong, *finding.trace])
    assert finding.complete
    assert finding.at_rest > 0


@pytest.mark.parametrize("name", ["the broker goes back", "… with an unreadable entry"])
def test_a_single_worker_survives_a_loss_even_where_the_server_does_not_tell_who_it_is(name):
    """Its session goes on over the restart, unaware."""
    finding = explore(QUICK[name], Rules(same_server=False), max_states=TOO_MANY)
    assert not finding.wrong, "\n".join([finding.wrong, *finding.trace])
    assert finding.complete


@pytest.mark.parametrize("broken", [pytest.param(b, id=b.name) for b in BROKEN if not b.heavy])
def test_a_broken_rule_is_found(broken: Broken):
    """Else the exploration above would prove nothing."""
    finding = explore(broken.scenario, broken.rules, max_states=TOO_MANY)
    assert finding.wrong.startswith(broken.comes_of_it), finding
    assert finding.wrong


@pytest.mark.parametrize("broken", [pytest.param(b, id=b.name) for b in BROKEN if b.heavy])
def test_a_broken_rule_is_found_along_the_way_that_is_known(broken: Broken):
    """Where the search takes long, its result is followed; the shipped rules end elsewhere."""
    assert follow(broken.scenario, broken.rules, broken.way).startswith(broken.comes_of_it)
    assert not follow(broken.scenario, SHIPPED, broken.way)
