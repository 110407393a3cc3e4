"""Recorded exchanges, what the oracle expects of them, and the comparison of a row, or a reading, with that."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from calltracker.openai import Exchange

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "recordings"
CLIENTS = "LLM_CALLS_TEST_CLIENTS"  # the python of the clients' environment, in which `openai` is installed

# The oracle's own names for what lies in response_json.
_SHAPES = ("texts", "refusals", "tool_calls", "output_text", "output_types", "images")


def files() -> list[Path]:
    return sorted(FOLDER.glob("*.jsonl"))


@cache
def recordings(path: Path) -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in path.read_text().splitlines())


def exchange_of(recording: Mapping[str, Any]) -> Exchange:
    request, response = recording["request"], recording["response"]
    return Exchange(
        method=request["method"],
        url=request["url"],
        request_headers={name.lower(): value for name, value in request["headers"]},
        request_body=base64.b64decode(request["body_b64"]),
        status=response["status"],
        response_headers={name.lower(): value for name, value in response["headers"]},
        response_body=base64.b64decode(response["body_b64"]),
    )


def is_stream(recording: Mapping[str, Any]) -> bool:
    return exchange_of(recording).response_body.startswith((b"data:", b"event:"))


@cache
def expected(path: Path) -> tuple[dict[str, Any], ...]:
    """Ask the oracle: for each recording of a file the columns that the `openai` package has a view on."""
    script = Path(__file__).with_name("oracle.py")
    environment = {"PATH": os.environ.get("PATH", "")}
    run = subprocess.run(
        [os.environ[CLIENTS], script, path], capture_output=True, text=True, check=True, env=environment, timeout=120
    )
    return tuple(json.loads(line) for line in run.stdout.splitlines())


def differences(expected: Mapping[str, Any], columns: Mapping[str, Any]) -> list[str]:
    """Compare with a row's columns (or a reading's fields); give a line for each that differs.

    Of an exchange that the package itself cannot read there is nothing to compare.
    """
    shapes = _shapes(columns["response_json"]) if any(name in expected for name in _SHAPES) else {}
    found = []
    for name, value in expected.items():
        if name not in _SHAPES and name not in columns:
            continue  # a reading has fields that a row has not
        got = shapes.get(name) if name in _SHAPES else columns[name]
        if got != value:
            found.append(f"{name}: {got!r}, the openai package: {value!r}")
    return found


def _tool_call(call: Mapping[str, Any]) -> list[Any]:
    made = call.get("function") or call["custom"]
    return [call.get("id"), made.get("name"), made.get("arguments", made.get("input"))]


def _shapes(text: str) -> dict[str, Any]:
    """Take from response_json what the oracle has names for: one way for streamed and unstreamed answers."""
    answer = json.loads(text)
    choices = answer.get("choices") or ()
    output = answer.get("output") or ()
    messages = [choice["message"] for choice in choices if "message" in choice]
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    return {
        "texts": [message.get("content") for message in messages] or [choice.get("text") for choice in choices],
        "refusals": [message.get("refusal") for message in messages],
        "tool_calls": [[_tool_call(call) for call in message.get("tool_calls") or ()] for message in messages],
        "output_text": "".join(part["text"] for part in parts if part["type"] == "output_text"),
        "output_types": [item["type"] for item in output],
        "images": answer.get("data"),
    }
