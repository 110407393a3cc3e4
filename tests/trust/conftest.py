"""Fixtures of the tests of trust."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from standin import StandIn
from trust.command import Command


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture
def llm_calls(tmp_path: Path, standin: StandIn) -> Command:
    return Command(tmp_path, standin)
