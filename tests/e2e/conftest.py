"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import Client, Proxy
from standin import StandIn


@pytest.fixture
def standin() -> Iterator[StandIn]:
    """An OpenAI for one test."""
    with StandIn() as running:
        yield running


@pytest.fixture
def make_proxy(tmp_path: Path, standin: StandIn) -> Iterator[Callable[..., Proxy]]:
    """Makes proxies, started unless `start=False`; usually api.openai.com leads to the stand-in."""
    made: list[Proxy] = []

    def make(*, start: bool = True, folder: Path | None = None, routes: Any = None, **settings: Any) -> Proxy:
        where = folder or tmp_path / f"proxy{len(made)}"
        proxy = Proxy(where, {"api.openai.com": standin} if routes is None else routes, **settings)
        made.append(proxy)
        if start:
            proxy.start()
        return proxy

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture
def proxy(make_proxy: Callable[..., Proxy]) -> Proxy:
    """A running proxy with the addon; api.openai.com leads to the stand-in."""
    return make_proxy()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[Client]:
    """A connection to api.openai.com through the proxy."""
    with Client(proxy, "api.openai.com") as connected:
        yield connected
