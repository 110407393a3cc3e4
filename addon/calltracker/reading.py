"""Reading a run of the spool: its segments in order, record by record, as the proxy writes on.

How far it has come is the number of the segment and the offset in it, together with the calls that are open there.
Whoever reads on from such a checkpoint gives the same rows again from there on, and no others.

The proxy takes half a record back when the disk was full, and writes the next one in its place. A reader that comes
between the two sees bytes that were never written so: what cannot be a record in a segment that is still written is
looked at again before it is judged.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

from .call import Call
from .capture.records import LARGEST, MAGIC, CorruptRecordError, Record, RecordKind, decode
from .capture.spool import PROXY_LOCK, SEGMENT_SUFFIX
from .following import Following

READ_BYTES = 1024 * 1024
DOUBT_SECONDS = 1.0  # so long the same place must be no record, in a segment that is still written
WORKER_LOCK = "worker.lock"

log = logging.getLogger("llm_calls")


class Run:
    """One run's folder, read in order. What `read` gives goes to the journal before anything is removed."""

    def __init__(self, folder: Path, checkpoint: tuple[int, bytes] | None) -> None:
        """`checkpoint`: of an earlier reader of this folder."""
        self.folder = folder
        self.name = folder.name
        self.proxy_ended = False  # nothing is written any more
        self.kept_in = 0  # the journal, of those that its worker began, in which how far it has come is known
        self._done, state = checkpoint or (0, b"")  # segments up to this one have been read whole
        self._segment, self._offset, self.open = _restored(state)
        self._ended: Path | None = None
        self._doubted_at: float | None = None

    def segments(self) -> list[Path]:
        return sorted(self.folder.glob("*" + SEGMENT_SUFFIX))

    def read(self) -> tuple[list[Call], bool]:
        """Read what has come, up to some megabytes: the rows of calls that ended, and whether there may be more."""
        segments = self.segments()
        for path in segments:
            number = int(path.stem)
            if number <= self._done:
                path.unlink(missing_ok=True)
                continue
            if number != self._segment:
                self._segment, self._offset = number, 0
            still_written = path == segments[-1] and not self.proxy_ended
            calls, moved = self._read_segment(path, still_written=still_written)
            if moved:
                self._doubted_at = None
            elif path != segments[-1]:
                self._end_segment(path)
                moved = True
            return calls, moved
        return [], False

    def _read_segment(self, path: Path, *, still_written: bool) -> tuple[list[Call], bool]:
        calls: list[Call] = []
        moved = False
        size = READ_BYTES
        with path.open("rb") as file:
            self._offset = max(self._offset, len(MAGIC))
            while True:
                file.seek(self._offset)
                data = file.read(size)
                try:
                    for record in decode(data):
                        self._offset += record.size
                        moved = True
                        calls += self._take(record)
                except CorruptRecordError:
                    if not moved and not (still_written and self._doubtful()):
                        self._set_aside(path)
                        moved = True
                    return calls, moved
                if moved or len(data) < size or size > LARGEST:
                    return calls, moved
                size *= 8

    def _doubtful(self) -> bool:
        """Whether it is too early to call what is at this place corrupt."""
        now = time.monotonic()
        if self._doubted_at is None:
            self._doubted_at = now
        return now - self._doubted_at < DOUBT_SECONDS

    def _set_aside(self, path: Path) -> None:
        # A proxy that still writes there sees that its segment is gone, and begins the next one.
        kept = path.with_suffix(".corrupt")
        log.warning(
            "captures from byte %d of %s on cannot be read; the file is kept as %s", self._offset, path, kept.name
        )
        path.rename(kept)
        self._end_segment(path)

    def _end_segment(self, path: Path) -> None:
        self._done = self._segment
        self._ended = path

    def _take(self, record: Record) -> Iterator[Call]:
        key = record.call_id.bytes
        if record.kind is RecordKind.BEGIN:
            self.open[key] = Following(record)
            return
        following = self.open.get(key)
        if following is None:
            return  # its begin was lost, and counted by the proxy
        yield from following.take(record)
        if record.kind is RecordKind.END:
            del self.open[key]

    def interrupt(self) -> list[Call]:
        """The proxy has ended: give the rows of the calls that were under way."""
        calls = [call for following in self.open.values() for call in following.interrupted()]
        self.open.clear()
        return calls

    def checkpoint(self) -> tuple[int, bytes]:
        """How far the run has been read: (the last segment that was read whole, where it goes on and what is open)."""
        return self._done, pickle.dumps((self._segment, self._offset, self.open))

    @property
    def segment_ended(self) -> bool:
        """Whether the last read came to a segment's end: then the checkpoint is due, before the next read."""
        return self._ended is not None

    def remove_ended_segment(self) -> None:
        """Remove the segment that was read to its end, after its checkpoint has been committed."""
        if self._ended is not None:
            self._ended.unlink(missing_ok=True)
            self._ended = None

    def remove(self) -> None:
        """Remove the folder of a run that has been read to its end; what is corrupt stays."""
        for path in [*self.segments(), self.folder / PROXY_LOCK, self.folder / WORKER_LOCK]:
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def _restored(state: bytes) -> tuple[int, int, dict[bytes, Following]]:
    if not state:
        return 0, 0, {}
    try:
        segment, offset, following = pickle.loads(state)
    except Exception as error:  # noqa: BLE001 - written by another version: those calls cannot be followed on
        log.warning("calls that an earlier worker had begun to read cannot be continued: %s", error)
        return 0, 0, {}
    return segment, offset, following
