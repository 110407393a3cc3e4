"""A mitmproxy script that answers each call itself, as OpenAI does one without a key: nothing leaves the machine."""

from __future__ import annotations

from mitmproxy import http

BODY = b'{"error": {"message": "no API key", "type": "invalid_request_error", "code": "invalid_api_key"}}'


def request(flow: http.HTTPFlow) -> None:
    flow.response = http.Response.make(401, BODY, {"content-type": "application/json"})
