"""What agents do, as agent/sender.py, agent/outbox.py and agent/adoption.py do it."""

from collections.abc import Iterable, Iterator

from tests.protocol.canonical import newest_id
from tests.protocol.rules import Rules, Scenario
from tests.protocol.state import (
    ANSWERED,
    DURABLE,
    TO_SEND,
    Agent,
    Broker,
    Entry,
    Offer,
    State,
    left,
    spend,
)

__all__ = ["agent_steps", "connected_again", "numbered"]

Steps = Iterator[tuple[str, State]]

BATCH = 2
"""Entries that may be on their way at once: enough for one to be refused and not the other."""


def agent_steps(state: State, rules: Rules, scenario: Scenario) -> Steps:
    """Everything that one agent may do next, or that may befall it."""
    for at, agent in enumerate(state.agents):
        if agent.unnoted:
            # The sender's thread does nothing between forgetting an entry and writing that down.
            yield f"{agent.name} notes its floor", _with(state, at, agent._replace(unnoted=()))
        else:
            yield from _look(state, at, agent, rules)
            yield from _take(state, at, agent)
            yield from _send(state, at, agent, rules, scenario)
            yield from _release(state, at, agent, rules)
        yield from _drop(state, at, agent, rules)
        yield from _kill(state, at, agent, rules)


def connected_again(agent: Agent, rules: Rules) -> Agent:
    """After its connection broke. At once, since nothing that happens in between matters to it."""
    if not rules.offers_again:
        return agent
    offered = tuple(offer._replace(stage=TO_SEND) for offer in agent.offered)
    return agent._replace(offered=offered, unaware=False)


def _with(state: State, at: int, agent: Agent) -> State:
    return state._replace(agents=(*state.agents[:at], agent, *state.agents[at + 1 :]))


def _look(state: State, at: int, agent: Agent, rules: Rules) -> Steps:
    if agent.unaware and rules.looks:
        yield (
            f"{agent.name} sees that it is another server",
            _with(state, at, connected_again(agent, rules)),
        )


def _to_send(agent: Agent) -> list[Offer]:
    return [offer for offer in agent.offered if offer.stage == TO_SEND]


def numbered(state: State) -> State:
    """`state` after its agents have numbered what they may, where the moment makes no difference.

    It does for what may be dropped before, and for what a killed agent had numbered.
    """
    if left(state, "drop") or left(state, "kill"):
        return state
    for at, agent in enumerate(state.agents):
        for _, taken in _take(state, at, agent):
            return numbered(taken)
    return state


def _take(state: State, at: int, agent: Agent) -> Steps:
    """A number is given, and with a spool written down, before the first attempt."""
    if not agent.queued or len(_to_send(agent)) >= BATCH:
        return
    seq = agent.issued + 1
    offered = (*agent.offered, Offer(seq, agent.queued[0], TO_SEND))
    taken = agent._replace(issued=seq, offered=offered, queued=agent.queued[1:])
    yield f"{agent.name} numbers {seq}", _with(state, at, taken)


def _send(state: State, at: int, agent: Agent, rules: Rules, scenario: Scenario) -> Steps:
    batch = _to_send(agent)
    if not batch:
        return
    first, second = batch[0], batch[1:]

    def after(then: State, now: Agent, *offers: Offer) -> State:
        broker = _arrived(state, agent, offers, rules, scenario)
        return _with(then, at, now)._replace(broker=broker)

    # Where nothing is ever lost, an answer is as good as any time that has passed since, once it is
    # known who gave it.
    waits = state.disk is not None or (agent.unaware and rules.looks)
    stage = ANSWERED if waits else DURABLE
    yield f"{agent.name} sends {first.seq}", after(state, _answered(agent, first, stage), first)
    if (lost := spend(state, "reply")) is not None:
        cut = connected_again(agent, rules)
        yield f"{agent.name} loses the answer to {first.seq}", after(lost, cut, first)
        if second:
            yield f"{agent.name} loses the answers to two", after(lost, cut, *batch)
    if second and (refused := spend(state, "refusal")) is not None:
        yield (
            f"{agent.name} sends {second[0].seq}, {first.seq} is refused",
            after(refused, _answered(agent, second[0], stage), *second),
        )


def _arrived(
    state: State, agent: Agent, offers: Iterable[Offer], rules: Rules, scenario: Scenario
) -> Broker:
    broker = state.broker
    newest = broker.last_id if scenario.ids_return else newest_id(state)
    for entry_id, offer in enumerate(offers, newest + 1):
        floor = agent.offered[0].seq if rules.lowest_floor else offer.seq
        entry = Entry(entry_id, agent.name, offer.seq, floor, offer.what)
        broker = broker._replace(stream=(*broker.stream, entry))
        if scenario.ids_return:
            broker = broker._replace(last_id=entry_id)
    return broker


def _answered(agent: Agent, offer: Offer, stage: int) -> Agent:
    offered = tuple(o._replace(stage=stage) if o == offer else o for o in agent.offered)
    return agent._replace(offered=offered)


def _release(state: State, at: int, agent: Agent, rules: Rules) -> Steps:
    safe = DURABLE if rules.retention else ANSWERED
    for offer in agent.offered:
        if offer.stage >= safe:
            kept = tuple(o for o in agent.offered if o != offer)
            # Only a kill in between makes a difference.
            unnoted = (offer,) if agent.spool and left(state, "kill") else ()
            released = agent._replace(offered=kept, unnoted=unnoted)
            yield f"{agent.name} lets {offer.seq} go", _with(state, at, released)
            return


def _drop(state: State, at: int, agent: Agent, rules: Rules) -> Steps:
    less = spend(state, "drop")
    if less is None:
        return
    if agent.queued:
        dropped = _with(less, at, agent._replace(queued=agent.queued[1:]))
        yield (
            f"{agent.name} drops its oldest",
            dropped._replace(dropped=(*state.dropped, agent.queued[0])),
        )
    elif agent.offered and not rules.drops_queued_only:
        dropped = _with(less, at, agent._replace(offered=agent.offered[1:]))
        yield (
            f"{agent.name} drops number {agent.offered[0].seq}",
            dropped._replace(dropped=(*state.dropped, agent.offered[0].what)),
        )


def _kill(state: State, at: int, agent: Agent, rules: Rules) -> Steps:
    """What the spool says is all that there is afterwards; without one nothing is."""
    killed = spend(state, "kill")
    held = (*agent.unnoted, *agent.offered)
    if killed is None or not (held or agent.queued):
        return
    if not agent.spool:
        gone = agent._replace(queued=(), offered=(), unnoted=())
        died = (*state.died, *agent.queued, *(offer.what for offer in held))
        yield f"{agent.name} dies", _with(killed, at, gone)._replace(died=died)
        return
    offered = tuple(offer._replace(stage=TO_SEND) for offer in held)
    spooled = agent._replace(offered=offered, unnoted=(), unaware=False)
    if not rules.keeps_its_id:
        queued = (*(offer.what for offer in held), *agent.queued)
        spooled = spooled._replace(name=f"{agent.name}'", issued=0, offered=(), queued=queued)
    yield f"{agent.name} is killed and adopted", _with(killed, at, spooled)
