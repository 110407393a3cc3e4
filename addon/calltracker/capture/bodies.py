"""What is kept of a body: bytes in as they came over the wire, bytes out as they may be written.

    wire ─▶ size, SHA-256 ─▶ content decoding ─▶ files of an upload elided ─▶ secrets masked ─▶ cut at the limit

The limit is above what OpenAI takes and far above what a row keeps (llm_calls_body_limit): the worker reads the whole,
and cuts then. A client puts the model behind the messages, and a stream tells tokens and end in its last lines.
Binary bodies (audio, images, what is not text) are not kept: their type, size and hash stand for them. Nothing here
raises for any input: what cannot be decoded is not kept either, and the summary says why.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import brotli
import zstandard

from ..openai.multipart import FileEliding
from .secrets import BodyMask

CAPTURED = 48 << 20  # bytes of a body that the worker gets to read: what follows decides the model, the tokens, the end
SLICE = 4096  # bytes decoded at a time: what a hostile body can unpack to at once is bounded by it
_BINARY_TYPES = (
    "audio/",
    "image/",
    "video/",
    "font/",
    "application/zip",
    "application/gzip",
    "application/pdf",
)
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\b\x1b"))


@dataclass(frozen=True, slots=True)
class BodySummary:
    """What is known of a whole body once it has ended, or broken off.

    `size` is in bytes on the wire; `sha256` is of the same bytes. `kept` is "text" (what was given out is the body),
    "binary" (nothing was kept) or "elided" (a multipart body, its files replaced by descriptions).
    """

    size: int
    sha256: str
    kept: str
    truncated: bool
    error: str


class Decoder(Protocol):
    def __call__(self, data: bytes) -> bytes: ...


class _Gzip:
    """gzip and deflate, with or without zlib's header, any number of members."""

    def __init__(self, *, deflate: bool) -> None:
        self._deflate = deflate
        self._object: zlib._Decompress | None = None

    def __call__(self, data: bytes) -> bytes:
        pieces = []
        while data:
            if self._object is None:
                headed = data[0] & 0x0F == 8  # RFC 1950, 2.2: CM; what servers call deflate is often the bare RFC 1951
                self._object = zlib.decompressobj(47 if not self._deflate or headed else -15)
            pieces.append(self._object.decompress(data))
            if not self._object.eof:
                break
            data, self._object = self._object.unused_data, None
        return b"".join(pieces)


class _Zstd:
    """zstd, any number of frames."""

    def __init__(self) -> None:
        self._object = zstandard.ZstdDecompressor().decompressobj()

    def __call__(self, data: bytes) -> bytes:
        pieces = []
        while data:
            pieces.append(self._object.decompress(data))
            if not self._object.eof:
                break
            data = self._object.unused_data
            self._object = zstandard.ZstdDecompressor().decompressobj()
        return b"".join(pieces)


def _brotli() -> Decoder:
    process = brotli.Decompressor().process
    return lambda data: bytes(process(data))


_DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": lambda: _Gzip(deflate=False),
    "x-gzip": lambda: _Gzip(deflate=False),
    "deflate": lambda: _Gzip(deflate=True),
    "br": _brotli,
    "zstd": _Zstd,
}


class BodyKeeper:
    """One body, from its first byte to its end."""

    def __init__(self, content_type: str, content_encoding: str, mask: BodyMask, limit: int = CAPTURED) -> None:
        """`limit`: bytes that are given out at the most."""
        self._size = 0
        self._hash = hashlib.sha256()
        self._error = ""
        self._decoders = self._make_decoders(content_encoding)
        media_type = content_type.partition(";")[0].strip().lower()
        self._kept = "binary" if media_type.startswith(_BINARY_TYPES) else "text"
        self._files = FileEliding(content_type) if media_type == "multipart/form-data" else None
        if self._files is not None:
            self._kept = "elided"
        self._unseen = self._kept == "text"
        self._mask = mask
        self._left = limit
        self._truncated = False

    def _make_decoders(self, content_encoding: str) -> list[Decoder]:
        if not content_encoding:
            return []
        names = [name.strip().lower() for name in content_encoding.split(",")]
        names = [name for name in names if name not in ("", "identity", "aws-chunked")]
        unknown = [name for name in names if name not in _DECODERS]
        if unknown:
            self._error = f"content-encoding {unknown[0]!r} is unknown: the body was not kept"
        return [_DECODERS[name]() for name in reversed(names) if name in _DECODERS]

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the body; return what is to be written now."""
        self._size += len(data)
        self._hash.update(data)
        if self._kept == "binary" or self._error or self._truncated:
            return b""
        if not self._decoders:
            return self._keep(data)
        return b"".join(self._keep(piece) for piece in self._decoded(data))

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), SLICE):
            piece = data[start : start + SLICE]
            try:
                for decode in self._decoders:
                    piece = decode(piece)
            except (zlib.error, brotli.error, zstandard.ZstdError) as error:
                self._error = f"the body is not what its content-encoding says: {error}"
                return
            yield piece
            if self._truncated or self._kept == "binary":
                return

    def _keep(self, data: bytes) -> bytes:
        if self._unseen and data:
            self._unseen = False
            if not looks_like_text(data):
                self._kept = "binary"
                return b""
        if self._files is not None:
            data = self._files.feed(data)
        return self._cut(self._mask.feed(data))

    def _cut(self, data: bytes) -> bytes:
        if len(data) > self._left:
            data, self._truncated = data[: self._left], True
        self._left -= len(data)
        return data

    def finish(self, last: bytes = b"") -> tuple[bytes, BodySummary]:
        """End the body with its last bytes: return the rest of what is to be written, and the summary."""
        if not self._size and self._is_kept_as_it_is(last):
            return last, BodySummary(len(last), hashlib.sha256(last).hexdigest(), "text", False, "")
        kept = self.feed(last) if last else b""
        rest, summary = self._finished()
        return kept + rest, summary

    def _is_kept_as_it_is(self, whole: bytes) -> bool:
        # The usual body of a call: in one piece, plain text, without a secret.
        if self._kept != "text" or self._decoders or self._error or len(whole) > self._left:
            return False
        return looks_like_text(whole) and self._mask.is_clean(whole)

    def _finished(self) -> tuple[bytes, BodySummary]:
        rest = b""
        if self._kept != "binary" and not self._truncated:
            rest = self._mask.feed(self._files.finish()) if self._files is not None else b""
            rest = self._cut(rest + self._mask.finish())
        return rest, BodySummary(self._size, self._hash.hexdigest(), self._kept, self._truncated, self._error)


def looks_like_text(start: bytes) -> bool:
    """Whether a body that begins so is text: no control characters but white space, or UTF-16 with its mark."""
    sample = start[:SLICE]
    return sample.startswith((b"\xff\xfe", b"\xfe\xff")) or len(sample.translate(None, _CONTROL)) == len(sample)
