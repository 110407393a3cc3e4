"""`llm-calls` as a program, in a home of its own, with api.openai.com played by the stand-in."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import ROOT, ROUTER, Proxy, clean_environment
from standin import StandIn


def source_path() -> str:
    """The PYTHONPATH under which a Python finds the package of this checkout."""
    return str(ROOT / "addon")


def node_path() -> str:
    """The folder of npm packages. Skips the test where scripts/test has not made one."""
    found = os.environ.get("LLM_CALLS_TEST_NODE_MODULES")
    if not found or shutil.which("node") is None:
        pytest.skip("LLM_CALLS_TEST_NODE_MODULES is not set: scripts/test makes it where Node is installed")
    return found


LLM_CALLS = [sys.executable, "-c", "from calltracker.cli import main; main(prog_name='llm-calls')"]


class Command:
    """`llm-calls` as a user of this machine would call it, who has nothing installed and no calls yet."""

    def __init__(self, folder: Path, standin: StandIn) -> None:
        self.folder = folder
        self.state = folder / "state"
        routes = {"routes": {"api.openai.com": standin.port}, "ready": str(folder / "ready.json")}
        self.environment = clean_environment(
            folder / "home",
            LLM_CALLS_HOME=str(self.state),
            LLM_CALLS_TEST_ROUTER=json.dumps(routes),
            SSL_CERT_FILE=str(standin.root),  # what this user trusts besides: the proxy must get to know it
            PYTHONPATH=str(ROOT / "addon"),
            OPENAI_API_KEY="sk-test-trust",
        )

    def start(self, *words: str | Path, **more: str) -> subprocess.Popen[str]:
        """Begin `llm-calls words…`."""
        return subprocess.Popen(
            [*LLM_CALLS, *map(str, words)],
            env={**self.environment, **more},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str | Path, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        """`llm-calls words…`, to its end."""
        with self.start(*words, **more) as process:
            try:
                out, err = process.communicate(stdin, timeout=90)
            finally:
                process.kill()
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def run(self, *words: str | Path, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        """`llm-calls run -- words…`."""
        return self("run", "-s", ROUTER, "--", *words, stdin=stdin, **more)

    def rows(self) -> list[dict[str, Any]]:
        """The journal's rows."""
        with closing(sqlite3.connect(self.state / "journal.sqlite3")) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM llm_calls ORDER BY request_time")]


class Shared(Command):
    """A user whose proxy runs. seen: how many rows the tests so far have taken note of."""

    def __init__(self, folder: Path, standin: StandIn, proxy: Proxy) -> None:
        super().__init__(folder, standin)
        self.standin, self.proxy, self.seen = standin, proxy, 0
        self.environment |= {"LLM_CALLS_HOME": str(proxy.home), "LLM_CALLS_JOURNAL": str(proxy.journal)}

    def run(self, *words: str | Path, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return self("run", "--", *words, stdin=stdin, **more)

    def rows(self) -> list[dict[str, Any]]:
        """The rows since the last look; waits for one."""
        rows = self.proxy.wait_rows(self.seen + 1)
        new, self.seen = rows[self.seen :], len(rows)
        return new
