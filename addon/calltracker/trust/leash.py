"""A mitmproxy script that ties a proxy's life to the program that it was started for.

Standard input is a pipe that `run` and the program hold open: its end is the end of the proxy, even when
`run` was killed. The port that the system chose goes into the file that LLM_CALLS_LEASH names.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from mitmproxy import ctx


def running() -> None:
    report = Path(os.environ["LLM_CALLS_LEASH"])
    addresses = ctx.master.addons.lookup["proxyserver"].listen_addrs()
    if not addresses:
        return  # mitmproxy has said why, and exits
    partial = report.with_name(report.name + ".partial")
    partial.write_text(str(addresses[0][1]))
    partial.replace(report)
    threading.Thread(target=_wait, args=(ctx.master.shutdown,), name="leash", daemon=True).start()


def _wait(shutdown: object) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    assert callable(shutdown)
    shutdown()
