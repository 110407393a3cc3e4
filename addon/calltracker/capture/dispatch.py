"""The way of an event to mitmproxy's addons, without those that have nothing to do with it.

mitmproxy asks each of its some forty addons, one after the other, whether it has a hook for an event, and there are a
dozen events in a call: a third of a proxy's CPU time, more than all that recording costs. What its own addons answer is
always the same, so that is remembered here. Order, errors and halts are as in AddonManager.trigger_event; other addons,
those that contain some (scripts do, and may change), and those that come or go later are asked as ever. A mitmproxy
whose trigger_event is not the one that we know keeps its own.
"""

from __future__ import annotations

from typing import Any

from mitmproxy import addonmanager, exceptions, hooks
from mitmproxy.addonmanager import AddonManager

# What trigger_event does, in the names that its code uses: the same in 11.0.2 and 12.3.1.
KNOWN = ("chain", "safecall", "invoke_addon", "exceptions", "AddonHalt")


class ShortDispatch:
    """Takes the place of an addon manager's `trigger_event`, from `begin` to `end`."""

    def __init__(self, manager: AddonManager) -> None:
        self._manager = manager
        self._chain: list[Any] = []
        self._length = 0
        self._concerned: dict[str, list[Any]] = {}

    def begin(self) -> None:
        code = getattr(self._manager.trigger_event, "__code__", None)
        if code is not None and code.co_names == KNOWN:
            self._manager.trigger_event = self._trigger_event  # type: ignore[method-assign]

    def end(self) -> None:
        # After a reload of the script this is the place of a new instance already.
        if vars(self._manager).get("trigger_event") == self._trigger_event:
            del self._manager.trigger_event

    async def _trigger_event(self, event: hooks.Hook) -> None:
        for addon in self._concerned_by(event.name):
            try:
                with addonmanager.safecall():
                    await self._manager.invoke_addon(addon, event)
            except exceptions.AddonHalt:
                return

    def _concerned_by(self, name: str) -> list[Any]:
        chain = self._manager.chain
        if chain is not self._chain or len(chain) != self._length:  # the manager appends, and removes by a new list
            self._chain, self._length = chain, len(chain)
            self._concerned = {}
        found = self._concerned.get(name)
        if found is None:
            found = self._concerned[name] = [addon for addon in chain if _may_change(addon) or hasattr(addon, name)]
        return found


def _may_change(addon: Any) -> bool:
    """Whether an addon that has no hook of some name may have one later, itself or within it."""
    return hasattr(addon, "addons") or not type(addon).__module__.startswith("mitmproxy.addons.")
