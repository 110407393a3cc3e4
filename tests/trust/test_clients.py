"""Real clients under `llm-calls run`: the call succeeds, becomes one row, and streamed chunks come one by one."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from pathlib import Path

import pytest
from e2e.harness import clean_environment, clients_python
from standin.behaviours import chat_events
from trust.command import Shared, node_path

PROGRAMS = Path(__file__).with_name("clients")
URL = "https://api.openai.com/v1/chat/completions"
LINES = ["LLM_CALLS_TEST_CLIENTS", "LLM_CALLS_TEST_CLIENTS_OLD"]


def one_row(shared: Shared, **wanted: object) -> None:
    [row] = shared.rows()
    wanted = {"request_method": "POST", "request_url": URL, "response_status_code": 200, "outcome": "ok", **wanted}
    assert {name: row[name] for name in wanted} == wanted


def answers(shared: Shared, *command: str | Path, **more: str) -> None:
    """The program gets its answer, and there is its one row."""
    done = shared.run(*command, **more)
    assert (done.returncode, done.stdout[:7]) == (0, "answer "), done.stderr
    one_row(shared)


def streams(shared: Shared, *command: str | Path, chunk: str = "chunk", **more: str) -> None:
    """The first chunk reaches the program while the server still keeps back the others."""
    first = len(b"".join(chat_events("gpt-5-mini", 3, usage=False)[:2]))
    name = uuid.uuid4().hex
    gate = shared.standin.gate(name)
    shared.standin.on("POST", "/v1/chat/completions", "chat_stream", times=1, chunks=3, gate=name, gate_at=first)
    process = shared.start("run", *([] if command[0] == "--java" else ["--"]), *command, **more)
    try:
        gate.wait_reached(timeout=60)
        assert process.stdout is not None
        early = [process.stdout.readline(), process.stdout.readline()]
        gate.release()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert early[0].startswith(chunk), (early, err)
    assert out.count(chunk) >= 2, err
    assert process.returncode == 0, err
    one_row(shared, stream=1)


@pytest.mark.parametrize("variable", LINES)
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_openai_for_python(shared: Shared, variable: str, mode: str) -> None:
    answers(shared, clients_python(variable), PROGRAMS / "openai_python.py", mode)


@pytest.mark.parametrize("variable", LINES)
@pytest.mark.parametrize("mode", ["stream", "async-stream"])
def test_openai_for_python_streamed(shared: Shared, variable: str, mode: str) -> None:
    streams(shared, clients_python(variable), PROGRAMS / "openai_python.py", mode)


@pytest.mark.parametrize("library", ["requests", "httpx", "aiohttp", "urllib"])
def test_http_libraries_for_python(shared: Shared, library: str) -> None:
    answers(shared, clients_python(), PROGRAMS / "http_python.py", library)


def test_websockets_for_python(shared: Shared) -> None:
    done = shared.run(clients_python(), PROGRAMS / "websocket_python.py")
    assert (done.returncode, done.stdout[:7]) == (0, "answer "), done.stderr
    urls = [row["request_url"] for row in shared.rows()]
    assert any("api.openai.com/v1/realtime?model=gpt-realtime" in url for url in urls), urls


@pytest.mark.parametrize("mode", ["openai", "fetch", "https"])
def test_node(shared: Shared, mode: str) -> None:
    answers(shared, "node", PROGRAMS / "node_client.cjs", mode, NODE_PATH=node_path())


def test_node_streamed(shared: Shared) -> None:
    streams(shared, "node", PROGRAMS / "node_client.cjs", "openai-stream", NODE_PATH=node_path())


def installed(program: str) -> str:
    """The program's name. Skips the test where it is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return program


ASK = '{"model": "gpt-5-mini", "messages": []}'
STREAMED = '{"model": "gpt-5-mini", "messages": [], "stream": true}'
CURL = ("-sSf", "-H", "content-type: application/json", "-d")


def test_curl(shared: Shared) -> None:
    done = shared.run(installed("curl"), *CURL, ASK, URL)
    assert done.returncode == 0, done.stderr
    one_row(shared, request_content=ASK)


def test_curl_streamed(shared: Shared) -> None:
    streams(shared, installed("curl"), "-N", *CURL, STREAMED, URL, chunk="data:")


def test_wget(shared: Shared) -> None:
    """It takes the proxy, and wants to be told the certificates (where it is built with GnuTLS)."""
    command = 'exec wget -q -O - --ca-certificate="$SSL_CERT_FILE" --header content-type:application/json "$@"'
    done = shared.run("sh", "-c", command, installed("wget"), f"--post-data={ASK}", URL)
    assert done.returncode == 0, done.stderr
    assert "chat.completion" in done.stdout
    one_row(shared, request_content=ASK)


GO = """package main

import ("bufio"; "fmt"; "net/http"; "os"; "strings")

func main() {
  answer, err := http.Post("URL", "application/json", strings.NewReader(os.Args[1]))
  if err != nil { fmt.Fprintln(os.Stderr, err); os.Exit(1) }
  for lines := bufio.NewScanner(answer.Body); lines.Scan(); { fmt.Println(lines.Text()) }
}
""".replace("URL", URL)

JAVA = """
import java.net.URI; import java.net.http.*;
public class App { public static void main(String[] given) throws Exception {
  var body = HttpRequest.BodyPublishers.ofString(given[0]);
  var ask = HttpRequest.newBuilder(URI.create("URL")).header("content-type", "application/json").POST(body).build();
  var answer = HttpClient.newHttpClient().send(ask, HttpResponse.BodyHandlers.ofLines());
  answer.body().forEach(System.out::println);
} }
""".replace("URL", URL)


@pytest.fixture(scope="module")
def go_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("go")
    (folder / "app.go").write_text(GO)
    environment = clean_environment(folder / "home", GOTOOLCHAIN="local")
    command = [installed("go"), "build", "-o", str(folder / "app"), str(folder / "app.go")]
    subprocess.run(command, env=environment, check=True, timeout=300)
    return folder / "app"


@pytest.fixture(scope="module")
def java_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a compiled class App."""
    folder = tmp_path_factory.mktemp("java")
    (folder / "App.java").write_text(JAVA)
    installed("java")
    subprocess.run([installed("javac"), "App.java"], cwd=folder, check=True, timeout=300)
    return folder


def test_go(shared: Shared, go_app: Path) -> None:
    done = shared.run(go_app, ASK)
    assert "chat.completion" in done.stdout, done.stderr
    one_row(shared, request_content=ASK)


def test_go_streamed(shared: Shared, go_app: Path) -> None:
    streams(shared, go_app, STREAMED, chunk="data:")


def test_java(shared: Shared, java_app: Path) -> None:
    done = shared("run", "--java", "--", "java", "-cp", java_app, "App", ASK)
    assert "chat.completion" in done.stdout, done.stderr
    one_row(shared, request_content=ASK)


def test_java_streamed(shared: Shared, java_app: Path) -> None:
    streams(shared, "--java", "--", "java", "-cp", java_app, "App", STREAMED, chunk="data:")
