"""The addon in mitmproxy's own test harness: its life, its options, and hooks in orders that a network seldom gives."""

from __future__ import annotations

import contextlib
import importlib.util
import sqlite3
import time
from pathlib import Path

import pytest
from mitmproxy import exceptions, http
from mitmproxy.test import taddons, tflow

SCRIPT = Path(__file__).resolve().parents[2] / "addon" / "llm_calls.py"
WAIT = 60.0


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("llm_calls_under_test", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_CALLS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PROTON_HOST", raising=False)
    return tmp_path / "calls.sqlite3"


@pytest.fixture
async def addon(script, journal):
    """A running addon; what it recorded is in the journal after `done`."""
    addon = script.LLMCalls()
    with taddons.context(addon, options=None) as context:
        context.configure(addon, llm_calls_journal=str(journal))
        addon.running()
        yield addon
        addon.done()


def a_flow(path: str = "/v1/chat/completions", response: bytes | None = b"{}") -> http.HTTPFlow:
    flow = tflow.tflow()
    flow.live = True
    flow.request = http.Request.make("POST", f"https://api.openai.com{path}", b'{"model":"gpt-5"}')
    flow.response = http.Response.make(200, response, {"content-type": "application/json"}) if response else None
    return flow


async def pass_through(addon, flow: http.HTTPFlow) -> None:
    await addon.requestheaders(flow)
    await addon.request(flow)
    addon.responseheaders(flow)
    await addon.response(flow)


def rows(journal: Path, wanted: int) -> list[tuple]:
    deadline = time.monotonic() + WAIT
    while True:
        with contextlib.closing(sqlite3.connect(journal)) as connection, contextlib.suppress(sqlite3.OperationalError):
            found = connection.execute("SELECT request_url, outcome, error FROM llm_calls ORDER BY call_id").fetchall()
            if len(found) >= wanted:
                return found
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_call_becomes_a_row(addon, journal):
    await pass_through(addon, a_flow())
    assert rows(journal, 1) == [("https://api.openai.com/v1/chat/completions", "ok", "")]


async def test_hooks_that_come_late_or_twice_do_no_harm(addon, journal):
    flow = a_flow()
    await pass_through(addon, flow)
    await addon.response(flow)
    flow.error = tflow.terr()
    await addon.error(flow)
    unknown = a_flow()
    await addon.request(unknown)
    addon.responseheaders(unknown)
    await addon.response(unknown)
    await addon.error(unknown)
    addon.websocket_message(unknown)
    await addon.websocket_end(unknown)
    await pass_through(addon, a_flow("/v1/last"))
    assert sorted(row[0][-4:] for row in rows(journal, 2)) == ["ions", "last"]  # both within a millisecond, perhaps


async def test_what_is_under_way_at_the_end_is_interrupted_and_later_hooks_do_no_harm(addon, journal):
    flow = a_flow()
    await addon.requestheaders(flow)
    await addon.request(flow)
    addon.done()
    flow.error = tflow.terr()
    await addon.error(flow)
    await addon.requestheaders(a_flow())
    assert [row[1] for row in rows(journal, 1)] == ["interrupted"]


async def test_flows_of_a_file_leave_no_row(addon, journal):
    flow = a_flow()
    flow.live = False
    await pass_through(addon, flow)
    await pass_through(addon, a_flow("/v1/live"))
    assert [row[0][-4:] for row in rows(journal, 1)] == ["live"]


async def test_another_addons_stream_callable_keeps_its_say(addon, journal):
    flow = a_flow(response=b"x")
    del flow.response.headers["content-length"]
    flow.response.stream = lambda data: data.upper()
    await addon.requestheaders(flow)
    await addon.request(flow)
    addon.responseheaders(flow)
    assert flow.response.stream(b"abc") == b"ABC"
    assert flow.response.stream(b"") == b""
    await addon.response(flow)
    assert rows(journal, 1)[0][1] == "ok"


async def test_a_body_that_another_addon_streams_past_is_told(addon, journal):
    flow = a_flow(response=b"x")
    await addon.requestheaders(flow)
    await addon.request(flow)
    addon.responseheaders(flow)
    flow.response.stream = True
    flow.response.raw_content = None
    await addon.response(flow)
    assert "not recorded" in rows(journal, 1)[0][2]


async def test_a_bad_option_while_it_runs_is_refused(addon, journal):
    with pytest.raises(exceptions.OptionsError, match="llm_calls_body_limit"), taddons.context(addon) as context:
        context.configure(addon, llm_calls_body_limit="much")


async def test_the_commands_answer(addon, journal):
    await pass_through(addon, a_flow())
    addon.flush()
    lines = addon.stats()
    assert lines[0] == "calls begun: 1, ended: 1, under way: 0"
    assert "calls lost: 0" in lines[1]


async def test_a_script_that_is_loaded_again_goes_on(script, journal):
    for path in ("/v1/one", "/v1/two"):
        addon = script.LLMCalls()
        with taddons.context(addon) as context:
            context.configure(addon, llm_calls_journal=str(journal))
            addon.running()
            await pass_through(addon, a_flow(path))
            addon.done()
    assert [row[0][-3:] for row in rows(journal, 2)] == ["one", "two"]
