"""How a command says no."""

from __future__ import annotations

from typing import IO, Any

import click


class Refused(click.ClickException):
    """What is wrong and what to do: one line on stderr, exit status 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"llm-calls: {self.format_message()}", file=file, err=file is None)
