"""The output file of a batch: one answer a line, each with usage of its own. https://platform.openai.com/docs/guides/batch"""

from __future__ import annotations

from typing import NamedTuple

from . import loose
from .answers import Answer, answer_of
from .usage import total


class BatchOutput(NamedTuple):
    """`answer` has the sums; its model only where all lines name the same one."""

    answer: Answer
    json: str
    finished: bool


def read(content: bytes) -> BatchOutput | None:
    """Add up a batch's output or error file; None when the content is something else. A cut last line is left out.

    https://platform.openai.com/docs/api-reference/batch/request-output
    """
    first = content.partition(b"\n")[0]
    if b'"custom_id"' not in first or b'"response"' not in first:
        return None
    answers: list[Answer] = []
    failed = 0
    cut = False
    for line in content.split(b"\n"):
        if not line.strip():
            continue
        try:
            result = loose.loads(line)
        except loose.NotJsonError:
            cut = True
            continue
        response = result.get("response") if isinstance(result, dict) else None
        body = response.get("body") if isinstance(response, dict) else None
        if isinstance(response, dict) and response.get("status_code") == 200:
            answers.append(answer_of(body))
        else:
            failed += 1
    tokens = total(answer.tokens for answer in answers)
    models = sorted({answer.response_model for answer in answers} - {""})
    summary = {
        "object": "batch.output",
        "requests": len(answers) + failed,
        "failed": failed,
        "models": models,
        "usage": {name: number for name, number in tokens._asdict().items() if number is not None},
    }
    if cut:
        summary["incomplete"] = True
    model = models[0] if len(models) == 1 else ""
    return BatchOutput(Answer(response_model=model, tokens=tokens), loose.dumps(summary), not cut)
