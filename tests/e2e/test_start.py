"""`llm-calls start` and `query`, as a user types them."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.harness import clean_environment, closed_port, until

COMMAND = [sys.executable, "-c", "from calltracker.cli import main; main(prog_name='llm-calls')"]
ADDON = str(Path(__file__).resolve().parents[2] / "addon")


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(home, PYTHONPATH=ADDON, LLM_CALLS_HOME=str(home / "state"))
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A proxy that `llm-calls start` has started, and its port."""
    port = closed_port()
    environment = clean_environment(tmp_path, PYTHONPATH=ADDON, LLM_CALLS_HOME=str(tmp_path / "state"))
    command = [*COMMAND, "start", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        until((tmp_path / "state" / "proxy.json").exists)
        yield process, port
    finally:
        process.kill()
        process.wait()


def test_start_tells_what_to_do_and_ends_in_order(tmp_path: Path, proxy: tuple[subprocess.Popen[str], int]) -> None:
    process, port = proxy
    found = tmp_path / "state" / "proxy.json"
    facts = json.loads(found.read_text())
    assert (facts["pid"], facts["host"], facts["port"]) == (process.pid, "127.0.0.1", port)
    for place in (tmp_path / "state", *(tmp_path / "state").glob("*")):
        assert place.stat().st_mode & 0o077 == 0 or place.name == "proxy.json", place
    again = run(tmp_path, "start", "--port", str(port))
    assert again.returncode == 2
    assert f"runs at port {port} already" in again.stderr
    assert again.stderr.count("\n") == 1
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"HTTPS_PROXY=http://127.0.0.1:{port}" in told
    assert str(tmp_path / "state" / "journal.sqlite3") in told
    assert not found.exists()


def test_mistakes_get_one_line_and_status_2(tmp_path: Path) -> None:
    for arguments, says in (
        (["start", "--hosts", "https://x"], "'https://x' is not a host"),
        (["start", "--reverse", "api.openai.com"], "is not the URL of a server"),
        (["query", "latency_by_model"], "no call has been recorded yet"),
        (["query", "no_such_question"], "there is no question 'no_such_question'"),
    ):
        done = run(tmp_path, *arguments)
        assert done.returncode == 2, done
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_help_names_every_command(tmp_path: Path) -> None:
    done = run(tmp_path, "--help")
    assert done.returncode == 0, done.stderr
    for name in ("start", "query", "run", "env", "proton"):
        assert name in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "No such command 'nonsense'; see llm-calls --help"),
        (["start", "--nonsense"], "No such option '--nonsense'"),
        (["start", "--port", "http"], "'http' is not a valid integer"),
        (["query", "SELEC 1"], "syntax error"),
    ],
)
def test_mistakes_on_the_command_line_get_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "state").mkdir()
    sqlite3.connect(tmp_path / "state" / "journal.sqlite3").close()
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("llm-calls: ") and done.stderr.count("\n") == 1
    assert says in done.stderr
