"""The console script: finds the command, runs it, turns errors into exit codes."""

import importlib
import logging
import sys
import traceback
from typing import Final

import click

from rl4sys_stream._version import __version__
from rl4sys_stream.cli.group import CommandGroup
from rl4sys_stream.errors import ExitCode, StreamError
from rl4sys_stream.telemetry import redact_url

__all__ = ["cli", "main"]

_COMMANDS: Final = {
    "up": "rl4sys_stream.cli.up:up",
    "worker": "rl4sys_stream.cli.serve:worker",
    "dispatcher": "rl4sys_stream.cli.serve:dispatcher",
    "demo": "rl4sys_stream.cli.demo.command:demo",
    "status": "rl4sys_stream.cli.inspect:status",
    "audit": "rl4sys_stream.cli.inspect:audit",
    "clients": "rl4sys_stream.cli.clients:clients",
    "models": "rl4sys_stream.cli.models:models",
    "doctor": "rl4sys_stream.cli.doctor:doctor",
}
"""Command -> where it is; imported when called, so that `status` does not wait for torch."""

_EPILOG: Final = """
\b
On one machine, with nothing else installed:
  rl4sys-stream up                             broker + dispatcher in this terminal
  rl4sys-stream demo lunar_lander              all of it, learning before your eyes
\b
With a broker of your own:
  export RL4SYS_STREAM_REDIS_URL=redis://HOST:6379
  rl4sys-stream worker --client lunar_lander   one worker, by hand
  rl4sys-stream dispatcher                     or one for each client, as needed
  rl4sys-stream status                         who is there, how far, how fast
\b
Exit codes: 0 done, 1 the answer is no, 2 usage, 65 data, 66 not found, 69 broker,
70 unforeseen, 71 training not finite, 75 lease held, 78 settings, 130 interrupted
"""


class _LazyGroup(CommandGroup):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, name = target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=_LazyGroup, epilog=_EPILOG, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="rl4sys-stream")
def cli() -> None:
    """Reinforcement learning for system control over Redis streams."""


def main() -> None:
    """Run the command line and exit with the code that says how it went."""
    sys.exit(int(_run(sys.argv[1:])))


def _run(arguments: list[str]) -> int:
    try:
        result = cli.main(arguments, prog_name="rl4sys-stream", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except SystemExit:
        # click's answer to a reader that went away (`| head`): not worth a word.
        return ExitCode.OK
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        click.echo(f"error: {_in_one_line(error)}", err=True)
        return error.exit_code
    except StreamError as error:
        click.echo(f"error: {redact_url(str(error))}", err=True)
        if logging.getLogger("rl4sys_stream").isEnabledFor(logging.DEBUG):
            click.echo(redact_url(traceback.format_exc()), err=True)
        return error.exit_code
    except Exception:  # noqa: BLE001 - the last resort, with the traceback
        click.echo(redact_url(traceback.format_exc()), err=True)
        click.echo("error: this was not foreseen; please report it with the lines above", err=True)
        return ExitCode.SOFTWARE
    return int(result) if isinstance(result, int) else ExitCode.OK


def _in_one_line(error: click.ClickException) -> str:
    """What is wrong with the command line, and where its help is."""
    message = " ".join(error.format_message().split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return redact_url(message)
    return f"{redact_url(message).rstrip('.')} (see `{context.command_path} --help`)"
