"""One client in the care of a dispatcher: its process, its failures, when to try again."""

import random
from dataclasses import dataclass

from rl4sys_stream.dispatcher.process import WorkerProcess

__all__ = ["DispatcherSettings", "Leaver", "Ward"]


@dataclass(frozen=True, slots=True)
class DispatcherSettings:
    """How a dispatcher starts, restarts and stops workers.

    Attributes:
        tick_s: Time between two looks at the registry.
        capacity: Most workers at once on this host.
        backoff_s: Wait before the first restart; doubled for each failure in a row.
        max_backoff_s: Longest wait before a restart.
        healthy_s: A worker that ran this long starts the count of failures anew.
        crash_limit: After this many failures in a row the client is left alone, and says so.
        grace_s: From SIGTERM to SIGKILL; above the time of one update.
    """

    tick_s: float = 0.5
    capacity: int = 64
    backoff_s: float = 0.5
    max_backoff_s: float = 30.0
    healthy_s: float = 60.0
    crash_limit: int = 5
    grace_s: float = 30.0


@dataclass(slots=True)
class Ward:
    """One client as its dispatcher sees it.

    Attributes:
        process: Its worker, None while there is none.
        started: When that was started, in seconds of the clock.
        not_before: Before this no worker is started.
        failures: In a row.
        cause: What the last failure was, in words; "" after a success.
        given_up_on: Lineage in which it was given up, "" if it was not. A reset of the client or a
            restart of the dispatcher tries again.
    """

    process: WorkerProcess | None = None
    started: float = 0.0
    not_before: float = 0.0
    failures: int = 0
    cause: str = ""
    given_up_on: str = ""

    def note_success(self, now: float, settings: DispatcherSettings) -> None:
        """It ended as it should, or starts with a clean record."""
        self.failures, self.cause, self.given_up_on = 0, "", ""
        # Not at once: one that keeps ending well must not keep a core busy with starting it.
        self.not_before = now + settings.backoff_s

    def note_failure(
        self, cause: str, now: float, settings: DispatcherSettings, rng: random.Random
    ) -> float:
        """It failed; returns the seconds until the next try, with jitter."""
        self.failures += 1
        self.cause = cause
        doubled = settings.backoff_s * 2.0 ** min(self.failures - 1, 16)
        wait_s = min(doubled, settings.max_backoff_s) * rng.uniform(0.5, 1.0)
        self.not_before = now + wait_s
        return wait_s


@dataclass(frozen=True, slots=True)
class Leaver:
    """The worker of a client that is not registered any more, asked to go.

    Attributes:
        client: Whose worker it was.
        process: It.
        deadline: When it is killed, in seconds of the clock.
    """

    client: str
    process: WorkerProcess
    deadline: float
