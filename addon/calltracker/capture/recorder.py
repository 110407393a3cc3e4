"""The recorder: what the hooks of a flow's life mean for its call.

A call is followed by a `Track` from the request's head to its end. The hooks read the clock, look at headers and hand
over; masking, decoding and hashing happen when the spool writes, in functions handed over with the bytes (`_encode_*`).

What waits for the disk: the request, before it is forwarded (no call reaches OpenAI unrecorded); the end of the
response, before the client gets it (no call that the client knows to be over lacks its row). Small bodies of known
length are buffered by mitmproxy, so their end is their whole; of streams, the hooks hold back the last chunk, and the
tee waits for chunks after which clients leave.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from mitmproxy import ctx, http
from mitmproxy import flow as mitmflow
from mitmproxy.proxy import server

from ..call import new_call_id
from ..settings import CaptureSettings
from .bodies import CAPTURED, BodyKeeper
from .records import Ending, Message, RecordKind, encode_data, encode_facts, encode_message
from .secrets import BodyMask, credentials, key_hash, mask_text
from .spool import Entry, Spool

BUFFERED_BYTES = 1024 * 1024  # a body of known length up to here is buffered, a larger or chunked one streamed
HOLD_SECONDS = 0.02  # how long a chunk after which clients leave waits for the disk
TAG_PREFIX = "x-llm-calls-tag-"
_CLIENT_SECRET_PATHS = ("/realtime/client_secrets", "/realtime/sessions", "/realtime/transcription_sessions")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Head:
    """The header fields of a message, decoded once: mitmproxy decodes them anew at each look.

    `values` has the last value of each name, in lower case; `fields` all, in order.
    """

    fields: list[tuple[str, str]]
    values: dict[str, str]

    @classmethod
    def of(cls, headers: http.Headers) -> Head:
        fields = [
            (name.decode("utf-8", "backslashreplace"), value.decode("utf-8", "backslashreplace"))
            for name, value in headers.fields
        ]
        return cls(fields, {name.lower(): value for name, value in fields})

    @property
    def content_type(self) -> str:
        return self.values.get("content-type", "")

    @property
    def is_event_stream(self) -> bool:
        return self.content_type.startswith("text/event-stream")

    @property
    def content_length(self) -> int | None:
        text = self.values.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() else None


@dataclass(slots=True)
class RecorderCounts:
    """Calls since the start; `lost` ones have no row, `gaps` ones lack a part of a body."""

    begun: int = 0
    ended: int = 0
    lost: int = 0
    gaps: int = 0
    errors: int = 0


@dataclass(slots=True, eq=False)
class Track:
    """One call under way."""

    call_id: bytes
    client_id: str
    keys: tuple[str, ...]
    started: int = field(default_factory=time.monotonic_ns)
    last_seen: int = 0
    request: BodyKeeper | None = None
    response: BodyKeeper | None = None
    tee: Callable[[bytes], object] | None = None
    left: int | None = None  # bytes of a response of known length that are still to come
    coded_events: bool = False  # an event stream with a content-encoding: what its last event is cannot be seen
    ended: bool = False
    request_done: bool = False
    lost: bool = False
    gap: bool = False

    def now(self) -> int:
        """Microseconds since the call began, by the monotonic clock."""
        self.last_seen = (time.monotonic_ns() - self.started) // 1000
        return self.last_seen


class Recorder:
    """Follows flows, and hands what happens to the spool."""

    def __init__(self, settings: CaptureSettings, spool: Spool, install_secret: bytes) -> None:
        self.counts = RecorderCounts()
        self.settings = settings
        self._spool = spool
        self._install_secret = install_secret
        self._tracks: dict[str, Track] = {}
        self._connects: dict[str, Track] = {}

    # The request

    def wants(self, flow: http.HTTPFlow) -> bool:
        """Whether a flow is a call: live, and to a host of OpenAI's or of the user's."""
        host, port = flow.request.host, flow.request.port
        hosts = self.settings.hosts
        return flow.live and (hosts.wanted(host, port) or hosts.wanted(flow.server_conn.sni, port))

    async def request_headers(self, flow: http.HTTPFlow) -> None:
        head = Head.of(flow.request.headers)
        track = self._begin(flow, head)
        for name in head.values:
            if name.startswith(TAG_PREFIX):
                del flow.request.headers[name]
        if flow.request.stream or _is_streamed_request(flow.request, head):
            flow.request.stream = self._request_tee(track, flow.request.stream)
            await self._spool.committed()

    def _begin(self, flow: http.HTTPFlow, head: Head) -> Track:
        url = _printable(_url_of(flow))
        track = Track(new_call_id().bytes, flow.client_conn.id, credentials(head.fields, url))
        facts = {
            "method": _printable(flow.request.method),
            "url": url,
            "http_version": flow.request.http_version,
            "time": time.time_ns() // 1000,
            "server": _server_address(flow),
            "replayed": flow.is_replay == "request",
            "body_limit": self.settings.body_limit,
        }
        track.request = self._keeper(track, head, url)
        self._tracks[flow.id] = track
        self.counts.begun += 1
        self._put(track, partial(self._encode_begin, track, facts, head.fields))
        return track

    def _encode_begin(self, track: Track, facts: dict[str, object], headers: list[tuple[str, str]]) -> bytes:
        redaction = self.settings.redaction
        facts["url"] = redaction.url(str(facts["url"]), track.keys)
        facts["headers"] = redaction.headers(headers, track.keys)
        facts["api_key_hash"] = key_hash(track.keys[0], self._install_secret) if track.keys else ""
        return encode_facts(RecordKind.BEGIN, track.call_id, facts)

    async def request(self, flow: http.HTTPFlow) -> None:
        track = self._tracks.get(flow.id)
        if track is None or track.request_done:
            return
        content = b"" if flow.request.stream else flow.request.raw_content or b""
        track.request_done = True
        self._put(track, partial(self._encode_request_end, track, track.now(), content), len(content))
        await self._spool.committed()

    def _encode_request_end(self, track: Track, at: int, content: bytes) -> bytes:
        assert track.request is not None
        return _ended(track.call_id, track.request, at, content, RecordKind.REQUEST_DATA, RecordKind.REQUEST_END)

    # The response

    def response_headers(self, flow: http.HTTPFlow) -> None:
        track, response = self._tracks.get(flow.id), flow.response
        if track is None or response is None:
            return
        head = Head.of(response.headers)
        track.response = self._keeper(track, head, flow.request.path)
        facts = {"status": response.status_code, "http_version": response.http_version, "at": track.now()}
        self._put(track, partial(self._encode_response_head, track, facts, head.fields))
        if response.status_code == 101:
            return
        if response.stream or _is_streamed_response(head):
            track.left = head.content_length
            track.coded_events = head.is_event_stream and "content-encoding" in head.values
            track.tee = response.stream = self._response_tee(track, response.stream)

    def _encode_response_head(self, track: Track, facts: dict[str, object], headers: list[tuple[str, str]]) -> bytes:
        facts["headers"] = self.settings.redaction.headers(headers, track.keys)
        return encode_facts(RecordKind.RESPONSE_HEAD, track.call_id, facts)

    async def response(self, flow: http.HTTPFlow) -> None:
        track = self._tracks.get(flow.id)
        if track is None or flow.websocket is not None or flow.response is None:
            return
        content = b""
        if track.tee is None or flow.response.stream is not track.tee:
            content = flow.response.raw_content or b""
            track.gap = track.gap or flow.response.raw_content is None  # another addon streams it past us
        self._end(flow, track, Ending.COMPLETE, content=content)
        await self._spool.committed()

    # Bodies that are passed on as they come

    def _request_tee(self, track: Track, other: object) -> Callable[[bytes], bytes | Iterable[bytes]]:
        return self._tee(track, RecordKind.REQUEST_DATA, lambda data: None, other)

    def _response_tee(self, track: Track, other: object) -> Callable[[bytes], bytes | Iterable[bytes]]:
        def leave(data: bytes) -> None:
            if track.left is not None:
                track.left -= len(data)
            if track.left == 0 or track.coded_events or b"[DONE]" in data[-32:]:
                self._spool.commit_now(HOLD_SECONDS)

        return self._tee(track, RecordKind.RESPONSE_DATA, leave, other)

    def _tee(
        self, track: Track, kind: RecordKind, after: Callable[[bytes], None], other: object
    ) -> Callable[[bytes], bytes | Iterable[bytes]]:
        """Make a stream callable that gives on every chunk as it is, or as another addon's callable makes it.

        An exception here would hang the client, and an empty answer would cut its body: the chunk is always returned.
        """

        def tee(data: bytes) -> bytes | Iterable[bytes]:
            try:
                if data and not track.ended:
                    self._put_data(track, kind, data)
                    after(data)
            except Exception:  # whatever it is must not reach the flow
                self.counts.errors += 1
                log.debug("a chunk was not recorded", exc_info=True)
            if callable(other):
                answer: bytes | Iterable[bytes] = other(data)
                return answer
            return data

        return tee

    def _put_data(self, track: Track, kind: RecordKind, data: bytes) -> None:
        if self._spool.has_room():
            self._put(track, partial(self._encode_data, track, kind, track.now(), data), len(data))
        else:
            track.gap = True

    def _encode_data(self, track: Track, kind: RecordKind, at: int, data: bytes) -> bytes:
        keeper = track.request if kind is RecordKind.REQUEST_DATA else track.response
        assert keeper is not None
        kept = keeper.feed(data)
        return encode_data(kind, track.call_id, at, kept) if kept else b""

    # WebSockets

    def websocket_message(self, flow: http.HTTPFlow) -> None:
        track = self._tracks.get(flow.id)
        if track is None or flow.websocket is None or not flow.websocket.messages:
            return
        last = flow.websocket.messages[-1]
        message = Message(track.now(), last.from_client, last.is_text, len(last.content), last.content)
        # mitmproxy keeps every message of a session, and needs only the last.
        del flow.websocket.messages[:-1]
        if self._spool.has_room():
            self._put(track, partial(self._encode_message, track, message), message.size)
        else:
            track.gap = True

    def _encode_message(self, track: Track, message: Message) -> bytes:
        content = b""
        if message.is_text:
            mask = BodyMask(track.keys)
            content = (mask.feed(message.content) + mask.finish())[:CAPTURED]
        kept = Message(message.at, message.from_client, message.is_text, message.size, content)
        return encode_message(track.call_id, kept)

    async def websocket_end(self, flow: http.HTTPFlow) -> None:
        track, websocket = self._tracks.get(flow.id), flow.websocket
        if track is None or websocket is None:
            return
        code = websocket.close_code
        facts: dict[str, object] = {
            "close_code": code,
            "close_reason": websocket.close_reason,
            "by_client": websocket.closed_by_client,
        }
        # RFC 6455, 7.4.1: 1000 and 1001 are an orderly end; 1005 is a close without a code.
        cut = Ending.CLIENT_GONE if websocket.closed_by_client else Ending.SERVER_GONE
        ending = Ending.COMPLETE if code in (1000, 1001, 1005) else cut
        self._end(flow, track, ending, f"WebSocket closed with {code}", websocket=facts)
        await self._spool.committed()

    # Ends that are none of a response

    async def error(self, flow: http.HTTPFlow) -> None:
        track = self._tracks.get(flow.id)
        if track is None:
            return
        message = flow.error.msg if flow.error else ""
        self._end(flow, track, _ending_of(flow, message, track), message)
        await self._spool.committed()

    def connect(self, flow: http.HTTPFlow) -> None:
        """A client asks for a tunnel: of a call, if that fails, this is all there is."""
        if self.wants(flow):
            self._connects[flow.id] = Track(new_call_id().bytes, flow.client_conn.id, ())

    def connected(self, flow: http.HTTPFlow) -> None:
        self._connects.pop(flow.id, None)

    async def connect_error(self, flow: http.HTTPFlow) -> None:
        asked = self._connects.pop(flow.id, None)
        if asked is None:
            return
        track = self._begin(flow, Head.of(flow.request.headers))
        why = flow.server_conn.error or (flow.response.get_text(strict=False) if flow.response else None)
        self._end(flow, track, Ending.NOT_CONNECTED, why or "the server could not be reached", began=asked.started)
        await self._spool.committed()

    def client_gone(self, client_id: str) -> None:
        """End what no hook ended: a client left, and mitmproxy had nothing more to say of its flows."""
        for flow_id, track in list(self._tracks.items()):
            if track.client_id == client_id:
                self._finish(flow_id, track, Ending.CLIENT_GONE, "the client disconnected")

    def shutdown(self) -> None:
        """End every call that is under way: the proxy stops."""
        for flow_id, track in list(self._tracks.items()):
            self._finish(flow_id, track, Ending.INTERRUPTED, "the proxy was stopped")

    def _end(
        self,
        flow: http.HTTPFlow,
        track: Track,
        ending: str,
        message: str = "",
        *,
        content: bytes = b"",
        websocket: dict[str, object] | None = None,
        began: int | None = None,
    ) -> None:
        facts: dict[str, object] = {"websocket": websocket} if websocket else {}
        if began is not None:
            facts["began_before"] = (track.started - began) // 1000
        self._finish(flow.id, track, ending, message, content, facts)

    def _finish(
        self,
        flow_id: str,
        track: Track,
        ending: str,
        message: str,
        content: bytes = b"",
        facts: dict[str, object] | None = None,
    ) -> None:
        del self._tracks[flow_id]
        track.ended = True
        self.counts.ended += 1
        self.counts.gaps += track.gap
        end = {"ending": ending, "message": _printable(message), "gap": track.gap, **(facts or {})}
        self._put(track, partial(self._encode_end, track, track.now(), content, end), len(content))

    def _encode_end(self, track: Track, at: int, content: bytes, facts: dict[str, object]) -> bytes:
        pieces = []
        if track.request is not None and not track.request_done:
            pieces.append(self._encode_request_end(track, at, b""))
        if track.response is not None:
            kinds = RecordKind.RESPONSE_DATA, RecordKind.RESPONSE_END
            pieces.append(_ended(track.call_id, track.response, at, content, *kinds))
        if facts["message"]:
            facts["message"] = mask_text(str(facts["message"]), track.keys)
        facts["at"] = at
        pieces.append(encode_facts(RecordKind.END, track.call_id, facts))
        return b"".join(pieces)

    # Handing over

    def _keeper(self, track: Track, head: Head, url: str) -> BodyKeeper:
        mask = BodyMask(
            track.keys,
            lines=head.is_event_stream,
            client_secrets=url.partition("?")[0].endswith(_CLIENT_SECRET_PATHS),
        )
        encoding = head.values.get("content-encoding", "")
        return BodyKeeper(head.content_type, encoding, mask)

    def _put(self, track: Track, encode: Callable[[], bytes], size: int = 0) -> None:
        def encoded() -> bytes:
            return b"" if track.lost else encode()

        def lost() -> None:
            self.counts.lost += not track.lost
            track.lost = True

        self._spool.put(Entry(encoded, size, lost))


def _ended(
    call_id: bytes, keeper: BodyKeeper, at: int, content: bytes, data_kind: RecordKind, end_kind: RecordKind
) -> bytes:
    """Encode the last bytes of a body and its summary."""
    kept, summary = keeper.finish(content)
    data = encode_data(data_kind, call_id, at, kept) if kept else b""
    facts = {
        "at": at,
        "size": summary.size,
        "sha256": summary.sha256,
        "kept": summary.kept,
        "truncated": summary.truncated,
        "error": summary.error,
    }
    return data + encode_facts(end_kind, call_id, facts)


def _ending_of(flow: http.HTTPFlow, message: str, track: Track) -> str:
    """Tell from the connections' states who ended a flow; mitmproxy's messages tell only part of it."""
    if message == mitmflow.Error.KILLED_MESSAGE or "body too large" in message:
        return Ending.STOPPED
    silent = (time.monotonic_ns() - track.started) / 1e9 - track.last_seen / 1e6
    if message == "Client disconnected." and silent >= _idle_seconds() - 1:
        return Ending.TIMEOUT
    if not flow.client_conn.connected or "by client" in message:
        return Ending.CLIENT_GONE
    upstream = flow.server_conn
    tls_missing = flow.request.scheme == "https" and not upstream.tls_established
    if flow.response is None and (upstream.timestamp_tcp_setup is None or tls_missing):
        return Ending.NOT_CONNECTED
    return Ending.SERVER_GONE


def _idle_seconds() -> float:
    """After how long without a byte mitmproxy gives a connection up: an option since 12.2.1, a constant before."""
    return float(getattr(ctx.options, "tcp_timeout", getattr(server, "TCP_TIMEOUT", 600)))


def _is_streamed_request(request: http.Request, head: Head) -> bool:
    """Whether a request's body is better passed on as it comes than buffered."""
    if head.content_length is not None:
        return head.content_length > BUFFERED_BYTES
    return "transfer-encoding" in head.values or (request.is_http2 and request.method in ("POST", "PUT", "PATCH"))


def _is_streamed_response(head: Head) -> bool:
    """Whether a response's body is better passed on as it comes than buffered: all of unknown length are."""
    return head.is_event_stream or head.content_length is None or head.content_length > BUFFERED_BYTES


def _url_of(flow: http.HTTPFlow) -> str:
    """The URL as the app meant it: a transparent proxy knows the address only, the Host header the name."""
    transparent = type(flow.client_conn.proxy_mode).__name__ in (
        "TransparentMode",
        "LocalMode",
        "WireGuardMode",
        "TunMode",
    )
    return flow.request.pretty_url if transparent else flow.request.url


def _server_address(flow: http.HTTPFlow) -> str:
    request = flow.request
    usual = {"https": 443, "http": 80}.get(request.scheme)
    host = flow.server_conn.sni or request.host
    return host if request.port == usual or not request.scheme else f"{host}:{request.port}"


def _printable(text: str) -> str:
    """Replace what mitmproxy could not decode, which has no place in UTF-8, by its escapes."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
