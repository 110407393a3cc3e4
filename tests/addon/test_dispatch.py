"""The short way of events to addons ends where the long one does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from calltracker.capture.dispatch import ShortDispatch
from mitmproxy import exceptions
from mitmproxy.addons import anticache, disable_h2c, stickycookie
from mitmproxy.proxy.layers.http import HttpRequestHook, HttpResponseHook
from mitmproxy.test import taddons, tflow


class Own:
    """An addon of somebody's."""

    def __init__(self, name: str, seen: list[str], error: Exception | None = None) -> None:
        self.name, self._seen, self._error = name, seen, error

    async def request(self, flow: Any) -> None:
        await asyncio.sleep(0)
        self._seen.append(self.name)
        if self._error:
            raise self._error


class Script:
    """An addon that contains others, as a script that is loaded does."""

    name = "script"

    def __init__(self) -> None:
        self.addons: list[Any] = []


@pytest.fixture
def manager():
    with taddons.context() as context:
        dispatch = ShortDispatch(context.master.addons)
        dispatch.begin()
        yield context.master.addons
        dispatch.end()
        assert "trigger_event" not in vars(context.master.addons)


async def test_a_mitmproxy_that_we_do_not_know_keeps_its_own(monkeypatch):
    async def another(self, event):
        await self.all_at_once(event)

    with taddons.context() as context:
        monkeypatch.setattr(type(context.master.addons), "trigger_event", another)
        ShortDispatch(context.master.addons).begin()
        assert "trigger_event" not in vars(context.master.addons)


async def test_in_order_past_errors_and_up_to_a_halt(manager):
    seen: list[str] = []
    built_in = [anticache.AntiCache(), disable_h2c.DisableH2C(), stickycookie.StickyCookie()]
    halting = Own("halting", seen, exceptions.AddonHalt())
    manager.add(Own("first", seen), *built_in, Own("failing", seen, ValueError("meant")), halting, Own("no", seen))
    await manager.trigger_event(HttpRequestHook(tflow.tflow()))
    assert seen == ["first", "failing", "halting"]


async def test_built_in_hooks_are_called(manager):
    flow = tflow.tflow()
    flow.request.headers["if-none-match"] = "x"
    manager.add(anticache.AntiCache())
    manager.master.options.update(anticache=True)
    await manager.trigger_event(HttpRequestHook(flow))
    assert "if-none-match" not in flow.request.headers


async def test_what_comes_and_goes_later(manager):
    seen: list[str] = []
    script, late = Script(), Own("late", seen)
    manager.add(script)
    await manager.trigger_event(HttpRequestHook(tflow.tflow()))
    script.addons.append(Own("within", seen))
    manager.add(late)
    await manager.trigger_event(HttpRequestHook(tflow.tflow()))
    assert seen == ["within", "late"]
    manager.remove(late)
    late_hook = Own("unlike its class", seen)
    late_hook.response = late_hook.request  # type: ignore[attr-defined]
    manager.add(late_hook)
    await manager.trigger_event(HttpResponseHook(tflow.tflow()))
    assert seen == ["within", "late", "unlike its class"]
