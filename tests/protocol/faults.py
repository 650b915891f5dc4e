"""What befalls the broker: it loses its last writes, or a third party destroys an entry."""

from collections.abc import Iterator

from tests.protocol.agents import connected_again
from tests.protocol.rules import Rules
from tests.protocol.state import ANSWERED, DURABLE, Agent, Broker, State, left, spend

__all__ = ["broker_steps"]

Steps = Iterator[tuple[str, State]]


def broker_steps(state: State, rules: Rules) -> Steps:
    """Everything that may befall the broker next."""
    yield from _synchronise(state, rules)
    if state.disk not in {None, state.broker} and (back := spend(state, "rollback")) is not None:
        yield "the broker loses its last writes", _back(back, state.disk, rules)
    if state.disk not in {None, state.broker} and (back := spend(state, "quiet")) is not None:
        yield (
            "the broker loses its last writes, and no connection",
            _back(back, state.disk, rules, quiet=True),
        )
    if state.deep not in {None, state.broker} and (back := spend(state, "deep")) is not None:
        deeper = back._replace(disk=state.deep, too_deep=True)
        yield "the broker loses more than it may", _back(deeper, state.deep, rules)
    if (less := spend(state, "destroy")) is not None:
        for entry in state.broker.stream:
            stream = tuple(other for other in state.broker.stream if other != entry)
            yield (
                f"somebody destroys {entry.id}",
                less._replace(
                    broker=state.broker._replace(stream=stream),
                    excused=tuple(sorted({*state.excused, entry.what})),
                    torn=state.torn or entry.id in state.broker.pending,
                ),
            )


def _synchronise(state: State, rules: Rules) -> Steps:
    """From now on no failure that is covered undoes what was answered so far.

    `retain_s` stands above the longest time in which that does not happen. So a rollback to the
    last of these moments, wherever they lie, is a rollback to any moment that retention allows.
    """
    agents = tuple(_safe(agent, rules) for agent in state.agents)
    if state.disk is None or (state.disk, state.agents) == (state.broker, agents):
        return
    deep = state.disk if state.deep is not None else None
    yield "time passes", state._replace(agents=agents, disk=state.broker, deep=deep)


def _safe(agent: Agent, rules: Rules) -> Agent:
    """What it has an answer for, it has for good, if the same server still answers."""
    if agent.unaware and rules.looks:
        return agent
    offered = tuple(
        offer._replace(stage=DURABLE) if offer.stage == ANSWERED else offer
        for offer in agent.offered
    )
    return agent._replace(offered=offered)


def _back(state: State, broker: Broker | None, rules: Rules, *, quiet: bool = False) -> State:
    """Connections survive it if it is `quiet`. Workers never notice: their pool connects again."""
    assert broker is not None
    worker, zombie = state.worker, state.zombie
    more = left(state, "rollback") or left(state, "quiet") or left(state, "deep")
    agents = tuple(
        agent._replace(unaware=True) if quiet else connected_again(agent, rules)
        for agent in state.agents
    )
    return state._replace(
        agents=agents if more else tuple(_safe(agent, rules) for agent in agents),
        broker=broker,
        disk=state.disk if more else None,
        deep=state.deep if more else None,
        worker=worker._replace(elsewhere=True) if worker else None,
        zombie=zombie._replace(elsewhere=True) if zombie else None,
    )
