"""What OpenAI's payloads say: bytes in, facts out. No I/O and no mitmproxy, testable by bytes alone."""

from .exchange import read
from .reading import Exchange, Reading

__all__ = ["Exchange", "Reading", "read"]
