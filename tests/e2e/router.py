"""A second script for the proxy under test: names lead to the stand-ins, and the test learns the port.

Only the resolution of names is changed, so address, SNI, Host and keep-alive are as in production.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
from pathlib import Path

from mitmproxy import ctx

SETTINGS = json.loads(os.environ["LLM_CALLS_TEST_ROUTER"])
_resolve = socket.getaddrinfo


def _route(host, port, *args, **kwargs):
    name = host.decode() if isinstance(host, bytes) else host
    if name in SETTINGS["routes"]:
        found = SETTINGS["routes"][name]
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, f"no route to {name} in this test")
        return _resolve("127.0.0.1", found, *args, **kwargs)
    if name not in (None, "", "localhost"):
        try:
            ipaddress.ip_address(name)
        except ValueError:
            raise socket.gaierror(socket.EAI_NONAME, f"no route to {name} in this test") from None
    return _resolve(host, port, *args, **kwargs)


def load(loader):
    socket.getaddrinfo = _route


def running():
    ready = Path(SETTINGS["ready"])
    port = ctx.master.addons.get("proxyserver").listen_addrs()[0][1]
    partial = ready.with_suffix(".partial")
    partial.write_text(json.dumps({"port": port}))
    partial.replace(ready)


def done():
    socket.getaddrinfo = _resolve
