"""The command `llm-calls`: each of its commands is a module in commands/."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Iterator
from typing import Any

import click

from . import __version__
from .commands.refusal import Refused

# command → the module in commands/ that holds a click command of the same name
COMMANDS = {
    "query": "query",
    "proton": "proton",
    "ca": "ca",
    "run": "run",
    "env": "env",
    "start": "start",
    "doctor": "doctor",
}


class _Commands(click.Group):
    """Imports a command's module only when that command is asked for: `query` need not wait for mitmproxy."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".commands.{COMMANDS[cmd_name]}", __package__)
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _in_one_line():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _in_one_line():
            return super().invoke(ctx)


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    """A mistake on the command line is told in one line, as every other is; click would print three."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "llm-calls"
        raise Refused(f"{error.format_message().rstrip('.')}; see {command} --help") from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llm-calls")
def main() -> None:
    """Every call that your applications make to OpenAI, as rows in SQL."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal, or a pipe on Windows, that is not UTF-8: what it lacks is escaped, as on the standard error.
        sys.stdout.reconfigure(errors="backslashreplace")
