"""The worker's supervisor: starts the second process, says what it says, starts it again when it dies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

FIRST_PAUSE = 0.5  # seconds before a worker that died is started again; doubled each time
LONGEST_PAUSE = 30.0
STEADY_SECONDS = 60.0  # a worker that lived so long is no part of a series
SOURCE_ROOT = Path(__file__).resolve().parents[2]


class Supervisor:
    """Keeps one worker running, in a thread of its own, from `start` to `stop`."""

    def __init__(self, settings_line: str, say: Callable[[str], None]) -> None:
        """`settings_line`: the worker's configuration, which holds a password and so is not an argument.

        `say` is called in the supervisor's thread with a line for the user.
        """
        self.starts = 0
        self._settings_line = settings_line
        self._say = say
        self._stopping = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._supervise, name="llm-calls supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def worker_pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def stop(self, seconds: float) -> None:
        """Let the worker finish what there is, for at most `seconds`; what it has not done by then is not lost."""
        with self._lock:
            self._stopping.set()
            self._close_input()
        if self._thread.is_alive():
            self._thread.join(seconds)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()
            self._thread.join(1)

    def _close_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except OSError as error:
                self._say(f"the worker had already closed its input: {error}")

    def _supervise(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            status = self._run_once()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE
            self._say(f"the worker ended ({status}); captures wait in the spool; it is started again in {pause:g} s")
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _run_once(self) -> str:
        try:
            process = self._start_process()
        except OSError as error:
            return f"it could not be started: {error}"
        if process is None:
            return "stopped"
        assert process.stdout is not None
        for line in process.stdout:
            self._say(line.rstrip("\n"))
        return f"exit status {process.wait()}"

    def _start_process(self) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            self._process = process = subprocess.Popen(
                [_python(), "-m", "calltracker.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="backslashreplace",
                env={**os.environ, "PYTHONPATH": _python_path(), "PYTHONIOENCODING": "utf-8"},
                # Ctrl-C in a terminal goes to the whole group: the worker ends after the proxy, not with it.
                start_new_session=True,
            )
            self.starts += 1
        assert process.stdin is not None
        try:
            process.stdin.write(self._settings_line + "\n")
            process.stdin.flush()
        except OSError as error:
            self._say(f"the worker did not take its settings: {error}")
        return process


def _python() -> str:
    """The interpreter: this one, unless mitmproxy is one of the project's stand-alone binaries."""
    if getattr(sys, "frozen", False):
        return shutil.which("python3") or "python3"
    return sys.executable


def _python_path() -> str:
    return os.pathsep.join(filter(None, [str(SOURCE_ROOT), os.environ.get("PYTHONPATH", "")]))
