"""docs/gymnasium.md: its code runs in order, and every way to pace is on it."""

import dataclasses
import re
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from rl4sys_stream import StreamAgent
from rl4sys_stream.gymnasium import Evaluation, Pace, Played
from tests.learning.test_learning_through_the_broker import worker_process

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "gymnasium.md").read_text(encoding="utf-8")


@pytest.fixture
def worker(redis_url: str, client_name: str, tmp_path: Path) -> Iterator[None]:
    """The client's worker, with rollouts that are quickly full."""
    definition = tmp_path / f"{client_name}.json"
    definition.write_text('{"algorithm_parameters": {"n_steps": 256, "n_epochs": 2}}')
    with worker_process(redis_url, definition, client_name):
        yield


@pytest.mark.integration
@pytest.mark.usefixtures("worker")
def test_the_code_of_the_page_runs(redis_url: str, client_name: str, tmp_path: Path) -> None:
    """In the order of the page, beside a worker, with fewer steps."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    code = "\n".join(blocks).replace("redis://localhost:6379", redis_url)
    names: dict[str, object] = {}
    with chdir(tmp_path):
        exec(code.replace('"cartpole"', f'"{client_name}"').replace("20_000", "1000"), names)
    agent, played, greedy = names["agent"], names["played"], names["greedy"]
    assert isinstance(agent, StreamAgent)
    assert isinstance(played, Played)
    assert isinstance(greedy, Evaluation)
    assert played.steps == 1000
    assert len(greedy.returns) == 5
    assert agent.version > 1
    assert (tmp_path / "cartpole.gif").exists()
    agent.close()


def test_every_setting_of_a_pace_is_on_the_page() -> None:
    """By its name."""
    missing = [field.name for field in dataclasses.fields(Pace) if field.name not in PAGE]
    assert not missing
