"""A server that plays OpenAI over TLS: HTTP/1.1, HTTP/2 and WebSocket, with every fault at any byte.

    with StandIn() as openai:
        openai.on("POST", "/v1/chat/completions", "chat_stream", chunks=3, late_gate="end")
        …
        openai.wait_for(lambda log: len(log) == 1 and log[0].answered)

What a request gets is decided by, in this order: `on` (the latest first), the request's header
`x-standin: behaviour; option=value; …`, and its path. behaviours.py lists the behaviours, exchange.py the
options that all of them have (content coding, sizes of the pieces, where to stop, wait or break off).
"""

from .authority import Authority
from .exchange import Exchange, Reply
from .log import Received
from .server import StandIn

__all__ = ["Authority", "Exchange", "Received", "Reply", "StandIn"]
