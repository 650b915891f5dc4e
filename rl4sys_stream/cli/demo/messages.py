"""What an application process tells the demo: one JSON object a line on its standard output."""

from collections.abc import Callable

import msgspec

__all__ = [
    "ApplicationOrder",
    "Episode",
    "Evaluated",
    "Finished",
    "Message",
    "Ready",
    "decode_message",
    "message_sender",
]


class ApplicationOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What an application process is started with; its only argument, as JSON.

    Attributes:
        number: From 0, among the applications of this run.
        seed: Of its environment and its sampling of actions.
        max_steps: Environment steps after which it ends by itself.
        definition: Path of the client's definition.
        client: Its name.
        environment: Gymnasium's id of what it plays.
        envs: How many of it.
        agents: Applications of this run.
        max_episode_steps: Longer episodes are truncated; None: the environment's own limit.
        eval_episodes: Greedy episodes after training.
        film: Where to put the film of the best one; None for no film.
    """

    number: int
    seed: int
    max_steps: int
    definition: str
    client: str
    environment: str
    envs: int = 1
    agents: int = 1
    max_episode_steps: int | None = None
    eval_episodes: int = 0
    film: str | None = None


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The first model is there; the first episode begins."""

    agent_id: str


class Episode(msgspec.Struct, frozen=True, kw_only=True, tag="episode"):
    """A training episode has ended.

    Attributes:
        total: Return, the undiscounted sum of rewards.
        length: Its environment steps.
        steps: Environment steps of the application so far.
        version: Model version that chose the last action.
    """

    total: float
    length: int
    steps: int
    version: int


class Evaluated(msgspec.Struct, frozen=True, kw_only=True, tag="evaluated"):
    """Greedy episodes of the newest policy after training.

    Attributes:
        returns: Of each of them.
        version: Model version that acted.
        filmed: Return of the episode in the film; None if there is no film.
    """

    returns: tuple[float, ...]
    version: int
    filmed: float | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """The application has ended in order; the agent's books at the end.

    Attributes:
        flushed: The broker has answered for everything.
        steps: Environment steps taken.
        accepted_steps: Environment steps in ended or cut trajectories.
        waited_s: How long the simulator waited for the learner.
    """

    agent_id: str
    flushed: bool
    steps: int
    accepted_steps: int
    waited_s: float


Message = Ready | Episode | Evaluated | Finished


def decode_message(line: bytes) -> Message:
    """One line back as a message.

    Raises:
        msgspec.MsgspecError: If it is none.
    """
    message: Message = msgspec.json.decode(line, type=Message)
    return message


def message_sender(write: Callable[[bytes], object]) -> Callable[[Message], None]:
    """A function that writes messages as lines; each in one `write`."""

    def send(message: Message) -> None:
        write(msgspec.json.encode(message) + b"\n")

    return send
