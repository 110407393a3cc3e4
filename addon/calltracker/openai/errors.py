"""What a server says went wrong, in one line: 'type (code): message'; what is missing is left out."""

from __future__ import annotations

from typing import Any

_LONGEST = 2000


def error_of(payload: Any) -> str:
    """Read an error body or event of OpenAI, Azure or a compatible server; '' when it tells of none.

    Shapes: {"error": {…}} and [{"error": {…}}]; {"error": "text"}; {"message", "type", "code"} (vLLM, API gateways);
    {"detail": …} (FastAPI). https://platform.openai.com/docs/guides/error-codes
    """
    if isinstance(payload, list):
        payload = payload[0] if payload else None
    if not isinstance(payload, dict):
        return ""
    error = payload.get("error")
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, dict):
        return line_of(error)
    if isinstance(error, str) and error:
        message = _word(payload.get("message")) or _word(payload.get("error_description"))
        return _one_line(f"{error}: {message}" if message else error)
    if "message" in payload or "code" in payload:
        return line_of(payload)
    detail = payload.get("detail")
    if isinstance(detail, list):
        parts = [_word(part.get("msg")) if isinstance(part, dict) else _word(part) for part in detail]
        return _one_line("; ".join(part for part in parts if part))
    return line_of(detail) if isinstance(detail, dict) else _one_line(_word(detail))


def line_of(error: dict[str, Any]) -> str:
    """Write an object of type, code and message as one line."""
    kind, code = _word(error.get("type")), _word(error.get("code", error.get("statusCode")))
    kind = "" if kind == "error" else kind
    head = f"{kind} ({code})" if kind and code else kind or code
    message = _word(error.get("message"))
    return _one_line(f"{head}: {message}" if head and message else head or message)


def _word(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return ""
    return str(value) if isinstance(value, str | int | float) else ""


def _one_line(text: str) -> str:
    text = " ".join(text[: 2 * _LONGEST].split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
