"""What the agent says of itself to the application."""

from dataclasses import dataclass

__all__ = ["AgentStatus"]


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """One instant of an agent.

    `accepted == sealing + queued + issued + dropped + quarantined` always holds.

    Attributes:
        client: Name of the client.
        agent_id: This agent; another one after a fork.
        version: Model version that acts; 0 before any, and while the agent is stopped.
        token: Token of that version.
        lineage: Training history of that version, "" before any.
        policy_age_s: Seconds since that version came in; None before any.
        control: What decides about the version. "": the newest acts; "pinned": an operator's rule
            says one version, or the newest; "promoted": the promoted one acts; "stopped": none
            does, but the fallback, or chance.
        rule: Id of the operator's rule that says so, "" if none does.
        decisions: Actions requested, evaluation included.
        fallback_decisions: Those answered without a model.
        late_decisions: Those answered by the fallback because the model was beyond `deadline_s`.
        open: Trajectories that have not ended.
        accepted: Trajectories that have ended or were cut.
        steps: Environment steps in them.
        sealing: Those that wait for rewards.
        queued: Those sealed and never offered to the broker yet.
        queued_bytes: Their size, encoded.
        issued: Those that were offered, and have a number for it.
        unanswered: Those offered that the broker has not answered.
        floor: Lowest number that may still be offered again.
        resent: Offers repeated after the broker had answered.
        dropped: Discarded by the drop policy.
        quarantined: Given up because rewards were missing.
        abandoned: Open trajectories given up with nothing to send.
        broker: "connecting", "up", "down", "held" (the registration was refused), "paused" (too
            much unsettled in the stream), "refusing" (the broker refuses appends), "spool_failing"
            (numbers cannot be written down) or "closed".
        refused: Why the registration was refused, "" if it was not.
        overruled: Dotted paths of parameters that this agent's configuration states and that do not
            count: the worker's definition, or the first registration, says otherwise.
        spooled: Whether a spool on disk keeps what is queued and offered.
        unsaved: Trajectories that its disk had no room for; they are in memory alone.
        adopted: Dead agents whose books this one has closed.
        models_refused: Models that did not decode or fit, so that the one before stayed; or whose
            diffs did not, so that a keyframe was read.
        rollbacks: Times that the broker had lost the version that acted: it went back in time.
        lineage_changes: Times that a model came of another training history: a client was reset or
            deleted, or the broker lost all that it had.
        server_changes: Times that another server answered than before, or the same after a
            restart or in another role; what is retained was offered again.
        last_error: What went wrong last, "" if nothing has.
        closed: `close` was called.
    """

    client: str
    agent_id: str
    version: int
    token: str
    lineage: str
    policy_age_s: float | None
    control: str
    rule: str
    decisions: int
    fallback_decisions: int
    late_decisions: int
    open: int
    accepted: int
    steps: int
    sealing: int
    queued: int
    queued_bytes: int
    issued: int
    unanswered: int
    floor: int
    resent: int
    dropped: int
    quarantined: int
    abandoned: int
    broker: str
    refused: str
    overruled: tuple[str, ...]
    spooled: bool
    unsaved: int
    adopted: int
    models_refused: int
    rollbacks: int
    lineage_changes: int
    server_changes: int
    last_error: str
    closed: bool
