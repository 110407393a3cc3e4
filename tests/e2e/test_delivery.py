"""From the app to the stream: a real mitmdump, its worker, and a server that speaks Proton's protocol."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import Client, Proxy, until
from proton.server import Server

CHAT = "/v1/chat/completions"
BODY = {"model": "gpt-5", "messages": []}
PASSWORD = "the-password-of-proton"
QUICK = {"PROTON_BACKOFF_FIRST": "0.05", "PROTON_BACKOFF_MOST": "0.2", "PROTON_VISIBILITY": "0.3"}


@pytest.fixture
def proton() -> Any:
    with Server(users={"default": PASSWORD}, visibility=0.05) as server:
        yield server


def environment(server: Server) -> dict[str, str]:
    return {"PROTON_HOST": "127.0.0.1", "PROTON_PORT": str(server.port), "PROTON_PASSWORD": PASSWORD, **QUICK}


def call(proxy: Proxy, times: int) -> None:
    with Client(proxy, "api.openai.com") as client:
        for _ in range(times):
            assert client.request("POST", CHAT, BODY).status == 200


def test_rows_reach_the_stream(make_proxy: Any, proton: Server) -> None:
    proxy = make_proxy(environment=environment(proton))
    call(proxy, 3)
    until(lambda: proton.count() == 3, what=lambda: proxy.log)
    names = ("request_method", "request_url", "response_status_code", "call_id", "input_tokens")
    found = sorted(proton.rows("llm_calls", *names), key=lambda row: row[3])
    kept = sorted(proxy.rows(), key=lambda row: row["call_id"])
    assert found == [tuple(row[name] for name in names) for row in kept]
    command_line = Path(f"/proc/{proxy.process.pid}/cmdline").read_bytes()
    proxy.stop()
    assert PASSWORD.encode() not in command_line
    for path in proxy.folder.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path


def test_an_outage_is_said_once_and_made_up_for(make_proxy: Any, proton: Server) -> None:
    proxy = make_proxy(environment=environment(proton))
    call(proxy, 2)
    until(lambda: proton.count() == 2, what=lambda: proxy.log)
    proton.stop()
    call(proxy, 5)
    proxy.wait_log("Calls go on; their rows wait in the journal")
    assert len(proxy.wait_rows(7)) == 7
    proton.start()
    until(lambda: proton.count() == 7, what=lambda: proxy.log)
    proxy.wait_log("goes on")
    assert len(set(proton.rows("llm_calls", "call_id"))) == 7


def test_what_was_not_delivered_is_at_the_next_start(make_proxy: Any, proton: Server, tmp_path: Path) -> None:
    settings = environment(proton)
    proton.stop()
    proxy = make_proxy(environment=settings, folder=tmp_path / "p")
    call(proxy, 4)
    proxy.wait_rows(4)
    proxy.kill()
    proton.start()
    again = make_proxy(environment=settings, folder=tmp_path / "p")
    call(again, 1)
    until(lambda: proton.count() == 5, what=lambda: again.log)


def test_workers_are_killed_and_each_row_arrives_once(make_proxy: Any, proton: Server) -> None:
    proxy = make_proxy(environment=environment(proton))
    for _ in range(5):
        call(proxy, 20)
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == proxy.process.pid:
                    os.kill(int(folder.name), signal.SIGKILL)
            except OSError:
                continue
    until(lambda: proton.count() >= 100, 60, lambda: f"{proton.count()} {proxy.log}")
    ids = proton.rows("llm_calls", "call_id")
    assert len(ids) == len(set(ids)) == 100
