"""`llm-calls env` as each shell takes it, with a proxy that runs."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest
from calltracker.commands.env import render
from calltracker.trust import child
from trust.command import LLM_CALLS, Command, Shared

CALL = """curl -sSf -H content-type:application/json -d '{"model": "gpt-5-mini", "messages": []}' \
https://api.openai.com/v1/chat/completions"""
# shell → how it is told to run a program, and what the README says to type
SHELLS = {
    "sh": ("-c", 'eval "$(llm-calls env)"'),
    "bash": ("-c", 'eval "$(llm-calls env)"'),
    "zsh": ("-c", 'eval "$(llm-calls env)"'),
    "fish": ("-c", "llm-calls env | source"),
    "pwsh": ("-Command", "llm-calls env --shell powershell | Out-String | Invoke-Expression"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_what_a_shell_is_told_to_type(shared: Shared, shell: str) -> None:
    for program in (shell, "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    path = shared.folder / "bin"
    path.mkdir(exist_ok=True)
    (path / "llm-calls").write_text(f'#!/bin/sh\nexec {shlex.join(LLM_CALLS)} "$@"\n')
    (path / "llm-calls").chmod(0o755)
    option, words = SHELLS[shell]
    given = {**shared.environment, "PATH": f"{path}:{shared.environment['PATH']}", "SHELL": f"/usr/bin/{shell}"}
    command = [shell, option, f"{words}\n{CALL}"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "chat.completion" in done.stdout
    [row] = shared.rows()
    assert (row["request_url"], row["outcome"]) == ("https://api.openai.com/v1/chat/completions", "ok")


def test_without_a_proxy_it_says_what_to_do(llm_calls: Command) -> None:
    done = llm_calls("env")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no proxy is running" in done.stderr


def test_in_the_words_of_each_shell() -> None:
    changes = child.Changes({"A": "it's $HOME"}, ("B",), ())
    assert render(changes, "sh") == "unset B\nexport A='it'\"'\"'s $HOME'"
    assert render(changes, "fish") == "set -e B\nset -gx A 'it\\'s $HOME'"
    assert render(changes, "powershell").endswith("$Env:A = 'it''s $HOME'")
