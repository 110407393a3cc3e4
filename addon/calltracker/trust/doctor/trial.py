"""Letting each client make its call through the proxy, and telling from the journal what became of it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ... import journal
from .finding import Trial, Verdict
from .probes import MARK, Probe
from .relay import Relays

AT_ONCE = 4
ROW_SECONDS = 10.0  # a row comes within one, unless the machine is very busy
SAID_LENGTH = 200
ANSWERED = re.compile(r"^status [1-5]|HTTP response code: \d")  # the second is a JVM's
TELLING = re.compile(r"[Ee]rror|Exception|certificate|refused")  # programs say more than what went wrong
LOST = "see what the proxy said where it was started, and whether the disk is full"

Environment = Callable[[int], Mapping[str, str]]  # for a client whose proxy is at that port of 127.0.0.1


@dataclass(frozen=True)
class Attempt:
    """What a client did.

    mark: what tells its row. started: it could be run. came: it connected to the proxy. answered: it got an HTTP
    answer. late: it did not end in time. said: in one line, what went wrong.
    """

    probe: Probe
    mark: str
    started: bool
    came: bool
    answered: bool
    late: bool
    said: str


def attempt_all(probes: Sequence[Probe], proxy: tuple[str, int], environment: Environment) -> list[Attempt]:
    """Let each client call, some at a time, each for its own bounded time. Raises OSError."""
    run = secrets.token_hex(4)
    marked = [(probe, f"{run}-{number}") for number, probe in enumerate(probes)]
    with (
        tempfile.TemporaryDirectory(prefix="llm-calls-") as folder,
        Relays(*proxy) as relays,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        return list(pool.map(lambda each: _attempt(each[0], each[1], relays, environment, Path(folder)), marked))


def _attempt(probe: Probe, mark: str, relays: Relays, environment: Environment, folder: Path) -> Attempt:
    if probe.source:
        (folder / probe.source[0]).write_text(probe.source[1])
    with relays.open() as relay:
        try:
            process = subprocess.Popen(
                probe.command(mark, folder),
                env=dict(environment(relay.port)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return Attempt(probe, mark, started=False, came=False, answered=False, late=False, said=str(error))
        late = False
        try:
            output, _ = process.communicate(timeout=probe.seconds)
        except subprocess.TimeoutExpired:
            late = True
            _kill(process)
            output = b""
        lines = output.decode(errors="replace").strip().splitlines()
        answered = any(ANSWERED.search(line) for line in lines)
        telling = [line for line in lines if TELLING.search(line)] or lines
        said = telling[-1].strip() if telling else ""
        return Attempt(
            probe, mark, started=True, came=relay.used, answered=answered, late=late, said=said[:SAID_LENGTH]
        )


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it has started."""
    if os.name == "nt":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def judge(attempts: Sequence[Attempt], captured: set[str]) -> list[Trial]:
    """What became of each call; captured: the marks that have a row."""
    return [_judged(attempt, attempt.mark in captured) for attempt in attempts]


def _judged(attempt: Attempt, captured: bool) -> Trial:
    probe = attempt.probe
    said = f"no end within {probe.seconds:.0f} s" if attempt.late else attempt.said

    def told(verdict: Verdict, detail: str = "", advice: str = "") -> Trial:
        return Trial(probe.client, probe.program, verdict, detail, advice)

    if captured:
        return told(Verdict.CAPTURED)
    if attempt.came and attempt.answered:
        return told(Verdict.MISSED, f"it was answered through the proxy, and no row came in {ROW_SECONDS:.0f} s", LOST)
    if attempt.came:
        return told(Verdict.REFUSED, said, probe.refused)
    if attempt.late or not attempt.started:
        return told(Verdict.UNTRIED, said)
    return told(Verdict.BYPASSED, said, probe.bypassed)


def marks(file: Path, attempts: Sequence[Attempt]) -> set[str]:
    """The marks that have rows in a journal, once those are there whose row is due. Raises sqlite3.Error."""
    for wanted, seconds in (
        ({attempt.mark for attempt in attempts if attempt.came and attempt.answered}, ROW_SECONDS),
        ({attempt.mark for attempt in attempts if attempt.came}, ROW_SECONDS / 5),  # of one that failed it may be
    ):
        deadline = time.monotonic() + seconds
        while not wanted <= (found := _marks(file)) and time.monotonic() < deadline:
            time.sleep(0.05)
    return found


def _marks(file: Path) -> set[str]:
    if not file.exists():
        return set()
    with contextlib.closing(journal.connect_to_read(file)) as connection:
        try:
            rows = connection.execute("SELECT request_url FROM llm_calls WHERE request_url LIKE ?", (f"%?{MARK}=%",))
            return {url.rpartition("=")[2] for (url,) in rows}
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return set()  # the worker has just made the file
            raise
