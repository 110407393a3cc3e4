"""Which CA `llm-calls start` signs with, and what it says of a change."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from calltracker.trust import authority
from e2e.harness import ROUTER, closed_port, until
from mitmproxy import certs
from trust.command import Command


@contextmanager
def started(user: Command, *words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """`llm-calls start` while it runs."""
    process = user.start("start", "--port", str(closed_port()), *words, "--", "-s", ROUTER, **more)
    try:
        until(lambda: (user.state / "proxy.json").exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        process.terminate()
        process.wait(30)


def call(user: Command) -> str:
    """Make a call with curl through the running proxy, as `run` starts it; what curl and `run` said."""
    url = "https://api.openai.com/v1/models"
    done = user("run", "--", "sh", "-c", f'curl -sSf {url} > /dev/null && cat "$SSL_CERT_FILE"')
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_mitmproxys_own_ca_where_it_is_asked_for(llm_calls: Command) -> None:
    folder = llm_calls.folder / "home" / ".mitmproxy"
    certs.CertStore.from_store(folder, "mitmproxy", 2048)
    with started(llm_calls, "--ca", "~/.mitmproxy"):
        assert (folder / "mitmproxy-ca-cert.pem").read_text().strip() in call(llm_calls)
    assert not (llm_calls.state / "ca").exists()
    assert [row["outcome"] for row in llm_calls.rows()] == ["ok"]


def test_a_change_of_the_hosts_says_what_follows_and_apps_go_on(llm_calls: Command) -> None:
    with started(llm_calls) as process:
        before = authority.read(llm_calls.state / "ca").root_pem.decode().strip()
        done = llm_calls("run", "--own", "-s", ROUTER, "--", "true", LLM_CALLS_HOSTS="llm.example.org")
        assert "did not cover llm.example.org: made a new CA" in done.stderr
        assert "need a new start" in done.stderr
        assert before in call(llm_calls)  # the proxy that runs still signs with it
        assert process.poll() is None
    with started(llm_calls):
        assert authority.read(llm_calls.state / "ca").root_pem.decode().strip() in call(llm_calls)
