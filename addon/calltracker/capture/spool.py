"""The spool: the file in which captures wait for the worker; the border between the proxy's process and the worker's.

Each run of a proxy has a folder of its own, which only this process appends to. What is appended is in the kernel's
hands: it survives the end of the process, however that comes. No locks between processes, no database: nothing that a
reader, the worker or another program does can make the proxy wait.

What is handed over is written in groups: when a call must not go on before its records are written, when much waits,
or after a moment. On a disk that answers at once that is done there and then, in the event loop, which costs a tenth of
waking a thread and never waits for one; when one call has much to write, when the disk was slow, or when each write is
flushed to the platter, a thread of its own writes, and the call awaits it for a bounded time.

A segment is closed when it is large enough; the worker removes it when all it holds is in the journal. The run's folder
is locked for as long as the proxy lives, so that anybody can tell a run that ended from one that is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from filelock import FileLock

from .. import paths
from .records import MAGIC

PROXY_LOCK = "proxy.lock"
SEGMENT_SUFFIX = ".spool"
SEGMENT_BYTES = 16 * 1024 * 1024
QUEUE_BYTES = 64 * 1024 * 1024  # what may wait in memory while the disk does not answer
LINGER_SECONDS = 0.02  # how long data may wait that nobody waits for
CROWD_BYTES = 128 * 1024  # so much of that is written at once, so that an upload does not wait in memory
BLINK_SECONDS = 0.02  # a disk that takes longer for a small write is left to the thread
FIRST_PAUSE = 0.25  # seconds for which it is; doubled each time, up to CALM_SECONDS: it may have been the scheduler
DIRECT_BYTES = 256 * 1024  # more than this is left to the thread
PATIENCE_SECONDS = 0.25  # how long a flow waits for a disk that does not answer
CALM_SECONDS = 10.0  # after so long without a failure, or a slow answer, the disk is well again
RETRY_SECONDS = 1.0  # how often a spool that could not be opened is tried again

Encode = Callable[[], bytes]


@dataclass(slots=True)
class SpoolCounts:
    """What became of what was handed over."""

    written_bytes: int = 0
    failed_writes: int = 0
    late_commits: int = 0
    last_error: str = ""


@dataclass(slots=True, eq=False)
class Entry:
    """Something to append. `encode` runs when it is written; `lost` is called if that failed, `done` in any case."""

    encode: Encode
    size: int = 0
    lost: Callable[[], None] | None = None
    done: Callable[[], None] | None = None


class Spool:
    """The writer of one run's spool. `put` never blocks, `committed` waits for a bounded time; neither raises."""

    def __init__(self, folder: Path, *, limit: int, fsync: bool, say: Callable[[str], None]) -> None:
        """`folder`: of all runs. `limit`: bytes that may wait on the disk. `fsync`: survive a power cut, too.

        `say` is called in the writer thread with a line for the user.
        """
        self.counts = SpoolCounts()
        self.run = folder / f"{time.time_ns():020d}-{os.getpid()}"
        self._limit = limit
        self._fsync = fsync
        self._say = say
        self._lock = FileLock(self.run / PROXY_LOCK, thread_local=False)
        self._entries: deque[Entry] = deque()
        self._waiting_bytes = 0
        self._writing = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lingering = False  # a timer of the loop will see to what waits
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._awake = False  # the writer has been woken, and has not begun to write
        self._stopping = False
        self._closed = False
        self._stalled = False
        self._slow_until = 0.0
        self._pause = 0.0
        self._file = -1
        self._path = self.run  # of the segment
        self._segment = 0
        self._offset = 0
        self._tried = -RETRY_SECONDS
        self._failed_size = 0  # the largest write that failed since the user was last told; 0: all is well
        self._failed_at = 0.0
        self._thread = threading.Thread(target=self._work, name="llm-calls spool", daemon=True)

    def start(self) -> None:
        """Open the run's folder and start the writer, from the event loop that will hand over.

        A folder that cannot be written is tried again, and said once.
        """
        self._loop = asyncio.get_running_loop()
        self._open_or_complain()
        self._thread.start()

    # In the event loop.

    def has_room(self) -> bool:
        return self._waiting_bytes < QUEUE_BYTES

    def put(self, entry: Entry) -> None:
        """Hand over; it is written within LINGER_SECONDS, sooner when much waits or somebody waits for it."""
        self._waiting_bytes += entry.size
        self._entries.append(entry)
        if self._waiting_bytes > CROWD_BYTES:
            self._write_soon()
        elif not self._lingering and self._loop is not None:
            self._lingering = True
            self._loop.call_later(LINGER_SECONDS, self._lingered)

    def _lingered(self) -> None:
        self._lingering = False
        if self._entries:
            self._write_soon()

    def _write_soon(self) -> None:
        if not self._written_directly():
            self._wake_writer()

    def _wake_writer(self) -> None:
        if not self._awake:
            self._awake = True
            self._wake.put(None)

    async def committed(self) -> None:
        """Return when all that was put before is written, or the disk does not answer for PATIENCE_SECONDS."""
        if self._written_directly() or self._stalled or self._closed:
            return
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(PATIENCE_SECONDS, self._give_up, written)
        self._entries.append(Entry(_nothing, done=lambda: _resolve_soon(loop, written)))
        self._wake_writer()
        await written
        timer.cancel()

    def commit_now(self, seconds: float) -> bool:
        """Block until all that was put before is written, for at most `seconds`; tell whether it is."""
        if self._written_directly():
            return True
        if self._stalled or self._closed or time.monotonic() < self._slow_until:
            return False
        written = threading.Event()
        self._entries.append(Entry(_nothing, done=written.set))
        self._wake_writer()
        return written.wait(seconds)

    def _written_directly(self) -> bool:
        """Write what waits, in the caller's thread, if that is a matter of microseconds; tell whether it was done."""
        began = time.monotonic()
        if self._fsync or self._waiting_bytes > DIRECT_BYTES or began < self._slow_until:
            return False
        if not self._writing.acquire(blocking=False):
            return False
        try:
            if self._closed:
                return False
            self._write_entries()
        finally:
            self._writing.release()
        now = time.monotonic()
        self._pause = min(2 * self._pause or FIRST_PAUSE, CALM_SECONDS) if now - began > BLINK_SECONDS else 0.0
        self._slow_until = now + self._pause
        return True

    def _give_up(self, written: asyncio.Future[None]) -> None:
        # Until the writer comes back nobody waits for it again: a dead disk costs the app one short wait, not many.
        self._stalled = True
        self.counts.late_commits += 1
        _resolve(written)

    def stop(self, seconds: float) -> None:
        """Write what is left and unlock the run, within a bound."""
        self._stopping = True
        self._wake.put(None)
        if self._thread.is_alive():
            self._thread.join(seconds)

    # In the writer thread, or wherever `_writing` is held.

    def _work(self) -> None:
        stopping = False
        while self._entries or not stopping:
            if not stopping:
                self._wake.get()
                self._awake = False
                stopping = self._stopping
            with self._writing:
                self._write_entries()
            self._stalled = False
        with self._writing:
            self._closed = True
            if self._file >= 0:
                os.close(self._file)
        self._lock.release(force=True)

    def _write_entries(self) -> None:
        entries = [self._entries.popleft() for _ in range(len(self._entries))]
        pieces = [self._encoded(entry) for entry in entries]
        data = b"".join(pieces)
        if data and not self._write(data):
            for entry, piece in zip(entries, pieces, strict=True):
                if piece and entry.lost is not None:
                    entry.lost()
        written = sum(entry.size for entry in entries)
        self._waiting_bytes -= written  # in one step: the event loop adds to it meanwhile
        for entry in entries:
            if entry.done is not None:
                entry.done()

    def _encoded(self, entry: Entry) -> bytes:
        try:
            return entry.encode()
        except Exception as error:  # noqa: BLE001 - one capture is lost and counted, the others are not
            self._failed(f"a capture could not be encoded: {type(error).__name__}: {error}", 1)
            if entry.lost is not None:
                entry.lost()
            return b""

    def _write(self, data: bytes) -> bool:
        if self._file >= 0 and self._is_removed():
            self._begin_again()
        if self._file < 0 and not self._reopened():
            return False
        try:
            if self._offset >= SEGMENT_BYTES:
                self._next_segment()
            _write_all(self._file, data)
            if self._fsync:
                os.fsync(self._file)
        except Exception as error:  # noqa: BLE001 - the thread lives on, whatever it is
            self._failed(f"{self.run} cannot be written: {error}", len(data))
            self._take_back()
            return False
        self._offset += len(data)
        self.counts.written_bytes += len(data)
        if self._failed_size and (len(data) >= self._failed_size or self._calm()):
            self._failed_size = 0
            self._say("calls are recorded again")
        return True

    def _calm(self) -> bool:
        # A disk that is nearly full takes small writes between large ones that it does not take.
        return time.monotonic() - self._failed_at > CALM_SECONDS

    def _take_back(self) -> None:
        # Half a record in the middle of a segment would end it for the reader.
        try:
            os.ftruncate(self._file, self._offset)
            os.lseek(self._file, self._offset, os.SEEK_SET)
        except OSError:
            os.close(self._file)
            self._file = -1

    def _failed(self, why: str, size: int) -> None:
        self.counts.failed_writes += 1
        self.counts.last_error = why
        if not self._failed_size:
            self._say(f"calls go on but are not recorded: {why}")
        self._failed_size = max(self._failed_size, size)
        self._failed_at = time.monotonic()

    def _is_removed(self) -> bool:
        try:
            self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False  # the write itself will tell whether anything is wrong
        return False

    def _begin_again(self) -> None:
        # What is written to a file that was removed is recorded nowhere, for as long as the proxy lives.
        self._say(f"{self._path} was removed by another program; calls are recorded on in a new file")
        removed, self._file = self._file, -1
        try:
            os.close(removed)
            if not (self.run / PROXY_LOCK).exists():
                self._lock.release(force=True)
        except OSError as error:
            self._failed(f"{self.run} cannot be begun again: {error}", 1)
        self._open_or_complain()

    def _reopened(self) -> bool:
        if time.monotonic() - self._tried < RETRY_SECONDS:
            self.counts.failed_writes += 1
            return False
        return self._open_or_complain()

    def _open_or_complain(self) -> bool:
        self._tried = time.monotonic()
        try:
            if not self._lock.is_locked:
                paths.make_private(self.run.parent.parent)
                paths.make_private(self.run.parent)
                paths.make_private(self.run)
                self._lock.acquire(blocking=False)
            self._next_segment()
        except Exception as error:  # noqa: BLE001 - the proxy starts and the thread lives on, whatever it is
            self._failed(f"the folder {self.run.parent} cannot be written: {error}", 1)
            return False
        return True

    def _next_segment(self) -> None:
        waiting = _size_of(self.run)
        if waiting > self._limit:
            raise OSError(f"{waiting} bytes wait for the worker, more than llm_calls_spool_limit")
        path = self.run / f"{self._segment + 1:010d}{SEGMENT_SUFFIX}"
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o600)
        try:
            _write_all(file, MAGIC)
        except OSError:
            os.close(file)
            path.unlink()
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._path, self._segment, self._offset = file, path, self._segment + 1, len(MAGIC)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _size_of(run: Path) -> int:
    size = 0
    for path in run.glob("*" + SEGMENT_SUFFIX):
        with contextlib.suppress(FileNotFoundError):  # the worker has just removed it
            size += path.stat().st_size
    return size


def _nothing() -> bytes:
    return b""


def _resolve_soon(loop: asyncio.AbstractEventLoop, written: asyncio.Future[None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
        loop.call_soon_threadsafe(_resolve, written)


def _resolve(written: asyncio.Future[None]) -> None:
    if not written.done():
        written.set_result(None)
