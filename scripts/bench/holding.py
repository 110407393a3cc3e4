"""A script for mitmdump, loaded after our addon: measures how long its hooks hold back the end of a response.

The time is of the whole hook, the commit to the spool with all that comes before it, in the proxy's process. At the
end the times are written, in microseconds and as a list of JSON, to the file that LLM_CALLS_BENCH_HOLDING names.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from calltracker.capture.recorder import Recorder
from mitmproxy import http

_times: list[float] = []
_response = Recorder.response


async def _timed(self: Recorder, flow: http.HTTPFlow) -> None:
    began = time.perf_counter_ns()
    await _response(self, flow)
    _times.append((time.perf_counter_ns() - began) / 1000)


def load(loader: object) -> None:
    Recorder.response = _timed  # type: ignore[method-assign]


def done() -> None:
    Recorder.response = _response  # type: ignore[method-assign]
    Path(os.environ["LLM_CALLS_BENCH_HOLDING"]).write_text(json.dumps(_times))
