"""What mitmproxy itself prints and logs of a flow, with the secrets masked: it shows URLs, and, asked for details, all.

mitmdump's dumper writes to a file of its own (`outfp`), mitmproxy's log goes through handlers of the root logger.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from typing import IO, Any

from mitmproxy import ctx

from .secrets import MASK, BodyMask, Redaction, is_secret_header

_STYLE = r"(?:\x1b\[[0-9;]*m)*"
_HEADER = re.compile(rf"^( *{_STYLE})([A-Za-z0-9_-]+)({_STYLE}: )(.+)$", re.MULTILINE)
_URL = re.compile(r"[a-z]+://[^\s\x1b]+|/[^\s\x1b?]*\?[^\s\x1b]+")


def masked(text: str, redaction: Redaction) -> str:
    """Mask secret parameters of URLs, secret headers (one a line), secret members of JSON, and keys by shape."""

    def header(match: re.Match[str]) -> str:
        name = match[2].lower()
        secret = is_secret_header(name) or name in redaction.own_names
        return f"{match[1]}{match[2]}{match[3]}{MASK}" if secret else match[0]

    if ": " in text:
        text = _HEADER.sub(header, text)
    if "?" in text or "@" in text:
        text = _URL.sub(lambda match: redaction.url(match[0]), text)
    mask = BodyMask(())
    data = text.encode("utf-8", "surrogatepass")
    if mask.is_clean(data):
        return text
    return (mask.feed(data) + mask.finish()).decode("utf-8", "surrogatepass")


class _Output:
    """A text file that masks what is written to it."""

    def __init__(self, file: IO[str], redaction: Callable[[], Redaction]) -> None:
        self.file = file
        self._redaction = redaction

    def write(self, text: str) -> int:
        return self.file.write(masked(text, self._redaction()) if len(text) > 1 else text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class _LogMask(logging.Filter):
    """Masks records before they are formatted."""

    def __init__(self, redaction: Callable[[], Redaction]) -> None:
        super().__init__()
        self._redaction = redaction

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            said = record.getMessage()
        except Exception:  # noqa: BLE001 - somebody's arguments do not fit: the handler tells, an error here would not
            return True
        safe = masked(said, self._redaction())
        if safe != said:
            record.msg, record.args = safe, ()
        return True


def mask_output(redaction: Callable[[], Redaction]) -> None:
    """Mask what mitmproxy prints and logs from now on, by the redaction of that moment.

    For good: flows that are cut off at the end are printed after the addon's own end. What the terminal's encoding
    lacks is escaped: an error there would come back to whoever logs.
    """
    dumper = ctx.master.addons.get("dumper")
    output = getattr(dumper, "outfp", None)
    if output is not None:
        dumper.outfp = _Output(output.file if isinstance(output, _Output) else output, redaction)
    for handler in logging.getLogger().handlers:
        file = getattr(handler, "file", None)
        if isinstance(file, io.TextIOWrapper) and file.errors == "strict":
            file.reconfigure(errors="backslashreplace")
        for mask in [mask for mask in handler.filters if isinstance(mask, _LogMask)]:
            handler.removeFilter(mask)
        handler.addFilter(_LogMask(redaction))
