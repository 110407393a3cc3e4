"""`llm-calls run` is not noticed by what it runs, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from calltracker.capture.hosts import Hosts
from calltracker.trust import child, proxy
from e2e.harness import ROUTER, clients_python
from trust.command import Command

CLIENTS = Path(__file__).with_name("clients")
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


def test_exit_status_and_streams_are_the_programs(llm_calls: Command) -> None:
    code = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stderr.write('moan'); sys.exit(42)"
    done = llm_calls.run(sys.executable, "-c", code, stdin="a\nb")
    assert (done.returncode, done.stdout, done.stderr) == (42, "A\nB", "moan")


def test_signals_reach_the_program(llm_calls: Command) -> None:
    code = (
        "import os, signal, sys\n"
        "def tell(number, _): os.write(1, b'%d\\n' % number); number == signal.SIGTERM and sys.exit(7)\n"
        "for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGHUP, signal.SIGTERM): signal.signal(number, tell)\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()"
    )
    with llm_calls.start("run", "-s", ROUTER, "--", sys.executable, "-c", code) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                process.send_signal(number)
                assert process.stdout.readline() == f"{int(number)}\n"
            assert process.wait(60) == 7
        finally:
            process.kill()


def test_a_program_that_dies_of_a_signal(llm_calls: Command) -> None:
    assert llm_calls.run(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)").returncode == 128 + 9


@pytest.mark.parametrize(("command", "status"), [("/no/such/program", 127), ("/etc/passwd", 126)])
def test_a_program_that_cannot_be_run(llm_calls: Command, command: str, status: int) -> None:
    done = llm_calls.run(command)
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == 1
    assert command in done.stderr


def test_the_users_own_certificates_and_options_are_kept(llm_calls: Command) -> None:
    given = {
        "NO_PROXY": "intranet.example,.openai.com",
        "NODE_OPTIONS": "--no-warnings",
        "SSL_CERT_DIR": "/nowhere",
        "ALL_PROXY": "socks5://127.0.0.1:1",
    }
    done = llm_calls.run(sys.executable, "-c", SHOW, **given)
    seen = json.loads(done.stdout)
    assert seen["HTTPS_PROXY"] == seen["https_proxy"] != ""
    assert "HTTP_PROXY" not in seen and "http_proxy" not in seen
    assert seen["NO_PROXY"] == seen["no_proxy"] == "intranet.example,localhost,127.0.0.1,::1"
    assert seen["NODE_OPTIONS"].startswith("--no-warnings --require=")
    assert "SSL_CERT_DIR" not in seen
    text = Path(seen["SSL_CERT_FILE"]).read_text()
    assert Path(llm_calls.environment["SSL_CERT_FILE"]).read_text().strip() in text
    assert (llm_calls.state / "ca" / "mitmproxy-ca-cert.pem").read_text().strip() in text
    assert "NO_PROXY held .openai.com" in done.stderr
    assert "ALL_PROXY" in done.stderr


@pytest.mark.parametrize("entry", ["*", "openai.com", ".openai.com", "api.openai.com:443", "com"])
def test_entries_that_would_bypass_the_proxy_are_taken_out(entry: str) -> None:
    kept, dropped = child.no_proxy({"NO_PROXY": f"{entry},kept.example"}, Hosts.with_own("").patterns)
    assert (kept[0], dropped) == ("kept.example", [entry])


def test_the_proxy_of_one_program_is_found_by_no_other_and_ends_with_it(llm_calls: Command) -> None:
    """Of two `run` at a time each has its own, so that the end of one is not that of the other's calls."""
    show = "import os, sys; print(os.environ['HTTPS_PROXY'], flush=True); sys.stdin.read()"
    words = ("run", "-s", ROUTER, "--", sys.executable, "-c", show)
    with llm_calls.start(*words) as one, llm_calls.start(*words) as other:
        try:
            assert one.stdout is not None and other.stdout is not None
            ports = [int(process.stdout.readline().rpartition(":")[2]) for process in (one, other)]
            assert len(set(ports)) == 2
            assert not (llm_calls.state / "proxy.json").exists()
            one.communicate(timeout=60)
            assert not proxy.answers("127.0.0.1", ports[0])
            assert proxy.answers("127.0.0.1", ports[1])
        finally:
            one.kill()
            other.communicate(timeout=60)


def test_a_call_without_a_running_proxy(llm_calls: Command) -> None:
    done = llm_calls.run(clients_python(), CLIENTS / "openai_python.py", "sync")
    assert (done.returncode, done.stdout[:7]) == (0, "answer "), done.stderr
    [row] = llm_calls.rows()
    assert (row["request_url"], row["outcome"]) == ("https://api.openai.com/v1/chat/completions", "ok")
    assert not list((llm_calls.state / "logs").iterdir())  # the proxy had nothing to say
