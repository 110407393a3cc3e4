"""Real clients under `llm-calls run`: the call succeeds, becomes one row, and streamed chunks come one by one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from e2e.harness import ROUTER, clients_python
from standin import StandIn
from standin.behaviours import chat_events
from trust.command import Command

PROGRAMS = Path(__file__).with_name("clients")
URL = "https://api.openai.com/v1/chat/completions"
LINES = ["LLM_CALLS_TEST_CLIENTS", "LLM_CALLS_TEST_CLIENTS_OLD"]


def one_row(llm_calls: Command, **wanted: object) -> None:
    [row] = llm_calls.rows()
    wanted = {"request_method": "POST", "request_url": URL, "response_status_code": 200, "outcome": "ok", **wanted}
    assert {name: row[name] for name in wanted} == wanted


def node_path() -> str:
    """The folder of npm packages. Skips the test where scripts/test has not made one."""
    found = os.environ.get("LLM_CALLS_TEST_NODE_MODULES")
    if not found or shutil.which("node") is None:
        pytest.skip("LLM_CALLS_TEST_NODE_MODULES is not set: scripts/test makes it where Node is installed")
    return found


def streams(llm_calls: Command, standin: StandIn, *command: str | Path, **more: str) -> None:
    """The first chunk reaches the program while the server still keeps back the others."""
    first = len(b"".join(chat_events("gpt-5-mini", 3, usage=False)[:2]))
    standin.on("POST", "/v1/chat/completions", "chat_stream", chunks=3, gate="rest", gate_at=first)
    process = llm_calls.start("run", "-s", ROUTER, "--", *command, **more)
    try:
        standin.gate("rest").wait_reached(timeout=60)
        assert process.stdout is not None
        early = [process.stdout.readline(), process.stdout.readline()]
        standin.gate("rest").release()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert all(line.startswith("chunk") for line in early), (early, err)
    assert out.count("chunk") >= 2, err
    assert process.returncode == 0, err
    one_row(llm_calls, stream=1)


@pytest.mark.parametrize("variable", LINES)
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_openai_for_python(llm_calls: Command, variable: str, mode: str) -> None:
    done = llm_calls.run(clients_python(variable), PROGRAMS / "openai_python.py", mode)
    assert (done.returncode, done.stdout[:7]) == (0, "answer "), done.stderr
    one_row(llm_calls)


@pytest.mark.parametrize("variable", LINES)
@pytest.mark.parametrize("mode", ["stream", "async-stream"])
def test_openai_for_python_streamed(llm_calls: Command, standin: StandIn, variable: str, mode: str) -> None:
    streams(llm_calls, standin, clients_python(variable), PROGRAMS / "openai_python.py", mode)


@pytest.mark.parametrize("library", ["requests", "httpx", "aiohttp", "urllib"])
def test_http_libraries_for_python(llm_calls: Command, library: str) -> None:
    done = llm_calls.run(clients_python(), PROGRAMS / "http_python.py", library)
    assert (done.returncode, done.stdout[:7]) == (0, "answer "), done.stderr
    one_row(llm_calls)


def test_websockets_for_python(llm_calls: Command) -> None:
    done = llm_calls.run(clients_python(), PROGRAMS / "websocket_python.py")
    assert (done.returncode, done.stdout[:7]) == (0, "answer "), done.stderr
    urls = [row["request_url"] for row in llm_calls.rows()]
    assert any("api.openai.com/v1/realtime?model=gpt-realtime" in url for url in urls), urls


@pytest.mark.parametrize("mode", ["openai", "fetch", "https"])
def test_node(llm_calls: Command, mode: str) -> None:
    done = llm_calls.run("node", PROGRAMS / "node_client.cjs", mode, NODE_PATH=node_path())
    assert (done.returncode, done.stdout[:7]) == (0, "answer "), done.stderr
    one_row(llm_calls)


def test_node_streamed(llm_calls: Command, standin: StandIn) -> None:
    streams(llm_calls, standin, "node", PROGRAMS / "node_client.cjs", "openai-stream", NODE_PATH=node_path())


def test_curl(llm_calls: Command) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    ask = '{"model": "gpt-5-mini", "messages": []}'
    done = llm_calls.run("curl", "-sSf", "-H", "content-type: application/json", "-d", ask, URL)
    assert done.returncode == 0, done.stderr
    one_row(llm_calls, request_content=ask)


GO = """package main
import ("net/http"; "os"; "strings")
func main() {
  answer, err := http.Post("URL", "application/json", strings.NewReader(`{"model": "gpt-5-mini", "messages": []}`))
  if err != nil || answer.StatusCode != 200 { println(err.Error()); os.Exit(1) }
}
""".replace("URL", URL)

JAVA = """
import java.net.URI; import java.net.http.*;
public class App { public static void main(String[] given) throws Exception {
  var body = HttpRequest.BodyPublishers.ofString("{\\"model\\": \\"gpt-5-mini\\", \\"messages\\": []}");
  var ask = HttpRequest.newBuilder(URI.create("URL")).header("content-type", "application/json").POST(body).build();
  System.exit(HttpClient.newHttpClient().send(ask, HttpResponse.BodyHandlers.ofString()).statusCode() == 200 ? 0 : 1);
} }
""".replace("URL", URL)


def test_go(llm_calls: Command, tmp_path: Path) -> None:
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    (tmp_path / "app.go").write_text(GO)
    done = llm_calls.run("go", "run", tmp_path / "app.go", GOTOOLCHAIN="local", GOFLAGS="-mod=mod")
    assert done.returncode == 0, done.stderr
    one_row(llm_calls)


def test_java(llm_calls: Command, tmp_path: Path) -> None:
    if shutil.which("javac") is None:
        pytest.skip("no JDK is installed")
    (tmp_path / "App.java").write_text(JAVA)
    done = llm_calls("run", "--java", "-s", ROUTER, "--", "java", tmp_path / "App.java")
    assert done.returncode == 0, done.stderr
    one_row(llm_calls)
