"""The shape of the command line, and that the page about it says the same."""

import importlib.machinery
import re
import sys
from pathlib import Path

import click
import pytest

from rl4sys_stream.broker.lease import LeaseState
from rl4sys_stream.broker.registry import WorkerReport
from rl4sys_stream.cli import main
from rl4sys_stream.cli.inspect import worker_next_move, worker_state
from rl4sys_stream.cli.options import counted, echo_json, echo_table
from rl4sys_stream.errors import ExitCode

PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
HELD, FREE = LeaseState("1:a", "1:a", 5000), LeaseState("", "1:a", 0)
NOW_MS = 1_000_000_000


def _commands() -> dict[str, click.Command]:
    """Path -> command, groups left out; the demo has a page and an author of its own."""
    found: dict[str, click.Command] = {}
    context = click.Context(main.cli)
    for name in main.cli.list_commands(context):
        command = main.cli.get_command(context, name)
        if name == "demo" or command is None:
            continue
        if isinstance(command, click.Group):
            found |= {f"{name} {verb}": inner for verb, inner in command.commands.items()}
        else:
            found[name] = command
    return found


COMMANDS = _commands()


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_says_what_it_does_and_has_help(path, capsys):
    """A sentence, and each option with a word of its own."""
    assert main._run([*path.split(), "--help"]) == ExitCode.OK
    assert f"Usage: rl4sys-stream {path}" in capsys.readouterr().out
    for option in COMMANDS[path].params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, option.name


@pytest.mark.parametrize(
    "path", ["status", "audit", "clients list", "models list", "models show", "doctor"]
)
def test_every_reading_command_has_json(path):
    """For programs, which do not parse tables."""
    assert "--json" in {name for option in COMMANDS[path].params for name in option.opts}


@pytest.mark.parametrize("path", COMMANDS)
def test_the_operations_page_has_every_command_with_its_options(path):
    """And names no option that is not there."""
    section = re.search(rf"^### `{path}.*?(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert section, f"docs/operations.md has no section on `{path}`"
    told = set(re.findall(r"`(--[a-z-]+)", section[0]))
    options = {
        option.opts[0]
        for option in COMMANDS[path].params
        if isinstance(option, click.Option) and not option.hidden
    }
    assert told == options - {"--help"}


def test_the_operations_page_and_the_help_have_every_exit_code(capsys):
    """With the same numbers."""
    main._run(["--help"])
    text = " ".join(capsys.readouterr().out.partition("Exit codes:")[2].split())
    for code in ExitCode:
        assert re.search(rf"^\| {int(code)} \| `{code.name}` \|", PAGE, re.MULTILINE), code
        assert re.search(rf"\b{int(code)} ", text), code


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["statsu"], "no command 'statsu'; did you mean 'status'? (see `rl4sys-stream --help`)"),
        (["xyz"], "no command 'xyz'; there are: up, worker,"),
        (["models", "lst"], "did you mean 'list'? (see `rl4sys-stream models --help`)"),
        (["clients", "erase"], "there are: delete, list, reset"),
        (["status", "--jsn"], "No such option '--jsn'. Did you mean '--json'?"),
        (["audit"], "Missing option '--client' (see `rl4sys-stream audit --help`)"),
        (["models", "show", "--client", "x", "one"], "'one' is not a valid integer"),
        (["status", "more"], "unexpected extra argument"),
    ],
)
def test_a_misspelt_command_line_is_answered_in_one_line(arguments, expected, capsys):
    """With the nearest thing that exists, and exit code 2."""
    assert main._run(arguments) == ExitCode.USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: ")
    assert expected in printed.err


def test_no_command_at_all_gets_the_help(capsys):
    """It is what the user asked for, in effect."""
    assert main._run([]) == ExitCode.USAGE
    assert "Commands:" in capsys.readouterr().err


def test_an_unforeseen_error_keeps_its_traceback_and_loses_its_secrets(monkeypatch, capsys):
    """Exit code 70: somebody has to look at it."""

    def fail(*_arguments, **_options):
        raise RuntimeError("redis://:hunter2@host broke")

    monkeypatch.setattr(main.cli, "main", fail)
    assert main._run([]) == ExitCode.SOFTWARE
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "hunter2" not in printed
    assert "redis://:***@host broke" in printed


@pytest.mark.parametrize("raised", [KeyboardInterrupt, click.exceptions.Abort])
def test_an_interrupt_ends_without_a_traceback(raised, monkeypatch, capsys):
    """Exit code 130, as shells have it."""

    def interrupt(*_arguments, **_options):
        raise raised

    monkeypatch.setattr(main.cli, "main", interrupt)
    assert main._run([]) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [["worker", "--client", "x"], ["up"], ["dispatcher"]])
def test_missing_torch_is_told_with_the_extra_that_brings_it(
    arguments, monkeypatch, capsys, as_it_was
):
    """Before a broker is started or asked for anything."""
    real = importlib.machinery.PathFinder.find_spec

    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] == "torch" else real(name, path, target)

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(importlib.machinery.PathFinder, "find_spec", find_spec)
    monkeypatch.setenv("RL4SYS_STREAM_REDIS_URL", "redis://127.0.0.1:1")
    assert main._run(arguments) == ExitCode.CONFIG
    assert capsys.readouterr().err == (
        "error: torch, which workers train with, is not installed; "
        "run: pip install 'rl4sys-stream[worker]'\n"
    )


@pytest.mark.parametrize(
    ("state", "lease", "age_ms", "expected"),
    [
        ("training", HELD, 0, "training"),
        ("training", FREE, 0, "gone"),
        ("idle", FREE, 0, "gone"),
        ("starting", FREE, 5_000, "starting"),
        ("starting", FREE, 600_000, "gone"),
        ("failed", FREE, 600_000, "failed"),
        ("crash_loop", FREE, 600_000, "crash_loop"),
        ("crash_loop", HELD, 0, "idle"),
        ("stopped", FREE, 0, "stopped"),
        ("waiting", FREE, 0, "waiting"),
    ],
)
def test_a_report_is_believed_as_far_as_the_lease_bears_it_out(state, lease, age_ms, expected):
    """A killed worker says nothing more; its last report still says that it trains."""
    report = WorkerReport(state=state, time_ms=NOW_MS - age_ms)
    assert worker_state(report, lease, now_ms=NOW_MS) == expected


def test_a_worker_that_never_was_is_no_worker():
    """And a state that needs nobody has no next move."""
    assert worker_state(None, FREE, now_ms=NOW_MS) == "never started"
    assert "--client lander" in worker_next_move("never started", "lander")
    assert worker_next_move("training", "lander") == ""


def test_tables_line_up(capsys):
    """Numbers to the right, words to the left, nothing trailing."""
    echo_table(("NAME", "N"), [("a", 1), ("longer", 1000), ("b", "-")])
    assert capsys.readouterr().out == "NAME       N\na          1\nlonger  1000\nb          -\n"


def test_json_loses_the_passwords_of_urls(capsys):
    """Wherever in the data they are."""
    echo_json({"a": ["redis://:hunter2@host:1/0"]})
    assert "redis://:***@host:1/0" in capsys.readouterr().out


def test_one_of_a_thing_is_not_called_many():
    """As doctor and audit do it: zero is many."""
    said = [counted(number, "worker", "workers") for number in (0, 1, 2)]
    assert said == ["0 workers", "1 worker", "2 workers"]
