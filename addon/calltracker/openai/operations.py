"""What a request asks for, told from its method and path.

The path's first segment that names a resource of the API decides; what stands before it is a server's own prefix
(`/v1`, `/openai/v1`, `/openai/deployments/{deployment}`, …). Names: OpenTelemetry's gen_ai.operation.name where it has
one, otherwise the API's own. Of the two resources that keep what they generated, chat and responses, a request
that generates nothing has the SDK's method after the name: `responses.retrieve`, `chat.list`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

_OPENTELEMETRY = {"chat": "chat", "completions": "text_completion", "embeddings": "embeddings"}

# https://platform.openai.com/docs/api-reference and the older surfaces; the last line: compatible servers.
_RESOURCES = frozenset((
    "chat", "completions", "embeddings", "responses", "conversations", "images", "audio", "videos",
    "moderations", "realtime", "models", "files", "uploads", "batches", "vector_stores", "fine_tuning",
    "evals", "containers", "assistants", "threads", "chatkit", "skills", "organization", "graders", "engines",
    "edits", "answers", "classifications", "search", "fine-tunes", "rerank", "score", "tokenize",
    "detokenize", "pooling", "classify",
))  # fmt: skip
# A prefix for some servers (Azure's /models/chat/completions, the old /engines/{model}/completions): the resource only
# where no other follows.
_WEAK = ("models", "engines")

# What follows the resource where a POST generates; other requests there handle what is kept.
_GENERATES = {"chat": (("completions",), ()), "responses": ((), ("compact",))}
_VERBS = {"GET": "retrieve", "HEAD": "retrieve", "POST": "update", "DELETE": "delete"}


class Operation(NamedTuple):
    """`name`: the column. `generates`: usage that it tells is its own. `content`: the answer is a file's content."""

    name: str = ""
    generates: bool = False
    content: bool = False
    model: str = ""  # named by the URL: Realtime's ?model=, /engines/{model}
    object_id: str = ""  # of the file whose content it is


@lru_cache(maxsize=1024)
def operation_of(method: str, url: str) -> Operation:
    """Tell the operation of a request; never raises. https://platform.openai.com/docs/api-reference

    Names: OpenTelemetry's gen_ai.operation.name,
    https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/
    """
    try:
        parts = urlsplit(url)
        segments = [unquote(segment) for segment in parts.path.split("/") if segment]
        model = parse_qs(parts.query).get("model", [""])[0]
    except ValueError:
        return Operation()
    method = method.upper()
    place = _resource_at(segments)
    if place is None:
        return Operation(model=model)
    resource, rest = segments[place], tuple(segments[place + 1 :])
    if not model and "engines" in segments[:place]:
        model = segments[segments.index("engines") + 1]
    name = _OPENTELEMETRY.get(resource, resource)
    if resource in _GENERATES:
        generates = method == "POST" and rest in _GENERATES[resource]
        if not generates and method not in ("OPTIONS", "CONNECT") and not _is_socket(method, rest):
            name = f"{name}.{_verb(method, resource, rest)}"
    else:
        generates = method == "POST" and rest[-1:] != ("cancel",)
    content = rest[-1:] == ("content",) and method == "GET"
    return Operation(name, generates, content, model, rest[-2] if content and len(rest) > 1 else "")


def _resource_at(segments: list[str]) -> int | None:
    weak = None
    place = 0
    while place < len(segments):
        if segments[place] in _WEAK:
            weak = place if weak is None else weak
        elif segments[place] in _RESOURCES:
            return place
        # What follows these is a name, whatever it reads like.
        place += 2 if segments[place] in ("deployments", "engines") else 1
    return weak


def _is_socket(method: str, rest: tuple[str, ...]) -> bool:
    """Responses over WebSocket: the upgrade is a GET of the bare resource, which HTTP alone does not have."""
    return method == "GET" and not rest


def _verb(method: str, resource: str, rest: tuple[str, ...]) -> str:
    own = rest[1:] if resource == "chat" else rest
    if not own:
        return "list" if method == "GET" else _VERBS.get(method, method.lower())
    if own == ("input_tokens",) or len(own) > 1:
        return own[-1]  # input_items, messages, cancel
    return _VERBS.get(method, method.lower())
