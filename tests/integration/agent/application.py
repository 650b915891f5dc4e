"""An application with a spool, as a process of its own that can be killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from rl4sys_stream import StreamAgent
from rl4sys_stream.testing import eventually
from tests.integration.agent.world import OBS

ROOT = Path(__file__).resolve().parents[3]
STEPS = 8


class Application:
    """Plays what it is told to, and says of each end when it was marked."""

    def __init__(
        self, config: Path, client: str, url: str, overrides: Mapping[str, object]
    ) -> None:
        plan = {"config": str(config), "client": client, "url": url, "overrides": overrides}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.agent.application", json.dumps(plan)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.agent_id = self._line()

    def play(self, episodes: int, *, rewarded: bool = True) -> None:
        """Return when that many ends were marked."""
        assert self._ask(f"{'play' if rewarded else 'half'} {episodes}") == "played"

    def play_and_die(self, episodes: int) -> None:
        """It kills itself the instant after the last end was marked."""
        assert self._ask(f"die {episodes}") == ""
        assert self._process.wait(20) == -signal.SIGKILL
        self._close()

    def flush(self) -> None:
        """Return when the broker has answered everything."""
        assert self._ask("flush") == "True"

    def status(self, name: str) -> str:
        """One attribute of the agent's status."""
        return self._ask(f"status {name}")

    def reports(self, name: str, value: object) -> None:
        """Wait for a status."""
        eventually(lambda: self.status(name) == str(value), 20, f"{name} is {value}")

    def kill(self) -> None:
        """As a crash would; nothing if it is dead already."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._close()

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def play(agent: StreamAgent, episodes: int, *, rewarded: bool = True, steps: int = STEPS) -> None:
    """Episodes of `steps` steps; unrewarded ones lack their first reward."""
    for _ in range(episodes):
        traj = None
        for step in range(steps):
            traj, action = agent.request_for_action(traj, OBS)
            agent.add_to_trajectory(traj, action)
            if rewarded or step:
                action.update_reward(1.0)
        assert traj is not None
        agent.mark_end_of_trajectory(traj)


def main(plan: dict[str, object]) -> None:
    """In the process: do what the lines on standard input say."""
    agent = StreamAgent(
        str(plan["config"]),
        str(plan["client"]),
        str(plan["url"]),
        overrides=plan["overrides"],  # type: ignore[arg-type]  # as the test wrote it
        environ={},
    )
    print(agent.agent_id, flush=True)
    for line in sys.stdin:
        word, _, argument = line.strip().partition(" ")
        if word in {"play", "half", "die"}:
            play(agent, int(argument), rewarded=word != "half")
            if word == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            answer = "played"
        elif word == "flush":
            answer = str(agent.flush(20))
        else:
            answer = str(getattr(agent.status(), argument))
        print(answer, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
