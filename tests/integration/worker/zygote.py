"""Worker processes in 50 ms instead of two seconds: a process that has imported torch forks them.

Each child runs the console script's own `main`, so it is the process that a user would start.
"""

import atexit
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


class Zygote:
    """The parent of worker processes; `close` ends it and all of them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.integration.worker.zygote import serve; serve()"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self,
        arguments: Sequence[str],
        *,
        url: str,
        log: Path,
        algorithm: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> int:
        """Run `rl4sys-stream` with `arguments`; its process id.

        Args:
            arguments: Of the command.
            url: Of the broker.
            log: Takes what it prints.
            algorithm: `module:function` of an algorithm factory to use in place of the usual one.
            environ: Added to its environment.
        """
        request = {
            "arguments": list(arguments),
            "environ": {"RL4SYS_STREAM_REDIS_URL": url, **(environ or {})},
            "log": str(log),
            "algorithm": algorithm,
        }
        return int(self._ask(request))

    def poll(self, pid: int) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        code = self._ask({"poll": pid})
        return None if code is None else int(code)

    def close(self) -> None:
        """End it, and what it started."""
        self._process.communicate()

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@functools.cache
def shared_zygote() -> Zygote:
    """The one of this pytest process: torch takes seconds to import."""
    zygote = Zygote()
    atexit.register(zygote.close)
    return zygote


def serve() -> None:
    """Fork a child for each line on standard input, until it ends."""
    # Once, for all children.
    import rl4sys_stream.cli.main  # noqa: PLC0415
    import rl4sys_stream.cli.serve  # noqa: PLC0415
    import rl4sys_stream.worker.loop  # noqa: F401, PLC0415
    from rl4sys_stream.algorithms.ppo import PPO  # noqa: PLC0415
    from rl4sys_stream.config import ClientSpec, PPOParameters  # noqa: PLC0415
    from rl4sys_stream.spaces import Box, Discrete  # noqa: PLC0415

    # The first optimizer of a process makes torch import its compiler, which takes as long again.
    PPO(ClientSpec(observation_space=Box((1,)), action_space=Discrete(2)), PPOParameters(), seed=0)

    children: dict[int, int | None] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid = request["poll"]
            if children[pid] is None:
                done, status = os.waitpid(pid, os.WNOHANG)
                children[pid] = os.waitstatus_to_exitcode(status) if done else None
            print(json.dumps(children[pid]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _run(request)
        children[pid] = None
        print(pid, flush=True)
    for pid, code in children.items():
        if code is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    os._exit(0)  # taking torch down in good order takes seconds, and serves nobody


def _replace_algorithm(name: str) -> None:
    """Let the worker of this process learn by another algorithm."""
    from rl4sys_stream.cli import serve as command  # noqa: PLC0415
    from rl4sys_stream.worker.loop import Worker  # noqa: PLC0415

    module, _, factory = name.partition(":")
    make = getattr(importlib.import_module(module), factory)
    vars(command)["_load_worker"] = lambda: functools.partial(Worker, algorithm_factory=make)


def _run(request: dict[str, Any]) -> None:
    from rl4sys_stream.cli.main import main  # noqa: PLC0415 -- it changes signals, in the child
    from tests.fault.deaths import arrange  # noqa: PLC0415

    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.environ.update(request["environ"])
    sys.argv = ["rl4sys-stream", *request["arguments"]]
    if request["algorithm"]:
        _replace_algorithm(request["algorithm"])
    arrange()
    code = 1
    try:
        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    finally:
        sys.stderr.flush()
        os._exit(code)
