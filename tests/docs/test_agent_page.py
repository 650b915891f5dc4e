"""docs/agent.md: its code runs in order, and its table has every field that there is."""

import dataclasses
import re
from pathlib import Path

import pytest

from rl4sys_stream import ActionHandle, StreamAgent
from rl4sys_stream.agent.status import AgentStatus

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "agent.md").read_text(encoding="utf-8")


@pytest.mark.integration
def test_the_code_of_the_page_runs(redis_url: str, client_name: str) -> None:
    """In the order of the page, at a broker without a worker, every trajectory in the books."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    code = "\n".join(blocks).replace("redis://localhost:6379", redis_url)
    names: dict[str, object] = {}
    exec(code.replace("my_queue", client_name), names)
    agent, careful = names["agent"], names["careful"]
    assert isinstance(agent, StreamAgent)
    assert isinstance(careful, StreamAgent)
    status = agent.status()
    assert (status.accepted, status.sealing, status.open) == (4, 0, 0)
    assert (status.decisions, status.fallback_decisions) == (6, 6)
    choice = names["choice"]
    assert isinstance(choice, ActionHandle)
    assert choice.action == 0, "the only one that the mask allows"
    _, action = careful.request_for_action(None, [0.3, 0.2, 0.1])
    assert action.action == 1
    agent.close()
    careful.close()


def test_every_field_of_the_status_is_on_the_page() -> None:
    """And none that there is not."""
    table = PAGE.partition("## What `agent.status()` says")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(AgentStatus))
