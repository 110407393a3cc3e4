"""The two lines that anybody adds to mitmproxy who wants streams to pass: what ours is measured beside."""

from mitmproxy import http


def responseheaders(flow: http.HTTPFlow) -> None:
    assert flow.response is not None
    flow.response.stream = True
