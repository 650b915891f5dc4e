"""What an application process of ours tells the benchmark: one JSON object a line."""

import msgspec

__all__ = ["ApplicationOrder", "Episode", "Finished", "Message", "Ready"]


class ApplicationOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What it is started with; its only argument, as JSON.

    Attributes:
        definition: Path of the client's file.
        redis_url: The broker.
        environment: Gymnasium's id.
        envs: How many of it.
        agents: Applications in all.
        seed: Of its first environment and of the sampling of actions.
        updates_ahead: How far it may run ahead of the learner.
        versions_behind: How many versions its policy is to be old.
    """

    definition: str
    redis_url: str
    environment: str
    envs: int
    agents: int
    seed: int
    updates_ahead: float
    versions_behind: int


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """It has a model, and begins at the next line of its standard input."""


class Episode(msgspec.Struct, frozen=True, kw_only=True, tag="episode"):
    """A training episode has ended.

    Attributes:
        at: Monotonic seconds, of the machine.
        steps: Environment steps of this application so far.
        total: The episode's return.
    """

    at: float
    steps: int
    total: float


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """It has stopped, and everything is delivered.

    Attributes:
        began: Monotonic seconds, before its first step.
        at: After its last one.
        steps: Environment steps taken.
        waited_s: How long it waited for the learner.
    """

    began: float
    at: float
    steps: int
    waited_s: float


Message = Ready | Episode | Finished
