"""The command `llm-calls`: each of its commands is a module in commands/."""

from __future__ import annotations

import importlib

import click

from . import __version__

# command → the module in commands/ that holds a click command of the same name
COMMANDS = {
    "query": "query",
    "proton": "proton",
    "ca": "ca",
    "run": "run",
    "env": "env",
    "start": "start",
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


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llm-calls")
def main() -> None:
    """Every call that your applications make to OpenAI, as rows in SQL."""
