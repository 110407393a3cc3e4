from __future__ import annotations

import os
from pathlib import Path

import pytest
from recordings import comparing


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument `place` runs for each recording, one with `stream` for each streamed one.

    Users have no recordings, which skips them.
    """
    places = [(path, i) for path in comparing.files() for i in range(len(comparing.recordings(path)))]
    if "place" in metafunc.fixturenames:
        metafunc.parametrize("place", places, ids=[f"{path.stem}-{i}" for path, i in places])
    if "stream" in metafunc.fixturenames:
        streams = [(path, i) for path, i in places if comparing.is_stream(comparing.recordings(path)[i])]
        metafunc.parametrize("stream", streams, ids=[f"{path.stem}-{i}" for path, i in streams])


@pytest.fixture
def oracle(place: tuple[Path, int]) -> dict[str, object]:
    if comparing.CLIENTS not in os.environ:
        pytest.skip(f"{comparing.CLIENTS} names no python with the openai package; scripts/test sets it")
    path, number = place
    return comparing.expected(path)[number]
