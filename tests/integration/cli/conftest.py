"""Commands run in this process, with their output and the logging as it was before."""

import io
import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rl4sys_stream.cli.main import _run
from tests.integration.cli.terminal import ROOT


@dataclass(frozen=True)
class Answer:
    """What a command printed and ended with."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that a refused command prints, without its "error: "."""
        lines = self.err.splitlines()
        assert self.out == "", self.out
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: "), self.err
        return lines[0].removeprefix("error: ")


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """Commands set up logging and signals for their process; this one has other uses for them."""
    logger = logging.getLogger("rl4sys_stream")
    before = logger.handlers[:], logger.level, logger.propagate
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    logger.handlers[:], logger.level, logger.propagate = before
    for number, handler in signals.items():
        signal.signal(number, handler)


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], as_it_was: None, tmp_path: Path, monkeypatch
) -> Callable[..., Answer]:
    """Run a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for what the command starts in that folder
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody at the terminal, pytest -s or not
    monkeypatch.setenv("RL4SYS_STREAM_STATE_DIR", str(tmp_path / "state"))

    def run(*arguments: str, **environ: str) -> Answer:
        with monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(f"RL4SYS_STREAM_{name.upper()}", value)
            capsys.readouterr()
            code = _run(list(arguments))
            printed = capsys.readouterr()
        return Answer(int(code), printed.out, printed.err)

    return run
