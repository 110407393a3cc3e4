"""Nothing is lost or doubled when processes are killed, and nothing that breaks in here reaches a call."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import ssl
import threading
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import Client, Proxy, until
from standin import StandIn

CHAT = "/v1/chat/completions"
BODY = {"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}]}


def worker_pid(proxy: Proxy) -> int:
    """The process id of the proxy's worker: its child that runs calltracker.worker."""
    assert proxy.process
    parent = proxy.process.pid

    def found() -> int | None:
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                status = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(status[1]) == parent and b"calltracker.worker" in (folder / "cmdline").read_bytes():
                    return int(folder.name)
        return None

    return int(until(found, what=lambda: f"no worker\n{proxy.log}"))


class Load:
    """Clients that call without pause, and remember what they know: which calls they read to their end."""

    def __init__(self, proxy: Proxy, threads: int = 6) -> None:
        self.proxy = proxy
        self.finished: list[str] = []
        self.begun: list[str] = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._work, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def _work(self, number: int) -> None:
        count = 0
        with contextlib.suppress(OSError):
            while not self.stopping.is_set():
                with Client(self.proxy, "api.openai.com") as client:
                    for kind in ("chat", "chat_stream", "sdk"):
                        count += 1
                        self._call(client, kind, f"m-{number}-{count}")

    def _call(self, client: Client, kind: str, model: str) -> None:
        self.begun.append(model)
        body = {**BODY, "model": model}
        if kind == "sdk":  # leaves at [DONE], as openai-python does
            client.begin("POST", CHAT, {**body, "stream": True}, behaviour="chat_stream", late=0.02)
            complete = client.read_until(b"data: [DONE]\n\n").endswith(b"[DONE]\n\n")
            client.read_until(b"0\r\n\r\n")
        else:
            complete = client.request("POST", CHAT, body, behaviour=kind).complete
        if complete:
            self.finished.append(model)


@pytest.mark.parametrize("times", range(20))
def test_the_proxy_is_killed_under_load(make_proxy: Any, standin: StandIn, tmp_path: Path, times: int) -> None:
    proxy = make_proxy(folder=tmp_path / "p")
    with Load(proxy) as load:
        enough = random.Random(times).randint(10, 60)
        until(lambda: len(load.finished) >= enough)
        if times % 4 == 0:  # the worker with it: then the next start finds what they left
            os.kill(worker_pid(proxy), signal.SIGKILL)
        proxy.kill()
    reached = {json.loads(entry.body)["model"] for entry in standin.received() if entry.complete}
    if times % 4 == 0:
        proxy.start()
    rows = proxy.wait_rows(lambda rows: reached <= {row["request_model"] for row in rows})
    until(lambda: not any(proxy.journal.parent.glob("*-spool/*/*.spool")) or times % 4 == 0)
    rows = proxy.rows()
    models = [row["request_model"] for row in rows if row["request_model"]]
    assert len(models) == len(set(models)), "a call has two rows"
    outcomes = {row["request_model"]: row["outcome"] for row in rows}
    assert {model: outcomes.get(model) for model in load.finished} == dict.fromkeys(load.finished, "ok")
    assert set(outcomes.values()) <= {"ok", "interrupted", "client_cancelled", "server_cut"}
    assert len(rows) <= len(load.begun)


@pytest.mark.parametrize("coding", ["", "gzip"])
def test_the_proxy_is_killed_as_soon_as_the_client_has_the_last_event(
    make_proxy: Any, standin: StandIn, coding: str
) -> None:
    proxy = make_proxy()
    more = {"coding": coding} if coding else {}
    with Client(proxy, "api.openai.com") as client:
        client.begin("POST", CHAT, {**BODY, "stream": True}, behaviour="chat_stream", late_gate="end", **more)
        client.head()
        decode, text = zlib.decompressobj(47).decompress if coding else bytes, b""
        while not text.endswith(b"data: [DONE]\n\n"):
            size = int(client.read_until(b"\r\n"), 16)
            text += decode(client.read_exactly(size + 2)[:size])
        proxy.kill()
    [row] = proxy.wait_rows(1)
    assert (row["outcome"], row["response_text"]) == ("ok", text.decode())


def test_sigterm_ends_what_is_under_way(proxy: Proxy, standin: StandIn) -> None:
    with Client(proxy, "api.openai.com") as client:
        client.begin("POST", CHAT, {**BODY, "stream": True}, behaviour="chat_stream", gate="g", gate_at=400)
        client.read_until(b'"choices"')
        assert proxy.stop() == 0
    [row] = proxy.rows()  # the worker was given the time that it needed
    assert row["outcome"] == "interrupted"
    assert row["response_text"]


