"""What delivery and calls do to one another, through a real mitmdump.

    python scripts/bench/delivery_beside_calls.py [--rounds 30] [--seconds 0.4]

Prints how long after the end of a call its row is at the server, one call at a time; and the latency of calls while
nothing is delivered (the server pauses) beside that while a backlog is delivered at full speed, the two taking turns
in one proxy. The Proton is the tests' own. It belongs on another machine: on this one it runs at the lowest priority,
so that it takes only the time that nobody else wants.

For comparison there is a third phase: nothing is delivered, and two processes of the lowest priority, as many as a
delivery keeps busy, count to no end.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("scripts", "addon", "tests")]

from bench.delivery import ServerProcess, fill  # noqa: E402
from calltracker.journal import connect  # noqa: E402
from e2e.harness import Client, Proxy  # noqa: E402
from standin import StandIn  # noqa: E402

SINGLE_CALLS = 40
PAUSE = 0.1  # seconds between calls at low load
BACKLOG = 30_000  # rows: more than are delivered in a phase
ROW_BYTES = 4_000
BODY = {"model": "gpt-5", "messages": [{"role": "user", "content": "q" * 1_000}]}


def main() -> None:
    parser = argparse.ArgumentParser(description="What delivery and calls do to one another.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each phase")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ServerProcess(niceness=19) as server:
        environment = {"PROTON_HOST": "127.0.0.1", "PROTON_PORT": str(server.port)}
        with (
            StandIn() as standin,
            Proxy(Path(folder), {"api.openai.com": standin}, environment=environment) as proxy,
            Client(proxy, "api.openai.com") as client,
        ):
            low_load(client, server)
            beside(client, server, proxy.journal, arguments.rounds, arguments.seconds)


def call(client: Client) -> float:
    """Seconds that a call took."""
    began = time.perf_counter()
    answer = client.request("POST", "/v1/chat/completions", BODY)
    seconds = time.perf_counter() - began
    assert answer.status == 200
    return seconds


def low_load(client: Client, server: ServerProcess) -> None:
    delays = []
    for number in range(SINGLE_CALLS):
        call(client)
        ended = time.perf_counter()
        while server.count() <= number:
            time.sleep(0.001)
        delays.append((time.perf_counter() - ended) * 1000)
        time.sleep(PAUSE)
    usual = delays[1:]  # the first one connects and creates the stream
    print(
        f"one call at a time: its row is at the server {statistics.median(usual):.0f} ms after its end (median;"
        f" at most {max(usual):.0f} ms of {len(usual)}; the first one {delays[0]:.0f} ms)"
    )


def beside(client: Client, server: ServerProcess, journal: Path, rounds: int, seconds: float) -> None:
    quiet, burning, busy, rates = [], [], [], []
    with burners() as burn:
        for _ in range(rounds):
            server.pause()
            fill(journal, BACKLOG, ROW_BYTES)
            quiet.append(latencies(client, seconds))
            burn(True)
            burning.append(latencies(client, seconds))
            burn(False)
            before = server.count()
            server.resume()
            busy.append(latencies(client, seconds))
            delivered = server.count() - before
            assert delivered < BACKLOG, "the backlog was delivered before the phase was over"
            rates.append(delivered / seconds)
            wait_and_forget(journal)
    print(f"latency of a call, nothing delivered: {told(quiet)}")
    print(f"while two processes count:            {told(burning)}")
    print(f"while {statistics.median(rates):.0f} rows/s are delivered:  {told(busy)}")
    for name, base in (("nothing", quiet), ("counting", burning)):
        ratios = [statistics.median(one) / statistics.median(two) for one, two in zip(busy, base, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"delivery / {name}: {middle:.3f} (median by round; half of them from {low:.3f} to {high:.3f})")


@contextlib.contextmanager
def burners() -> Iterator[Callable[[bool], None]]:
    """Two processes that count while they are told to."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=count_to_no_end, daemon=True) for _ in range(2)]
    for process in processes:
        process.start()

    def burn(on: bool) -> None:
        for process in processes:
            assert process.pid
            os.kill(process.pid, signal.SIGCONT if on else signal.SIGSTOP)

    burn(False)
    try:
        yield burn
    finally:
        for process in processes:
            process.kill()
            process.join()


def count_to_no_end() -> None:
    os.nice(19)
    number = 0
    while True:
        number += 1


def wait_and_forget(journal: Path) -> None:
    """Wait until all is delivered, and remove it, so that the journal stays small."""
    with contextlib.closing(connect(journal)) as connection:
        while connection.execute("SELECT EXISTS (SELECT 1 FROM outbox)").fetchone()[0]:
            time.sleep(0.05)
        connection.execute("DELETE FROM llm_calls WHERE call_id NOT IN (SELECT call_id FROM outbox)")


def latencies(client: Client, seconds: float) -> list[float]:
    """Milliseconds of each call that there was in that time."""
    until = time.perf_counter() + seconds
    found = [call(client) * 1000]
    while time.perf_counter() < until:
        found.append(call(client) * 1000)
    return found


def told(rounds: list[list[float]]) -> str:
    milliseconds = [one for latencies in rounds for one in latencies]
    p90 = statistics.quantiles(milliseconds, n=10)[-1]
    return f"median {statistics.median(milliseconds):.2f} ms, p90 {p90:.2f} ms, {len(milliseconds)} calls"


if __name__ == "__main__":
    main()
