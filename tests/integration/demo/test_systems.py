"""The seam through which examples of real systems plug into `rl4sys-stream demo`."""

import importlib
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rl4sys_stream.cli.demo import systems
from rl4sys_stream.cli.demo.command import demo
from rl4sys_stream.cli.demo.systems import (
    CHECKOUT,
    SYSTEMS,
    ProgressLine,
    SystemOptions,
    load_system,
    open_client,
)
from rl4sys_stream.clock import SystemClock
from rl4sys_stream.errors import ConfigError

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_has_a_command_with_the_common_options_and_a_run(name: str) -> None:
    """Which is all that the seam asks for; the group's help names it."""
    command = load_system(name)
    options = {parameter.name for parameter in command.params}
    assert options >= {"seed", "out", "redis_url", "config", "plain"}
    assert callable(importlib.import_module(SYSTEMS[name]).run)
    assert f"rl4sys-stream demo {name}" in CliRunner().invoke(demo, ["--help"]).output


def test_a_systems_name_leads_to_its_own_options() -> None:
    """The options of environments do not apply."""
    shown = CliRunner().invoke(demo, ["pg_steer", "--help"]).output
    assert "--postgres-url" in shown
    assert "--max-episode-steps" not in shown


def test_a_systems_name_after_options_is_refused_with_the_right_order() -> None:
    """Instead of a search for an environment of that name."""
    with pytest.raises(click.UsageError, match="comes first"):
        demo.main(["--seed", "2", "pg_steer"], standalone_mode=False)


def test_an_installed_package_names_the_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Examples are not in the wheel."""
    monkeypatch.setattr(systems, "CHECKOUT", tmp_path)
    with pytest.raises(ConfigError, match="runs from a checkout"):
        load_system("pg_steer")


def test_a_client_trains_by_its_definition_and_the_runs_seed(
    redis_url: str, tmp_path: Path
) -> None:
    """The run folder holds what worker and agents read."""
    options = SystemOptions(seed=7, out=tmp_path, redis_url=redis_url)
    definition = CHECKOUT / "workers" / "pg_steer.json"
    with open_client(options, definition, SystemClock()) as client:
        read = json.loads(client.folder.definition.read_text())
        assert read["algorithm_parameters"].pop("seed") == 7
        assert read == json.loads(definition.read_text())
        assert client.system.own is False


def test_progress_is_shown_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """Not for each of thousands of queries."""
    line = ProgressLine(SystemClock(), plain=True)
    line.say("begun")
    for number in range(1000):
        line.update(f"query {number}")
    line.say("over")
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == ["begun", "query 0"]
    assert shown[-1] == "over"
    assert len(shown) < 10
