"""Fixtures of the tests of trust."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from calltracker.capture.hosts import DEFAULT_HOSTS
from calltracker.trust import authority
from e2e.harness import Proxy
from standin import StandIn
from trust.command import Command, Shared


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture
def llm_calls(tmp_path: Path, standin: StandIn) -> Command:
    """For a user without a running proxy."""
    return Command(tmp_path, standin)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A running proxy, with a CA of ours, that a module's tests share; in the end, no call has more than its row."""
    folder = tmp_path_factory.mktemp("shared")
    authority.ensure(folder / "proxy" / "confdir", DEFAULT_HOSTS)
    with (
        StandIn() as standin,
        Proxy(folder / "proxy", {"api.openai.com": standin}, options={"upstream_cert": "false"}) as proxy,
    ):
        running = Shared(folder, standin, proxy)
        yield running
        proxy.stop()
        assert len(proxy.rows()) == running.seen