def test_the_worker_is_killed_again_and_again(proxy: Proxy) -> None:
    with Load(proxy) as load:
        for _ in range(4):
            before = len(load.finished)
            os.kill(worker_pid(proxy), signal.SIGKILL)
            until(lambda before=before: len(load.finished) > before + 10)
    rows = proxy.wait_rows(lambda rows: {row["request_model"] for row in rows} >= set(load.finished))
    models = [row["request_model"] for row in rows]
    assert len(models) == len(set(models))
    assert "the worker ended" in proxy.log


def test_without_a_worker_capture_goes_on(make_proxy: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text("import os, sys\nif 'calltracker.worker' in sys.orig_argv: os._exit(3)\n")
    proxy = make_proxy(environment={"PYTHONPATH": str(broken)}, folder=tmp_path / "p")
    with Client(proxy, "api.openai.com") as client:
        for _ in range(5):
            assert client.request("POST", CHAT, BODY).status == 200
    assert "the worker ended (exit status 3)" in proxy.wait_log("the worker ended")
    proxy.stop()
    assert proxy.rows() == []
    again = make_proxy(folder=tmp_path / "p")
    assert {row["outcome"] for row in again.wait_rows(5)} == {"ok"}


FAILING = """
import sys
from calltracker.capture import {module}

def broken(*args, **kwargs):
    raise RuntimeError("injected")

{module}.{name} = broken
"""


@pytest.mark.parametrize(
    "step",
    [
        "recorder.Recorder._begin",
        "recorder.Recorder.response_headers",
        "recorder.Recorder.response",
        "recorder.Recorder._put_data",
        "recorder.Recorder._put",
        "recorder.Recorder._encode_begin",
        "recorder.Recorder._encode_end",
        "bodies.BodyKeeper.feed",
        "bodies.BodyKeeper.finish",
        "spool.Spool.committed",
        "spool.Spool.commit_now",
        "spool._write_all",
        "tracker.Tracker.pass_on_if_foreign",
        "tracker.Tracker.client_disconnected",
        "supervisor.Supervisor._start_process",
    ],
)
def test_an_exception_in_any_step_does_not_reach_a_call(make_proxy: Any, tmp_path: Path, step: str) -> None:
    module, _, name = step.partition(".")
    script = tmp_path / "failing.py"
    script.write_text(FAILING.format(module=module, name=name))
    proxy = make_proxy(scripts=[script])
    with Client(proxy, "api.openai.com") as client:
        assert client.request("POST", CHAT, BODY).complete
        assert client.request("POST", CHAT, {**BODY, "stream": True}, behaviour="chat_stream").complete
        assert client.request("POST", "/v1/files", b"x" * 2_000_000, behaviour="upload").json()["bytes"] == 2_000_000
    assert proxy.stop() == 0


READING_FAILS = """
import sys
if "calltracker.worker" in sys.orig_argv:
    from calltracker import {module}

    right = {module}.{name}

    def broken(*args, **kwargs):
        if "poison" in repr(args):
            raise RuntimeError("injected")
        return right(*args, **kwargs)

    {module}.{name} = broken
"""


@pytest.mark.parametrize("step", ["following.call_of", "row.bare_call", "row.read"])
def test_a_capture_that_cannot_be_read_harms_no_other(make_proxy: Any, tmp_path: Path, step: str) -> None:
    module, _, name = step.partition(".")
    (tmp_path / "sitecustomize.py").write_text(READING_FAILS.format(module=module, name=name))
    proxy = make_proxy(environment={"PYTHONPATH": str(tmp_path)}, folder=tmp_path / "p")
    with Client(proxy, "api.openai.com") as client:
        for model in ("gpt-5", "poison", "gpt-5"):
            assert client.request("POST", CHAT, {**BODY, "model": model}).status == 200
    first, unread, last = proxy.wait_rows(3)
    assert first["error"] == last["error"] == ""
    assert "injected" in unread["error"]
    assert (unread["request_method"], unread["response_status_code"], unread["outcome"]) == ("POST", 200, "ok")
    assert "the worker ended" not in proxy.log


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_client_that_does_not_trust_us_is_told_of_once(make_proxy: Any, standin: StandIn, encoding: str) -> None:
    """The words hold a character that not every terminal has: that must not come back to whoever logs."""
    proxy = make_proxy(environment={"PYTHONIOENCODING": encoding})
    for _ in range(2):
        with pytest.raises(ssl.SSLCertVerificationError):
            Client(proxy, "api.openai.com", root=standin.root)
    with Client(proxy, "api.openai.com") as client:
        assert client.request("POST", CHAT, BODY).status == 200
    assert len(proxy.wait_rows(1)) == 1
    assert proxy.log.count("a client broke off the TLS handshake for api.openai.com") == 1
    assert ("`llm-calls run -- …`" if encoding == "utf-8" else r"`llm-calls run -- \u2026`") in proxy.log
    assert "UnicodeEncodeError" not in proxy.log


def test_a_state_folder_that_cannot_be_written(make_proxy: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = str(tmp_path / "file" / "journal.sqlite3")  # root may write everywhere, but not below a file
    proxy = make_proxy(options={"llm_calls_journal": nowhere}, environment={"LLM_CALLS_HOME": str(tmp_path / "file")})
    with Client(proxy, "api.openai.com") as client:
        for _ in range(3):
            assert client.request("POST", CHAT, BODY).status == 200
    assert proxy.stop() == 0
    assert proxy.log.count("calls go on but are not recorded") == 1
    assert "3 calls were not recorded" in proxy.log


LIMITED = """
import resource, signal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def requestheaders(flow):
    if flow.request.path == "/v1/limit":
        limit(40_000)
    if flow.request.path == "/v1/lift":
        limit(resource.RLIM_INFINITY)
"""


def test_a_full_disk(make_proxy: Any, tmp_path: Path) -> None:
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)
    proxy = make_proxy(scripts=[script])
    with Client(proxy, "api.openai.com") as client:
        client.request("GET", "/v1/models", behaviour="models")
        proxy.wait_rows(1)  # the worker runs: it is not to inherit the limit
        client.request("GET", "/v1/limit", behaviour="models")
        for _ in range(8):
            assert client.request("POST", CHAT, BODY, behaviour="chat", size=20_000).status == 200
        proxy.wait_log("calls go on but are not recorded")
        client.request("GET", "/v1/lift", behaviour="models")
        assert client.request("POST", "/v1/after", BODY, behaviour="chat", size=30_000).status == 200
        proxy.wait_log("calls are recorded again")
    rows = proxy.wait_rows(lambda rows: any(row["request_url"].endswith("/after") for row in rows))
    assert {row["outcome"] for row in rows} <= {"ok", "interrupted"}
    assert proxy.stop() == 0
    assert "calls were not recorded" in proxy.log
    assert proxy.log.count("calls go on but are not recorded") == 1


def test_the_journals_disk_is_full_for_a_while(proxy: Proxy, client: Client) -> None:
    """It is the worker that the disk refuses: captures wait in the spool, and none is lost."""
    client.request("POST", CHAT, BODY)
    proxy.wait_rows(1)
    worker = worker_pid(proxy)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    for _ in range(20):
        assert client.request("POST", CHAT, BODY, behaviour="chat", size=20_000).status == 200
    assert "rows wait: the journal" in proxy.wait_log("cannot be written")
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    proxy.wait_log("the journal is written again")
    rows = proxy.wait_rows(21)
    assert len(rows) == len({row["call_id"] for row in rows}) == 21
    assert worker_pid(proxy) == worker


def test_the_journal_is_locked_by_another_program(proxy: Proxy, client: Client) -> None:
    client.request("POST", CHAT, BODY)
    proxy.wait_rows(1)
    other = sqlite3.connect(proxy.journal, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    for _ in range(3):
        assert client.request("POST", CHAT, BODY).status == 200
    assert time.monotonic() - began < 5
    assert "is locked" in proxy.wait_log("rows wait", timeout=30)
    other.execute("COMMIT")
    other.close()
    assert len(proxy.wait_rows(4)) == 4
    proxy.wait_log("the journal is written again")


@pytest.mark.parametrize("removed", ["journal", "its file alone", "spool", "all"])
def test_files_removed_while_in_use(proxy: Proxy, client: Client, removed: str) -> None:
    """People remove the journal to begin anew: calls are recorded on, and no old row comes again."""
    for number in range(3):
        client.request("GET", f"/v1/models/{number}", behaviour="models")
    proxy.wait_rows(3)
    if removed == "all":
        shutil.rmtree(proxy.journal.parent)
    elif removed == "spool":
        shutil.rmtree(next(proxy.journal.parent.glob("*-spool")))
    elif removed == "its file alone":
        proxy.journal.unlink()
    else:
        proxy.remove_journal()
    wanted = {"3", "4"} | ({"0", "1", "2"} if removed == "spool" else set())
    client.request("GET", "/v1/models/3", behaviour="models")
    proxy.wait_rows(lambda rows: rows and rows[-1]["request_url"].endswith("/3"))
    os.kill(worker_pid(proxy), signal.SIGKILL)  # the next one reads on where this one was
    client.request("GET", "/v1/models/4", behaviour="models")
    proxy.wait_rows(lambda rows: rows and rows[-1]["request_url"].endswith("/4"))
    assert proxy.stop() == 0
    numbers = [row["request_url"].rpartition("/")[2] for row in proxy.rows()]
    assert (set(numbers), len(numbers)) == (wanted, len(wanted))
    assert proxy.log.count("was removed") == (2 if removed == "all" else 1)


def seen_twice(rows: list[dict[str, Any]]) -> set[str]:
    seen = Counter(row["request_url"].rpartition("/")[2] for row in rows)
    return {name for name, times in seen.items() if times == 2}


def test_a_journal_of_two_proxies_is_removed(make_proxy: Any) -> None:
    first = make_proxy()
    second = make_proxy(options={"llm_calls_journal": str(first.journal)})
    with Client(first, "api.openai.com") as one, Client(second, "api.openai.com") as another:
        for turn in range(5):
            for number in range(4):
                for client in (one, another):
                    client.request("GET", f"/v1/models/{turn}-{number}", behaviour="models")
            wanted = {f"{turn}-{number}" for number in range(4)}
            first.wait_rows(lambda rows, wanted=wanted: seen_twice(rows) >= wanted)
            first.remove_journal()
    assert (first.stop(), second.stop()) == (0, 0)
    assert "corrupt" not in first.log + second.log


def test_a_journal_that_was_moved_keeps_its_rows(proxy: Proxy, client: Client, tmp_path: Path) -> None:
    """SQLite keeps the newest rows in a file beside it, which people do not move."""
    for number in range(3):
        client.request("GET", f"/v1/models/{number}", behaviour="models")
    proxy.wait_rows(3)
    proxy.journal.rename(tmp_path / "archive.sqlite3")
    client.request("GET", "/v1/models/3", behaviour="models")
    assert len(proxy.wait_rows(1)) == 1
    with contextlib.closing(sqlite3.connect(tmp_path / "archive.sqlite3")) as archive:
        assert archive.execute("SELECT count(*) FROM llm_calls").fetchone() == (3,)


def test_a_removed_journal_is_there_again_before_the_next_call(proxy: Proxy, client: Client) -> None:
    client.request("POST", CHAT, BODY)
    proxy.wait_rows(1)
    proxy.remove_journal()
    until(proxy.journal.exists)
    assert proxy.rows() == []


def test_a_corrupt_journal_is_set_aside(proxy: Proxy, client: Client) -> None:
    client.request("POST", CHAT, BODY)
    proxy.wait_rows(1)
    proxy.stop()
    proxy.journal.write_bytes(b"this is no journal" * 1000)
    proxy.start()
    with Client(proxy, "api.openai.com") as again:
        assert again.request("POST", CHAT, BODY).status == 200
    proxy.wait_log("was corrupt: it is kept as")
    [row] = proxy.wait_rows(1)
    assert row["outcome"] == "ok"
    [kept] = proxy.journal.parent.glob("*.corrupt-*")
    assert kept.read_bytes().startswith(b"this is no journal")


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("llm_calls_body_limit", "ten", "llm_calls_body_limit: 'ten' is not a size"),
        ("llm_calls_hosts", "https://x", "llm_calls_hosts: 'https://x' is not a host"),
        ("llm_calls_bodies", "maybe", "llm_calls_bodies: 'maybe' is none of on, off"),
        ("llm_calls_proton_host", "http://x", "PROTON_HOST"),
    ],
)
def test_bad_options_end_the_start_with_one_line(make_proxy: Any, option: str, value: str, says: str) -> None:
    proxy = make_proxy(start=False, options={option: value})
    proxy.spawn()
    assert proxy.process.wait(20) == 1
    assert says in proxy.log
    assert "Traceback" not in proxy.log
