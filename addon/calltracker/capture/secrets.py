"""Masking: nothing that lets somebody act as the user is written to a disk, a log or a console.

Three nets, each of which would do alone for most cases: names (headers, query parameters, JSON members that hold
secrets), the values themselves (the key that a request carries is looked for in everything else of that call), and
shapes (what looks like an OpenAI key is masked wherever it stands). A body comes in pieces; `BodyMask` holds back the
end of what it has seen, so that a secret that lies across two pieces is found too.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote_plus

MASK = "[masked]"

SECRET_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "api-key",
        "x-api-key",
        "ocp-apim-subscription-key",
        "cookie",
        "set-cookie",
        "chatgpt-account-id",
        "x-goog-api-key",
        "aeg-sas-key",
    }
)
_CREDENTIAL_HEADERS = frozenset(
    {"authorization", "api-key", "x-api-key", "ocp-apim-subscription-key", "sec-websocket-protocol"}
)
# Parts of header names; the counters of tokens that OpenAI and Azure report are not secrets.
_SECRET_PARTS = ("token", "secret", "password", "apikey", "api-key", "api_key")
_COUNTERS = re.compile(r"x-ratelimit-.*tokens.*|x-.*-tokens?-(?:count|used|remaining|limit).*")
SECRET_PARAMETERS = frozenset({"api-key", "api_key", "apikey", "key", "sig", "signature", "code", "password"})
_SECRET_PARAMETER_PARTS = ("token", "secret", "api-key", "api_key")

_SUBPROTOCOL = re.compile(r"(openai-insecure-api-key\.)[^\s,]+", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/?#@]*@")

_SHAPES = re.compile(rb"(?<![A-Za-z0-9_-])(?:sk-|ek_|sess-)(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,}")
# A member of a JSON object, also one inside a string of JSON (its quotes then have backslashes before them).
_MEMBERS = re.compile(
    rb"""\\*"(?:client_secret|authorization|proxy-authorization|api[-_]?key|x-api-key|(?:access|refresh|auth)_token)\\*"\s*:\s*"""
    rb"""(?:\{[^{}]{0,512}?\\*"value\\*"\s*:\s*)?\\*"(?P<secret>(?:[^"\\]|\\[^"])*)\\*\"""",
    re.IGNORECASE,
)
# What the name of such a member ends in, with what comes after it; "max_tokens" and the like are in every body.
_MEMBER_WORDS = (b"secret", b"thorization", b"key", b"_token")
_MEMBER_ENDS = tuple(word + mark for word in _MEMBER_WORDS for mark in (b'"', b"\\"))
_CLIENT_SECRET_VALUE = re.compile(rb'"value"\s*:\s*"(?P<secret>(?:[^"\\]|\\[^"])*)"')

HELD_BACK = 4096  # bytes; no secret is longer
LONGEST_LINE = 65536  # bytes of an event stream's line that are held back for its end
SHORTEST_KEY = 8  # a shorter "key" ("none", "EMPTY") is a placeholder, and part of ordinary text


@functools.lru_cache(maxsize=4096)
def is_secret_header(name: str) -> bool:
    """Whether a header's value (name in lower case) is masked."""
    if name in SECRET_HEADERS:
        return True
    return any(part in name for part in _SECRET_PARTS) and not _COUNTERS.fullmatch(name)


def _is_secret_parameter(name: str) -> bool:
    lower = unquote_plus(name).lower()
    return lower in SECRET_PARAMETERS or any(part in lower for part in _SECRET_PARAMETER_PARTS)


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is masked by name: the built-in names and the user's own, in lower case."""

    own_names: frozenset[str] = frozenset()

    def headers(self, fields: Iterable[tuple[str, str]], keys: Iterable[str] = ()) -> list[tuple[str, str]]:
        """Lower the names and mask the values that are, or contain, secrets. `keys`: the call's own credentials."""
        masked = []
        for name, value in fields:
            lower = name.lower()
            if is_secret_header(lower) or lower in self.own_names or lower == "sec-websocket-protocol":
                value = self._header(lower, value)
            masked.append((lower, value))
        together = "\n".join([value for _, value in masked])
        if mask_text(together, keys) == together:
            return masked
        return [(name, mask_text(value, keys)) for name, value in masked]

    def _header(self, name: str, value: str) -> str:
        if is_secret_header(name) or name in self.own_names:
            scheme, blank, _ = value.partition(" ")
            return f"{scheme} {MASK}" if blank and name.endswith("authorization") else MASK
        return _SUBPROTOCOL.sub(rf"\1{MASK}", value) if name == "sec-websocket-protocol" else value

    def url(self, url: str, keys: Iterable[str] = ()) -> str:
        """Mask user:password, the values of secret query parameters, and keys anywhere else."""
        address, question, query = url.partition("?")
        if "@" in address:
            address = _USERINFO.sub(f"{MASK}@", address)
        if question:
            query = "&".join(self._parameter(parameter) for parameter in query.split("&"))
        return mask_text(address + question + query, keys)

    def _parameter(self, parameter: str) -> str:
        name, equals, _ = parameter.partition("=")
        secret = equals and (_is_secret_parameter(name) or unquote_plus(name).lower() in self.own_names)
        return f"{name}={MASK}" if secret else parameter


