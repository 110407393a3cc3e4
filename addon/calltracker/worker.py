"""The worker: the second process. It reads captures from the spool, makes rows of them, and keeps them in the journal.

It is started by the proxy (`python -m calltracker.worker`) with its settings as one line of JSON on the standard input,
which stays open for as long as the proxy lives. What it has to say goes to the standard output, a line each. It may be
slow, or be killed at any instant: the captures wait in the file, and a capture that is read twice gives one row.

How far a run has been read is kept in the journal at the end of each segment; within a segment a new worker reads again
from the start. A new journal (the old one was removed, or set aside) does not know what the old one held: how far the
run has been read is kept there at once, so that no row comes, or is delivered, a second time.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from . import journal, paths, retention
from .call import Call
from .capture.spool import PROXY_LOCK, SEGMENT_SUFFIX
from .proton.exporter import Exporter
from .reading import WORKER_LOCK, Run
from .row import without_content
from .worker_settings import WorkerSettings

POLL_SECONDS = 0.05
ADOPT_SECONDS = 2.0  # how often runs whose proxy has ended are looked for
PRUNE_SECONDS = 60.0
RETRY_SECONDS = 0.5  # how often a journal that cannot be written is tried again
FAREWELL_SECONDS = 3.0  # how long, at the end, rows are still delivered

log = logging.getLogger("llm_calls")


class Worker:
    """Reads its proxy's run, and runs whose proxy has ended, into the journal."""

    def __init__(self, settings: WorkerSettings, proxy_gone: threading.Event) -> None:
        self._settings = settings
        self._proxy_gone = proxy_gone
        self._spool = paths.spool_folder(settings.journal)
        self._connection: sqlite3.Connection | None = None
        self._opened_file: tuple[int, int] | None = None
        self._journals_begun = 0  # in the place of one that was removed or set aside
        self._exporter: Exporter | None = None
        self._locks: dict[str, FileLock] = {}
        self._complained = ""
        self._next_adoption = 0.0
        self._next_pruning = time.monotonic() + PRUNE_SECONDS

    def work(self) -> None:
        """Work until the proxy is gone and all that it left is in the journal."""
        self._persist(lambda connection: None)
        own = self._own_run()
        while True:
            gone = self._proxy_gone.is_set()
            moved = own is not None and self._read(own)
            if gone and not moved:
                break
            if not moved:
                self._housekeeping(own)
                self._proxy_gone.wait(POLL_SECONDS)
        if own is not None:
            self._end(own, patience=RETRY_SECONDS)
        self._adopt()
        self._stop_exporter(FAREWELL_SECONDS)

    def _own_run(self) -> Run | None:
        if not self._settings.run:
            return None
        folder = Path(self._settings.run)
        lock = FileLock(folder / WORKER_LOCK)
        while not self._proxy_gone.is_set():
            try:
                lock.acquire(blocking=False)
            except Timeout:
                self._proxy_gone.wait(POLL_SECONDS)  # an earlier worker has not quite ended
            except OSError:
                self._proxy_gone.wait(RETRY_SECONDS)  # the proxy has not been able to make its folder
            else:
                self._locks[folder.name] = lock
                return self._opened(folder)
        return None

    def _opened(self, folder: Path) -> Run:
        found: list[tuple[int, bytes]] = []
        self._persist(lambda connection: found.extend(_checkpoint_of(connection, folder.name)))
        return Run(folder, found[0] if found else None)

    def _read(self, run: Run) -> bool:
        try:
            calls, moved = run.read()
        except FileNotFoundError:
            return False  # somebody has just removed the run's folder; the proxy will make it anew
        if calls or run.segment_ended:
            self._keep(run, calls)
        return moved

    def _keep(self, run: Run, calls: list[Call]) -> None:
        if not self._settings.bodies:
            calls = [without_content(call) for call in calls]

        def write(connection: sqlite3.Connection) -> None:
            journal.add(connection, calls, for_proton=self._settings.proton is not None)
            if run.segment_ended or run.kept_in != self._journals_begun:
                progress = (run.name, *run.checkpoint())
                connection.execute("INSERT OR REPLACE INTO spool_progress VALUES (?, ?, ?)", progress)

        self._persist(write)
        run.kept_in = self._journals_begun
        run.remove_ended_segment()
        if calls and self._exporter is not None:
            self._exporter.wake()

    def _end(self, run: Run, *, patience: float) -> None:
        """Read a run to its end, and turn what was under way into rows, if its proxy has really ended."""
        lock = FileLock(run.folder / PROXY_LOCK)
        try:
            paths.make_private(run.folder)  # somebody may have removed it: what is open has rows all the same
            lock.acquire(timeout=patience)
        except (Timeout, OSError):
            return
        with lock:
            run.proxy_ended = True
            while self._read(run):
                pass
            self._keep(run, run.interrupt())
            self._persist(
                lambda connection: connection.execute("DELETE FROM spool_progress WHERE run = ?", (run.name,))
            )
            run.remove()

    def _housekeeping(self, own: Run | None) -> None:
        now = time.monotonic()
        if now >= self._next_adoption:
            self._next_adoption = now + ADOPT_SECONDS
            self._adopt()
            if own is not None and self._is_replaced():
                self._keep(own, [])
        if now >= self._next_pruning:
            self._next_pruning = now + PRUNE_SECONDS
            self._persist(self._prune)

    def _prune(self, connection: sqlite3.Connection) -> None:
        days, size = self._settings.keep_days, self._settings.keep_bytes
        if retention.prune(connection, keep_days=days, keep_bytes=size) >= retention.BATCH:
            self._next_pruning = 0.0

    def _adopt(self) -> None:
        """Read the runs whose proxy and worker both ended before their time."""
        folders = sorted(self._spool.iterdir()) if self._spool.is_dir() else []
        for folder in folders:
            if folder.name in self._locks or not any(folder.glob("*" + SEGMENT_SUFFIX)):
                continue
            try:
                with FileLock(folder / WORKER_LOCK, blocking=False):
                    self._end(self._opened(folder), patience=0)
            except (Timeout, OSError):
                continue  # somebody else's, or under way

    def _persist(self, write: Callable[[sqlite3.Connection], Any]) -> None:
        """Do one transaction, for as long as it takes: while the journal cannot be written, captures wait."""
        while True:
            try:
                connection = self._connected()
                with journal.transaction(connection):
                    write(connection)
            except (sqlite3.Error, OSError) as error:
                self._disconnect()
                if journal.is_corrupt(error):
                    self._stop_exporter(0)
                    self._complain(journal.set_aside(self._settings.journal))
                    self._begin_new()
                    continue
                self._complain(f"rows wait: the journal {self._settings.journal} cannot be written: {error}")
                if self._proxy_gone.is_set():
                    raise SystemExit(1) from None  # the next worker goes on from here
                self._proxy_gone.wait(RETRY_SECONDS)
            else:
                if self._complained:
                    self._complained = ""
                    log.warning("the journal is written again")
                return

    def _connected(self) -> sqlite3.Connection:
        if self._is_replaced():
            self._leave_old()
            self._complain(f"the journal {self._settings.journal} was removed or replaced: rows go on in a new one")
            self._begin_new()
        if self._connection is None:
            self._connection = journal.connect(self._settings.journal, fsync=self._settings.fsync)
            self._opened_file = journal.identity(self._settings.journal)
            if self._opened_file is None:
                raise FileNotFoundError("it has been removed at once")
            if self._settings.proton is not None and self._exporter is None:
                self._exporter = Exporter(self._settings.journal, self._settings.proton)
                self._exporter.start()
        return self._connection

    def _is_replaced(self) -> bool:
        return self._opened_file is not None and journal.identity(self._settings.journal) != self._opened_file

    def _leave_old(self) -> None:
        """Let go of a journal that is not at its place any more; where it was moved, it is whole there."""
        self._stop_exporter(FAREWELL_SECONDS)
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):  # whoever removed it has no use for it
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._disconnect()

    def _begin_new(self) -> None:
        self._opened_file = None
        self._journals_begun += 1

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _stop_exporter(self, seconds: float) -> None:
        if self._exporter is not None:
            self._exporter.stop(seconds)
            self._exporter = None

    def _complain(self, line: str) -> None:
        if line != self._complained:
            self._complained = line
            log.warning("%s", line)


def _checkpoint_of(connection: sqlite3.Connection, run: str) -> list[tuple[int, bytes]]:
    return connection.execute("SELECT segment, open_calls FROM spool_progress WHERE run = ?", (run,)).fetchall()


def main() -> None:
    """Run a worker for as long as the standard input stays open, and then until all that was captured is kept."""
    logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="%(message)s")
    settings = WorkerSettings.from_line(sys.stdin.readline())
    gone = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        gone.set()

    threading.Thread(target=watch, name="llm-calls proxy watch", daemon=True).start()
    Worker(settings, gone).work()


if __name__ == "__main__":
    main()
