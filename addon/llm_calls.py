"""Record every call to OpenAI: mitmdump -s addon/llm_calls.py

The hooks follow a call's life, from the tunnel to its end; what they mean is in calltracker/capture. Each is guarded:
whatever goes wrong in here is counted and logged, and the flow goes on as if nothing were installed.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# mitmproxy puts the script's folder on the path while it loads it, and other tools may not.
sys.path[:0] = [folder for folder in (str(Path(__file__).resolve().parent),) if folder not in sys.path]

from mitmproxy import command, ctx, exceptions, http, tls  # noqa: E402
from mitmproxy.addonmanager import Loader  # noqa: E402
from mitmproxy.connection import Client  # noqa: E402

try:
    from calltracker import settings
    from calltracker.capture.tracker import Tracker, guarded
except ModuleNotFoundError as error:
    raise exceptions.AddonManagerError(
        f"llm_calls.py: the package {error.name!r} is missing in the environment of this mitmproxy. Start it with "
        f"scripts/start, or run: {sys.executable} -m pip install {Path(__file__).resolve().parent.parent}"
    ) from None

log = logging.getLogger("llm_calls")


class LLMCalls:
    """The addon. `tracker` is None before the first flow or `running`, whichever comes first, and after `done`."""

    def __init__(self) -> None:
        self.settings: settings.Settings | None = None
        self.tracker: Tracker | None = None
        self.is_done = False

    # The addon's life

    def load(self, loader: Loader) -> None:
        for option in settings.OPTIONS:
            loader.add_option(option.name, str, "", f"{option.help} (or {option.variable})")

    def configure(self, updated: set[str]) -> None:
        try:
            self.settings = settings.read(
                {option.name: getattr(ctx.options, option.name) for option in settings.OPTIONS},
                os.environ,
            )
        except settings.OptionError as error:
            if self.tracker is not None:
                raise exceptions.OptionsError(str(error)) from None
            # At the start an exception here is shown with a traceback; an error that is logged ends the start as well.
            log.error("llm_calls: %s", error)
            return
        if self.tracker is not None and any(name.startswith(settings.PREFIX) for name in updated):
            self.tracker.reconfigure(self.settings)

    @guarded
    def running(self) -> None:
        self.start()
        if self.tracker is not None:
            self.tracker.announce()

    def start(self) -> None:
        """Begin to track, unless that has been done: a flow that is replayed (-C) comes before `running`."""
        if self.tracker is None and self.settings is not None and not self.is_done:
            self.tracker = Tracker(self.settings)
            self.tracker.start()

    @guarded
    def done(self) -> None:
        self.is_done = True
        if self.tracker is not None:
            tracker, self.tracker = self.tracker, None
            tracker.stop()

    # The connection

    @guarded
    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        if self.tracker is not None:
            self.tracker.pass_on_if_foreign(data)

    @guarded
    def tls_failed_client(self, data: tls.TlsData) -> None:
        if self.tracker is not None:
            self.tracker.warn_of_distrust(data)

    @guarded
    def http_connect(self, flow: http.HTTPFlow) -> None:
        if self.tracker is not None:
            self.tracker.recorder.connect(flow)

    @guarded
    def http_connected(self, flow: http.HTTPFlow) -> None:
        if self.tracker is not None:
            self.tracker.recorder.connected(flow)

    @guarded
    async def http_connect_error(self, flow: http.HTTPFlow) -> None:
        if self.tracker is not None:
            await self.tracker.recorder.connect_error(flow)

    # The call

    @guarded
    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        self.start()
        if self.tracker is not None and self.tracker.recorder.wants(flow):
            await self.tracker.recorder.request_headers(flow)

    @guarded
    async def request(self, flow: http.HTTPFlow) -> None:
        if self.tracker is not None:
            await self.tracker.recorder.request(flow)

    @guarded
    def responseheaders(self, flow: http.HTTPFlow) -> None:
        if self.tracker is not None:
            self.tracker.recorder.response_headers(flow)

    @guarded
    async def response(self, flow: http.HTTPFlow) -> None:
        if self.tracker is not None:
            await self.tracker.recorder.response(flow)

    @guarded
    def websocket_message(self, flow: http.HTTPFlow) -> None:
        if self.tracker is not None:
            self.tracker.recorder.websocket_message(flow)

    @guarded
    async def websocket_end(self, flow: http.HTTPFlow) -> None:
        if self.tracker is not None:
            await self.tracker.recorder.websocket_end(flow)

    @guarded
    async def error(self, flow: http.HTTPFlow) -> None:
        if self.tracker is not None:
            await self.tracker.recorder.error(flow)

    @guarded
    def client_disconnected(self, client: Client) -> None:
        if self.tracker is not None:
            self.tracker.client_disconnected(client)

    # For the user at the console

    @command.command("llm_calls.stats")
    def stats(self) -> Sequence[str]:
        """Count the calls since the start: under way, recorded, lost."""
        return self.tracker.stats() if self.tracker is not None else ["llm_calls is not running"]

    @command.command("llm_calls.flush")
    def flush(self) -> None:
        """Write down all that has been captured so far."""
        if self.tracker is not None and not self.tracker.flush():
            log.warning("llm_calls: the disk does not answer; captures wait in memory")


addons = [LLMCalls()]