def credentials(headers: Iterable[tuple[str, str]], url: str) -> tuple[str, ...]:
    """The keys for the API that a request carries, the one that identifies its caller first. Names in any case."""
    found: list[str] = []
    for name, value in headers:
        lower = name.lower()
        if lower not in _CREDENTIAL_HEADERS:
            continue
        if lower == "authorization":
            found.append(value.partition(" ")[2].strip() or value)
        elif lower == "sec-websocket-protocol":
            found += [match[0].partition(".")[2] for match in _SUBPROTOCOL.finditer(value)]
        else:
            found.append(value)
    for parameter in url.partition("?")[2].split("&"):
        name, _, value = parameter.partition("=")
        if value and _is_secret_parameter(name):
            found += [value, unquote_plus(value)]
    return tuple(dict.fromkeys(key for key in found if key))


@functools.lru_cache(maxsize=256)
def key_hash(key: str, install_secret: bytes) -> str:
    """Return 16 hex digits that are the same for the same key of one installation, and tell nothing of the key."""
    return hmac.digest(install_secret, key.encode("utf-8", "surrogateescape"), hashlib.sha256).hex()[:16]


def mask_text(text: str, keys: Iterable[str] = ()) -> str:
    """Mask keys, by value or shape, in a short text."""
    for key in keys:
        if len(key) >= SHORTEST_KEY:
            text = text.replace(key, MASK)
    data = text.encode("utf-8", "surrogatepass")
    if _may_have_shapes(data):
        return _SHAPES.sub(MASK.encode(), data).decode("utf-8", "surrogatepass")
    return text


# Looking for a few short strings first costs a fraction of the regular expressions, which seldom have work.


def _may_have_shapes(data: bytes) -> bool:
    return b"sk-" in data or b"ek_" in data or b"sess-" in data


def _may_have_members(data: bytes) -> bool:
    lower = data.lower()
    return _has_any(lower, _MEMBER_WORDS) and _has_any(lower, _MEMBER_ENDS)


def _has_any(data: bytes, parts: tuple[bytes, ...]) -> bool:
    for part in parts:  # noqa: SIM110 - a generator would double the cost
        if part in data:
            return True
    return False


class BodyMask:
    """Masks secrets in a body that comes in pieces: `feed` gives what is safe to write, `finish` the rest.

    Lines of an event stream are given as soon as they are whole; of anything else the last 4 KiB are held back until
    the end. Masks are shorter or longer than what they stand for: sizes and hashes are taken before masking.
    """

    def __init__(self, keys: Iterable[str], *, lines: bool = False, client_secrets: bool = False) -> None:
        """`lines`: an event stream. `client_secrets`: a Realtime endpoint, whose answer's "value" is a secret."""
        self._keys = tuple(key.encode("utf-8", "surrogateescape") for key in keys if len(key) >= SHORTEST_KEY)
        self._lines = lines
        self._client_secrets = client_secrets
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        if self._lines and not self._held and data.endswith(b"\n") and self.is_clean(data):
            return data  # the usual event: no secret goes on in the next line
        self._held += data
        if self._lines and b"\n" not in data and len(self._held) < LONGEST_LINE:
            return b""
        cut = self._held.rfind(b"\n") + 1 if self._lines else 0
        if len(self._held) - cut >= (LONGEST_LINE if self._lines else 2 * HELD_BACK):
            cut = len(self._held) - HELD_BACK
        return self._give(cut) if cut else b""

    def finish(self) -> bytes:
        return self._give(len(self._held))

    def is_clean(self, data: bytes) -> bool:
        """Whether there is surely nothing to mask in a body, or in lines of one."""
        if self._client_secrets or _may_have_shapes(data) or _may_have_members(data):
            return False
        return not _has_any(data, self._keys)

    def _give(self, cut: int) -> bytes:
        held = bytes(self._held)
        spans = list(self._spans(held))
        # What lies across the cut waits for the next time, whole: the name of a member with its value.
        cut = min([cut] + [begin for begin, _, end in spans if begin < cut < end])
        self._held = bytearray(held[cut:])
        return _masked(held[:cut], sorted((start, end) for _, start, end in spans if end <= cut))

    def _spans(self, data: bytes) -> Iterator[tuple[int, int, int]]:
        """Give (where what tells it begins, where the secret begins, where it ends)."""
        for key in self._keys:
            at = data.find(key)
            while at >= 0:
                yield at, at, at + len(key)
                at = data.find(key, at + len(key))
        if _may_have_shapes(data):
            yield from ((match.start(), *match.span()) for match in _SHAPES.finditer(data))
        if _may_have_members(data):
            yield from ((match.start(), *match.span("secret")) for match in _MEMBERS.finditer(data))
        if self._client_secrets:
            yield from ((match.start(), *match.span("secret")) for match in _CLIENT_SECRET_VALUE.finditer(data))


def _masked(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    pieces: list[bytes] = []
    done = 0
    for start, end in spans:
        if done <= start < end:
            pieces += [data[done:start], MASK.encode()]
        done = max(done, end)
    return b"".join([*pieces, data[done:]])
