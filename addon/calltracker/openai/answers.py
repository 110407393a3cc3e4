"""What an answer says of itself, streamed or not: identity, usage, why it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .usage import Tokens, tokens_of, usage_of

_UNENDED = ("", "queued", "in_progress", "requires_action")


class Answer(NamedTuple):
    """Columns of the row that an answer's object fills."""

    response_model: str = ""
    response_id: str = ""
    service_tier: str = ""
    finish_reason: str = ""
    tokens: Tokens = Tokens()


def answer_of(answer: Any) -> Answer:
    """Read a chat completion, completion, response, run, or any other object of the API.

    https://platform.openai.com/docs/api-reference: chat/object, completions/object, responses/object, runs/object.
    """
    if not isinstance(answer, dict):
        return Answer()
    return Answer(
        text_of(answer, "model"),
        text_of(answer, "id"),
        text_of(answer, "service_tier"),
        _finish_reason(answer),
        tokens_of(usage_of(answer)),
    )


def text_of(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    return value if isinstance(value, str) else ""


def _finish_reason(answer: dict[str, Any]) -> str:
    """Choices tell their finish_reason; a response or run its status, or why it is incomplete."""
    choices = answer.get("choices")
    if isinstance(choices, list):
        reasons = [text_of(choice, "finish_reason") for choice in choices if isinstance(choice, dict)]
        return ",".join(reason for reason in reasons if reason)
    if "output" not in answer and answer.get("object") != "thread.run":
        return ""
    for details in (answer.get("incomplete_details"), answer.get("status_details")):
        if isinstance(details, dict) and isinstance(details.get("reason"), str):
            return str(details["reason"])
    status = text_of(answer, "status")
    return "" if status in _UNENDED else status
