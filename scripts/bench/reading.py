"""How much reading a stream costs, beside what `json.loads` (and orjson) of the same events alone costs.

    python scripts/bench/reading.py [FOLDER OF RECORDINGS]

Prints a table of recorded streams, a made-up one, and one stream from 1 to 50 MB; then the cost of a
call of about 2 KB. Medians of several rounds, the three readers taking turns.
"""

from __future__ import annotations

import base64
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "addon"))

from calltracker.openai import Exchange, read, sse  # noqa: E402

ROUNDS = 9
MEGABYTE = 1_000_000


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "recordings"
    recorded = streams_of(folder)
    print(f"{'streams':<24}{'bytes':>12}{'events':>9}{'read':>11}{'json':>11}{'orjson':>11}{'read/json':>11}")
    for name, bodies in recorded.items():
        compare(name, bodies)
    compare("made up, chat", [chat_stream(20_000)])
    for size in (1, 5, 10, 25, 50):
        compare(f"one stream of {size} MB", [chat_stream(size * MEGABYTE)], rounds=3)
    one_call()


def streams_of(folder: Path) -> dict[str, list[bytes]]:
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        bodies = [base64.b64decode(json.loads(line)["response"]["body_b64"]) for line in path.open()]
        found[path.stem] = [body for body in bodies if body.startswith((b"data:", b"event:"))]
    return found


def chat_stream(size: int) -> bytes:
    """Make a stream of about `size` bytes, its chunks like those of a chat completion."""
    head = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1731000000,"model":"gpt-4o-mini",'
    rest = b'"service_tier":"default","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"content":" word"},'
    chunk = head + rest + b'"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
    return chunk * (size // len(chunk)) + b"data: [DONE]\n\n"


def exchange_of(body: bytes, content_type: str = "text/event-stream") -> Exchange:
    return Exchange(
        method="POST",
        url="https://api.openai.com/v1/chat/completions",
        request_headers={"content-type": "application/json"},
        request_body=b'{"model":"gpt-4o-mini","stream":true}',
        status=200,
        response_headers={"content-type": content_type},
        response_body=body,
    )


def compare(name: str, bodies: list[bytes], rounds: int = ROUNDS) -> None:
    exchanges = [exchange_of(body) for body in bodies]
    events = [event.data for body in bodies for event in sse.parse(body)[0] if event.data != b"[DONE]"]
    reading, plain, fast = medians(
        rounds,
        lambda: [read(exchange) for exchange in exchanges],
        lambda: [json.loads(data) for data in events],
        lambda: [orjson.loads(data) for data in events],
    )
    times = "".join(f"{1000 * seconds:>8.2f} ms" for seconds in (reading, plain, fast))
    print(f"{name:<24}{sum(map(len, bodies)):>12,}{len(events):>9,}{times}{reading / plain:>11.2f}")


def one_call() -> None:
    request = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "word " * 200}]}).encode()
    message = {"role": "assistant", "content": "word " * 120}
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 0}}
    answer = {"id": "c", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    whole = exchange_of(json.dumps({**answer, "usage": usage}).encode(), "application/json")
    calls = [
        Exchange(
            method=whole.method,
            url=whole.url,
            request_headers=whole.request_headers,
            request_body=request,
            status=200,
            response_headers=whole.response_headers,
            response_body=whole.response_body,
        )
    ] * 1000
    (seconds,) = medians(ROUNDS, lambda: [read(call) for call in calls])
    print(f"\none call of {len(request) + len(whole.response_body):,} bytes: {seconds * 1000:.1f} µs")


def medians(rounds: int, *readers: Callable[[], object]) -> list[float]:
    """Run the readers in turn, several times each; return the median seconds of each."""
    times: list[list[float]] = [[] for _ in readers]
    for _ in range(rounds):
        for place, reader in enumerate(readers):
            start = time.perf_counter()
            reader()
            times[place].append(time.perf_counter() - start)
    return [statistics.median(many) for many in times]


if __name__ == "__main__":
    main()
