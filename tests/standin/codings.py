"""Content codings, whole and as a stream of which each part can be decoded as soon as it has come."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import brotli
import zstandard


class _Brotli:
    def __init__(self) -> None:
        self._compressor = brotli.Compressor(quality=4)

    def part(self, data: bytes) -> bytes:
        return self._compressor.process(data) + self._compressor.flush()

    def end(self) -> bytes:
        return self._compressor.finish()


class _Zlib:
    def __init__(self, window: int) -> None:
        self._compressor = zlib.compressobj(6, zlib.DEFLATED, window)

    def part(self, data: bytes) -> bytes:
        return self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._compressor.flush()


class _Zstandard:
    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor().compressobj()

    def part(self, data: bytes) -> bytes:
        return self._compressor.compress(data) + self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def end(self) -> bytes:
        return self._compressor.flush()


class _Identity:
    def part(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


ENCODERS: dict[str, Callable[[], _Brotli | _Zlib | _Zstandard | _Identity]] = {
    "": _Identity,
    "gzip": lambda: _Zlib(31),
    "deflate": lambda: _Zlib(15),
    "br": _Brotli,
    "zstd": _Zstandard,
}


def encode(coding: str, data: bytes) -> bytes:
    """Encode a whole body."""
    encoder = ENCODERS[coding]()
    return encoder.part(data) + encoder.end()


def decode(coding: str, data: bytes) -> bytes:
    """Decode a whole body."""
    if coding in ("gzip", "deflate"):
        return zlib.decompress(data, 47)
    if coding == "br":
        return brotli.decompress(data)
    if coding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data
