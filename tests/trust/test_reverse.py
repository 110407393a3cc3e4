"""Without any CA: `llm-calls start --reverse` stands in for a server, and an app is told its address."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import ROUTER, clean_environment, clients_python, closed_port, until
from standin import StandIn
from trust.command import Command

PROGRAMS = Path(__file__).with_name("clients")
AZURE = "mine.openai.azure.com"


@contextmanager
def reverse(folder: Path, standin: StandIn, server: str) -> Iterator[tuple[Command, list[str]]]:
    """`llm-calls start --reverse server` while it runs, and the variables that it tells to set."""
    user = Command(folder, standin)
    routes = {"routes": {"api.openai.com": standin.port, AZURE: standin.port}, "ready": str(folder / "ready.json")}
    given = {"LLM_CALLS_TEST_ROUTER": json.dumps(routes)}
    process = user.start("start", "--port", str(closed_port()), "--reverse", server, "--", "-s", ROUTER, **given)
    try:
        until(lambda: (folder / "ready.json").exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(3)]
        yield user, [line.split()[-1] for line in told if "=http" in line]
    finally:
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == 0


def ask(folder: Path, variable: str, *words: str | Path) -> None:
    """Run a client that knows nothing but the variable: neither a proxy nor a certificate."""
    name, _, value = variable.partition("=")
    keys = {"OPENAI_API_KEY": "sk-test", "AZURE_OPENAI_API_KEY": "sk-test", "OPENAI_API_VERSION": "2024-10-21"}
    done = subprocess.run(
        [clients_python(), *map(str, words)],
        env=clean_environment(folder / "app", **{**keys, name: value}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("answer ", "chunk ")), done.stdout


def told(rows: list[dict[str, Any]]) -> list[tuple[str, str, str, int, str]]:
    names = ("request_url", "server_address", "request_model", "stream", "outcome")
    return [tuple(row[name] for name in names) for row in rows]  # type: ignore[misc]


def test_openai(tmp_path: Path) -> None:
    with StandIn() as standin, reverse(tmp_path, standin, "https://api.openai.com/v1") as (user, [variable]):
        assert variable.startswith("OPENAI_BASE_URL=http://127.0.0.1:")
        ask(tmp_path, variable, PROGRAMS / "openai_python.py", "sync")
        ask(tmp_path, variable, PROGRAMS / "openai_python.py", "stream")
        done = user("env")
        assert (done.returncode, "--reverse" in done.stderr) == (2, True), done
        done = user("run", "-s", ROUTER, "--", "sh", "-c", "echo $HTTPS_PROXY")
        assert done.stdout.strip() not in ("", variable.partition("=")[2].removesuffix("/v1"))
    url = "https://api.openai.com/v1/chat/completions"
    assert told(user.rows()) == [
        (url, "api.openai.com", "gpt-5-mini", 0, "ok"),
        (url, "api.openai.com", "gpt-5-mini", 1, "ok"),
    ]


def test_azure(tmp_path: Path) -> None:
    with StandIn() as standin, reverse(tmp_path, standin, f"https://{AZURE}") as (user, [endpoint, base]):
        assert endpoint.startswith("AZURE_OPENAI_ENDPOINT=http://127.0.0.1:")
        ask(tmp_path, endpoint, PROGRAMS / "azure_python.py")
        ask(tmp_path, base, PROGRAMS / "openai_python.py", "sync")
    old = f"https://{AZURE}/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"
    assert told(user.rows()) == [
        (old, AZURE, "my-deployment", 0, "ok"),
        (f"https://{AZURE}/openai/v1/chat/completions", AZURE, "gpt-5-mini", 0, "ok"),
    ]


@pytest.mark.parametrize("path", ["", "/api/v1"])
def test_a_compatible_server_without_tls(tmp_path: Path, path: str) -> None:
    with StandIn(tls=False) as standin:
        address = f"127.0.0.1:{standin.port}"
        with StandIn() as trusted, reverse(tmp_path, trusted, f"http://{address}{path}") as (user, [variable]):
            ask(tmp_path, variable, PROGRAMS / "openai_python.py", "sync")
    assert told(user.rows()) == [
        (f"http://{address}{path or '/v1'}/chat/completions", address, "gpt-5-mini", 0, "ok"),
    ]
