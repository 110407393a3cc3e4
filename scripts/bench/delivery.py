"""How fast rows get from the journal to a server, beside the bare driver sending the same batches.

    python scripts/bench/delivery.py [--rows 200000] [--size 4000] [--rounds 3]
    python scripts/bench/delivery.py --outage 1000000 [--size 1000]

The server is the tests' own, a process beside this one, which reads every column and keeps only the ids. Prints rows a
second of both and their ratio (the two take turns; medians), the time from commit to arrival when one row comes at a
time, and how memory grew while the backlog was delivered. Every run ends with a count of rows at the server.

With --outage: so many rows come while there is no server; then it is there, and all are delivered. Prints for how long
that took, and the exporter's memory meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
import uuid
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "addon"), str(ROOT / "tests")]

from calltracker import journal  # noqa: E402
from calltracker.call import Call, new_call_id  # noqa: E402
from calltracker.proton import outbox  # noqa: E402
from calltracker.proton.client import Proton, _columns  # noqa: E402
from calltracker.proton.exporter import Exporter  # noqa: E402
from calltracker.proton.settings import Settings  # noqa: E402

SINGLE_CALLS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description="Rows a second from the journal to a Proton.")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=4_000, help="bytes of text in a row")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--outage", type=int, metavar="ROWS", help="deliver a backlog of that size after an outage")
    arguments = parser.parse_args()
    if arguments.outage:
        outage(arguments.outage, arguments.size)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite3"
        rows = max(1, arguments.rows // arguments.rounds)
        bare, exported, grown = [], [], 0
        for number in range(arguments.rounds):
            fill(path, rows, arguments.size)
            with ServerProcess() as server:
                bare.append(rows / bare_driver(path, server.port, rows))
                assert server.count() == rows
            with ServerProcess() as server:
                seconds, more = exporter(path, server.port)
                assert server.count() == rows
            exported.append(rows / seconds)
            grown = max(grown, more if number else 0)  # the first round fills caches
        show(rows, bare, exported, grown)
        delays = single_calls(Path(folder) / "single.sqlite3", arguments.size)
    print(f"one row at a time: {statistics.median(delays):.1f} ms from commit to arrival, at most {max(delays):.1f} ms")


def show(rows: int, bare: list[float], exported: list[float], grown: int) -> None:
    driver, ours = statistics.median(bare), statistics.median(exported)
    print(f"{len(bare)} rounds of {rows} rows, each batch of the size that the exporter chooses")
    print(f"bare driver  {driver:9.0f} rows/s  ({', '.join(f'{one:.0f}' for one in bare)})")
    print(f"exporter     {ours:9.0f} rows/s  ({', '.join(f'{one:.0f}' for one in exported)})")
    print(f"exporter / bare driver: {ours / driver:.2f}")
    print(f"memory: the peak grew by {grown / 1024:.1f} MiB after the first round")


# As many fields as the official package sends and OpenAI answers, each about as long.
REQUEST_HEADERS = {
    "accept": "application/json",
    "accept-encoding": "gzip, deflate, br, zstd",
    "authorization": "Bearer [masked]",
    "connection": "keep-alive",
    "content-length": "2077",
    "content-type": "application/json",
    "host": "api.openai.com",
    "user-agent": "OpenAI/Python 2.54.0",
} | {
    f"x-stainless-{name}": "CPython 3.13.0"
    for name in ("arch", "async", "lang", "os", "package-version", "read-timeout", "retry-count", "runtime", "version")
}
RESPONSE_HEADERS = {
    "content-encoding": "gzip",
    "content-type": "application/json",
    "date": "Tue, 24 Nov 2026 12:00:00 GMT",
    "openai-organization": "an-organization",
    "openai-processing-ms": "871",
    "openai-version": "2020-10-01",
    "server": "cloudflare",
    "set-cookie": "[masked]",
} | {
    f"x-ratelimit-{name}-{what}": "29999" for name in ("limit", "remaining", "reset") for what in ("requests", "tokens")
}


def make_call(size: int) -> Call:
    """A call with `size` bytes of request and answer, of which the answer stands twice in a row."""
    now = time.time_ns() // 1_000_000
    call_id = str(new_call_id())
    request_id = f"req_{call_id.replace('-', '')}"
    text = '{"id": "chatcmpl-1", "choices": "' + "a" * (size // 2) + '"}'
    return Call(
        request_method="POST",
        request_url="https://api.openai.com/v1/chat/completions",
        request_headers=REQUEST_HEADERS,
        request_content='{"model": "gpt-4o", "messages": "' + "q" * (size // 2) + '"}',
        request_time=now - 900 - hash(call_id) % 1000,
        response_time=now,
        response_status_code=200,
        response_text=text,
        call_id=call_id,
        operation="chat",
        server_address="api.openai.com",
        request_model="gpt-4o",
        response_model="gpt-4o-2024-08-06",
        response_id=f"chatcmpl-{call_id}",
        request_id=request_id,
        first_byte_time=now - 30,
        input_tokens=100,
        cached_input_tokens=0,
        output_tokens=200,
        reasoning_tokens=0,
        finish_reason="stop",
        service_tier="default",
        retry_count=0,
        server_processing_ms=871,
        outcome="ok",
        response_headers=RESPONSE_HEADERS | {"x-request-id": request_id},
        response_json=text,
        request_bytes=size // 2,
        response_bytes=size // 2,
        api_key_hash="0123456789abcdef",
        user_agent="OpenAI/Python 2.54.0",
        tags={"team": "search"},
    )


def fill(path: Path, rows: int, size: int) -> None:
    with contextlib.closing(journal.connect(path)) as connection:
        for start in range(0, rows, 5_000):
            with journal.transaction(connection):
                journal.add(connection, (make_call(size) for _ in range(min(5_000, rows - start))), for_proton=True)


def bare_driver(path: Path, port: int, rows: int) -> float:
    """Seconds in which the driver sends the journal's rows in the exporter's batches, read and converted before."""
    settings = Settings(host="127.0.0.1", port=port)
    proton = Proton(settings)
    target = proton.prepare(create=True)
    seconds = 0.0
    with contextlib.closing(outbox.connect(path)) as connection:
        batches = []
        while taken := outbox.take(connection, settings.batch_rows, settings.batch_bytes):
            batch, some = taken
            columns = _columns(target, some)
            began = time.perf_counter()
            proton._client.execute(target.insert, columns, columnar=True, query_id=uuid.uuid4().hex)
            seconds += time.perf_counter() - began
            batches.append(batch)
        for batch in batches:
            outbox.returned(connection, batch)
    proton.close()
    return seconds


def exporter(path: Path, port: int) -> tuple[float, int]:
    """Seconds in which the exporter delivers the journal, and by how many KiB this process's peak grew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    assert Exporter(path, Settings(host="127.0.0.1", port=port)).drain(3600)
    return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def outage(rows: int, size: int) -> None:
    """Let rows come while the server is away, and deliver them when it is there again."""
    with tempfile.TemporaryDirectory() as folder, ServerProcess() as server:
        path = Path(folder) / "journal.sqlite3"
        fill(path, 1, size)
        delivering = Exporter(path, Settings(host="127.0.0.1", port=server.port))
        delivering.start()
        wait_until(server, 1)
        server.stop()
        fill(path, rows - 1, size)
        assert server.count() == 1
        server.start()
        began = time.perf_counter()
        wait_until(server, rows // 20)  # caches are warm
        memory = [resident()]
        while server.count() < rows:
            memory.append(resident())
            time.sleep(0.1)
        seconds = time.perf_counter() - began
        assert (server.count(), server.distinct()) == (rows, rows)
        delivering.stop(5)
    print(f"{rows} rows of {size} bytes came while the server was away; each was delivered once")
    print(f"within {seconds:.0f} s of its return ({rows / seconds:.0f} rows/s)")
    print(f"memory: {memory[0] >> 20} MiB after a twentieth of them, {max(memory) >> 20} MiB at most")


def wait_until(server: ServerProcess, rows: int) -> None:
    while server.count() < rows:
        time.sleep(0.01)


def resident() -> int:
    """Bytes of memory that this process has now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def single_calls(path: Path, size: int) -> list[float]:
    """Milliseconds from the commit of a row until the server has it, one row after the other."""
    journal.connect(path).close()
    with ServerProcess() as server:
        delivering = Exporter(path, Settings(host="127.0.0.1", port=server.port))
        delivering.start()
        delays = []
        for number in range(SINGLE_CALLS):
            fill(path, 1, size)
            delivering.wake()
            began = time.perf_counter()
            while server.count() <= number:
                time.sleep(0.0005)
            delays.append((time.perf_counter() - began) * 1000)
        delivering.stop(5)
    return delays[1:]  # the first one connects and creates the stream


class ServerProcess:
    """A server in a process of its own, with that niceness. It is there as a context manager."""

    def __init__(self, niceness: int = 0) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, niceness), daemon=True)

    def __enter__(self) -> ServerProcess:
        self._process.start()
        self.port = int(self._pipe.recv())
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send("end")
        self._process.join()

    def count(self) -> int:
        """How many rows it has taken."""
        return self._ask("count")

    def distinct(self) -> int:
        """How many different calls there are among them."""
        return self._ask("distinct")

    def stop(self) -> None:
        """Refuse connections, until `start`."""
        self._ask("stop")

    def start(self) -> None:
        self._ask("start")

    def pause(self) -> None:
        """Read no packet more, until `resume`."""
        self._ask("pause")

    def resume(self) -> None:
        self._ask("resume")

    def _ask(self, what: str) -> int:
        self._pipe.send(what)
        return int(self._pipe.recv())


def serve(pipe: Connection, niceness: int) -> None:
    """Run the server until it is told to end."""
    os.nice(niceness)
    from proton.server import Server  # type: ignore[import-not-found]  # of the tests

    with Server(keep_rows=False) as server:
        acts = {
            "stop": server.stop,
            "start": server.start,
            "pause": server.running.clear,
            "resume": server.running.set,
        }
        pipe.send(server.port)
        while (asked := pipe.recv()) != "end":
            if asked == "distinct":
                pipe.send(len(set(server.rows("llm_calls", "call_id"))))
                continue
            if asked != "count":
                acts[asked]()
            pipe.send(server.count())


if __name__ == "__main__":
    main()
