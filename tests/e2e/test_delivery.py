"""From the app to the stream: a real mitmdump, its worker, and a server that speaks Proton's protocol."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import Client, Proxy, until
from proton.server import Drop, Server

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


class Load:
    """An app that calls all the while, and goes on when a proxy is gone. `answered` counts whole answers."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.answered = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError, ConnectionError), Client(self.proxy, "api.openai.com") as client:
                while not self._stop.wait(0.01):
                    answer = client.request("POST", CHAT, BODY)
                    if not answer.complete:
                        break
                    self.answered += answer.status == 200

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_a_journal_removed_while_rows_are_delivered(make_proxy: Any, proton: Server) -> None:
    """What was delivered before is not sent again, even by a worker that has to read the captures anew."""
    proxy = make_proxy(environment=environment(proton))
    call(proxy, 3)
    until(lambda: proton.count() == 3, what=lambda: proxy.log)
    proxy.remove_journal()
    call(proxy, 2)
    until(lambda: proton.count() == 5, what=lambda: proxy.log)
    kill_workers(proxy)
    call(proxy, 2)
    until(lambda: proton.count() == 7, what=lambda: proxy.log)
    assert proxy.stop() == 0
    assert len(set(proton.rows("llm_calls", "call_id"))) == proton.count() == 7
    assert len(proxy.rows()) == 4


def kill_workers(proxy: Proxy) -> None:
    for pid in until(proxy.children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_killed_while_delivering_and_through_outages(make_proxy: Any, proton: Server, tmp_path: Path) -> None:
    """Worker and proxy are killed at random instants, Proton goes away, and takes rows without saying so."""
    settings = {"environment": environment(proton), "folder": tmp_path / "p"}
    keeps_silent = threading.Event()

    def hook(stage: str, stream: str, rows: int) -> None:
        if stage == "applied" and keeps_silent.is_set():
            keeps_silent.clear()
            raise Drop

    proton.hook = hook
    with Load(make_proxy(**settings)) as load:
        for turn in range(20):
            before = proton.count()
            until(lambda before=before: proton.count() > before, 60, lambda: load.proxy.log)
            time.sleep(random.uniform(0, 0.05))  # any instant
            if turn % 5 == 4:
                load.proxy.kill()
                load.proxy = make_proxy(**settings)
            elif turn % 2:
                kill_workers(load.proxy)
            elif turn % 4:
                keeps_silent.set()
            else:
                proton.stop()
                kill_workers(load.proxy)
                proton.start()
    load.proxy.wait_rows(lambda rows: sum(row["outcome"] == "ok" for row in rows) >= load.answered)
    assert load.answered > 100

    def delivered() -> list[str]:
        return sorted(row[0] for row in proton.rows("llm_calls", "call_id"))

    until(lambda: delivered() == sorted(row["call_id"] for row in load.proxy.rows()), 60, lambda: load.proxy.log)
