"""Whether the worker keeps up with its proxy: how soon a call's row can be read, and how many rows a second it makes.

    .envs/test/bin/python scripts/bench/worker.py [--quick]

First a proxy is driven as fast as 16 clients can, with calls and with streams, while another process reads the journal
every 20 ms: the time of a row is from the moment at which its client had the whole answer to the one at which that
process had the row. Then a worker alone reads what a proxy has left in the spool. Linux only. Prints a table in
Markdown.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("scripts", "addon", "tests")]

from bench import load, machine  # noqa: E402
from bench.variants import OURS, Cost, Stage, check_platform, stage  # noqa: E402
from calltracker import journal  # noqa: E402
from calltracker.worker_settings import WorkerSettings  # noqa: E402

LOOK_SECONDS = 0.02
LAST_ROW_SECONDS = 60.0  # after the load's end, the rest of the rows must be there
NUMBER = "x-client-request-id"
NEW_ROWS = f"""SELECT rowid, json_extract(request_headers, '$."{NUMBER}"') FROM llm_calls WHERE rowid > ?"""


@dataclass(frozen=True, slots=True)
class Effort:
    seconds: float = 15.0
    rounds: int = 3
    calls: int = 20_000


QUICK = Effort(seconds=3.0, rounds=1, calls=3_000)


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether the worker keeps up with its proxy.")
    parser.add_argument("--quick", action="store_true", help="a short run, for a first impression")
    check_platform()
    effort = QUICK if parser.parse_args().quick else Effort()
    print(f"{machine.describe()}; {effort.rounds} rounds\n")
    print("| proxy at full speed, 16 clients | calls/s | row after p50 ms | p99 ms | at most | worker's CPU ms/call |")
    print("| :-- | --: | --: | --: | --: | --: |")
    with tempfile.TemporaryDirectory() as folder, stage(Path(folder)) as built:
        visible(built, effort, "calls", "/v1/chat/completions")
        visible(built, effort, "streams of 200 events", "/v1/chat/completions?chunks=200&pause=0")
        print("\n| worker alone | rows/s | CPU ms/row |\n| :-- | --: | --: |")
        alone(built, effort, "calls", "/v1/chat/completions", effort.calls)
        alone(built, effort, "streams of 200 events", "/v1/chat/completions?chunks=200&pause=0", effort.calls // 10)


# How soon rows are there


def visible(built: Stage, effort: Effort, what: str, path: str) -> None:
    """Print how long after its end a call is a row, over all rounds."""
    rates, delays, costs = [], [], []
    for _ in range(effort.rounds):
        with built.variant(OURS) as variant:
            ends: dict[int, float] = {}
            asking, answering = multiprocessing.Pipe()
            watcher = multiprocessing.Process(target=watch, args=(variant.proxy.journal, answering), daemon=True)
            watcher.start()
            assert asking.recv() == "ready"
            with Cost(variant) as cost:
                answers = load.keep_alive(
                    variant.target,
                    16,
                    seconds=effort.seconds,
                    make=lambda number: numbered(path, number),
                    done=lambda number, ends=ends: ends.__setitem__(number, time.monotonic()),  # type: ignore[misc]
                )
                asking.send(len(ends))
                seen = asking.recv()
            watcher.join()
        rates.append(answers.rate)
        delays += [1000 * (seen[number] - end) for number, end in ends.items()]
        costs.append(1000 * cost.worker / len(ends))
    times = [f"{time_ms:.0f}" for time_ms in (machine.median(delays), machine.percentile(delays, 0.99), max(delays))]
    cells = [what, f"{machine.median(rates):,.0f}", *times, f"{machine.median(costs):.2f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


def numbered(path: str, number: int) -> bytes:
    return load.request(path, more=f"{NUMBER}: {number}\r\n")


def watch(path: Path, pipe: Connection) -> None:
    """Look at the journal until as many numbered calls are rows as the pipe says; send when each was seen first."""
    connection = journal.connect_to_read(path)
    seen: dict[int, float] = {}
    last, wanted, deadline = 0, -1, float("inf")
    pipe.send("ready")
    while wanted < 0 or (len(seen) < wanted and time.monotonic() < deadline):
        for row, number in connection.execute(NEW_ROWS, (last,)).fetchall():
            last = row
            if number is not None:
                seen[int(number)] = time.monotonic()
        if wanted < 0 and pipe.poll():
            wanted, deadline = pipe.recv(), time.monotonic() + LAST_ROW_SECONDS
        time.sleep(LOOK_SECONDS)
    pipe.send(seen)


# How fast it is by itself


def alone(built: Stage, effort: Effort, what: str, path: str, calls: int) -> None:
    """Print how many rows a second a worker makes of a spool that is full."""
    rates, costs = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "left"
        name_there = left_behind(built, folder, path, calls)
        for _ in range(effort.rounds):
            copy = Path(name) / "copy"
            shutil.copytree(folder, copy)
            start, start_cpu = read_all(Path(name) / "nothing" / name_there)
            before = rows(copy / name_there)
            seconds, cpu = read_all(copy / name_there)
            made = rows(copy / name_there) - before
            assert made >= calls
            rates.append(made / (seconds - start))
            costs.append(1000 * (cpu - start_cpu) / made)
            shutil.rmtree(copy)
    print(f"| {what} | {machine.median(rates):,.0f} | {machine.median(costs):.2f} |", flush=True)


def left_behind(built: Stage, folder: Path, path: str, calls: int) -> str:
    """Leave the journal and the spool of a proxy that was killed, its worker having stood still for so many calls.

    Returns the journal's name in the folder.
    """
    with built.variant(OURS) as variant:
        assert variant.pid is not None and variant.worker_pid is not None
        worker = variant.worker_pid
        os.kill(worker, signal.SIGSTOP)
        load.keep_alive(variant.target, 16, calls=calls, make=lambda number: numbered(path, number))
        os.kill(variant.pid, signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)
        variant.proxy.process.wait()
        journal_path: Path = variant.proxy.journal
        shutil.copytree(journal_path.parent, folder)
    return journal_path.name


def read_all(path: Path) -> tuple[float, float]:
    """Run a worker until it has read all; return the seconds that it took, and those of CPU."""
    settings = WorkerSettings(journal=path, run="", bodies=True, fsync=False, keep_days=0, keep_bytes=0, proton=None)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "calltracker.worker"],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "addon")},
    )
    assert process.stdin is not None
    process.stdin.write(f"{settings.to_line()}\n".encode())
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = status
    assert status == 0, f"the worker ended with {status}"
    return seconds, usage.ru_utime + usage.ru_stime


def rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM llm_calls").fetchone()[0])
    finally:
        connection.close()


if __name__ == "__main__":
    main()
