"""The exporter: delivers what waits in the journal's outbox to Proton, each row exactly once.

A batch goes from the outbox in one INSERT of one block, which the server takes as a whole or not at all. It is
written down before it is sent. Then there are four ends:

- acknowledged: its rows leave the outbox;
- nothing was sent (`Unavailable`): its rows wait again, and the exporter for a moment (backoff with jitter);
- refused for what is in it (`Refused`): its rows wait again and are sent in smaller batches, until the row that
  is at fault is alone; that one is set apart with the reason, and holds up nothing;
- unconfirmed (`Unconfirmed`, or a worker that was killed): first the server must be done with the INSERT
  (`Proton.is_over`); then the rows are looked for in table(), which shows them seconds later. All found:
  delivered. Still absent after `Settings.visibility`, while a row acknowledged otherwise (the witness) is shown:
  sent again, the same rows in the same order under the same id. Meanwhile other batches go on.

The witness is there for a table() that has come to a halt, as on Proton 1.6 after an ALTER STREAM: what was sent is
missing from it until the server is restarted, and would be sent twice. It is the row acknowledged last, kept in the
journal for the next worker. Where the stream's columns have changed since, only a row that was acknowledged later than
the INSERT in doubt will do.

One exporter a journal delivers at a time, guarded by a lock file beside it; another takes over when it ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sqlite3
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from ..journal import time_text
from . import outbox, schema
from .client import Failure, Proton, Refused, Unavailable, Unconfirmed
from .outbox import Batch, Row, Witness
from .settings import Settings

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1  # how soon a row is seen that another process committed to the journal
BUSY_SECONDS = 1.0  # so long after rows came from this proxy, its calls go before delivery
REST = 4.0  # times as long as a batch took, delivery then rests before the next
LONGEST_REST = 0.5  # seconds
_NICENESS = 10
_MOST_UNCONFIRMED = 4
_MOST_STRIKES = 3
_MOST_TRIES = 3  # of a batch as it is, before it is sent in halves
_STUCK = 6  # times the visibility, after which a witness that is still not shown is worth a warning


def lock_path(journal: Path) -> Path:
    """The file whose lock the delivering exporter of a journal holds."""
    real = journal.resolve()  # whatever links lead to it: two locks would be none
    return real.with_name(real.name + "-proton.lock")


@dataclass(slots=True)
class _Doubt:
    """A batch that may have arrived, and what is known about it. Times are of the monotonic clock."""

    batch: Batch
    acknowledged: int = 0  # rows that had been acknowledged when it was sent
    suspicious: str = ""  # the server's words, if they may mean that the rows are at fault
    tries: int = 1  # INSERTs of it that came to nothing or were not confirmed, this one too
    over_at: float | None = None  # when the server was found to be done with the INSERT
    next_look: float = 0.0
    witness: Witness | None = None
    witness_is_later: bool = False  # it was acknowledged after the INSERT was over
    shown: bool = False  # table() shows the witness
    stuck_at: float | None = None  # since when the witness is not shown, though it ought to be


class Exporter:
    """Delivers a journal's outbox to one stream, in a thread of its own.

    `start`, `wake` when rows were committed, `stop` with a bound in seconds; `status` tells how it goes.
    """

    def __init__(self, journal: Path, settings: Settings) -> None:
        self._journal = journal
        self._settings = settings
        self._proton = Proton(settings)
        self._thread = threading.Thread(target=self._run, name="proton-exporter", daemon=True)
        self._woken = threading.Event()
        self._woken_at = -BUSY_SECONDS
        self._stopping = threading.Event()
        self._deadline = float("inf")

        self._target: schema.Target | None = None
        self._doubts: list[_Doubt] = []
        # Of rows in blocks that were answered with a code that we do not know, by position: how many rows had been
        # acknowledged when that began, and how often it was so of the row alone since others were taken.
        self._suspected: dict[int, int] = {}
        self._strikes: dict[int, int] = {}
        self._limit = settings.batch_rows
        self._careful_until = 0  # up to this position batches stay small: something there was refused
        self._witness: Witness | None = None
        self._acknowledged = 0
        self._data_version = 0
        self._failures = 0  # one after the other
        self._error = ""
        self._told: set[str] = set()
        self._version = ""
        self._state = "not started"

    def start(self) -> None:
        """Start to deliver. What went wrong is logged and told by `status`; nothing is raised."""
        self._thread.start()

    def wake(self) -> None:
        """Say that rows were committed to the outbox. Safe in any thread."""
        self._woken_at = time.monotonic()
        self._woken.set()

    def stop(self, seconds: float) -> None:
        """End within about that time: deliver what can be delivered, keep the rest in the outbox."""
        self._deadline = time.monotonic() + seconds
        self._stopping.set()
        self._woken.set()
        if not self._thread.is_alive():
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._proton.interrupt()
            self._thread.join(1.0)

    def status(self) -> dict[str, Any]:
        """Facts for people: state, rows acknowledged by this exporter, the last error, the server's version."""
        return {
            "state": self._state,
            "server": self._settings.address,
            "stream": f"{self._settings.database}.{self._settings.stream}",
            "version": self._version,
            "acknowledged": self._acknowledged,
            "unconfirmed": sum(len(doubt.batch.positions) for doubt in self._doubts),
            "error": self._error,
        }

    def drain(self, seconds: float) -> bool:
        """Deliver in the caller's thread until nothing waits; False if the time or the Proton did not allow it.

        Raises filelock.Timeout when another exporter delivers this journal, Failure and SchemaError when the
        Proton or its stream cannot be used.
        """
        self._deadline = time.monotonic() + seconds
        with filelock.FileLock(lock_path(self._journal), timeout=1.0):
            connection = self._open()
            try:
                while time.monotonic() < self._deadline:
                    try:
                        if self._step(connection):
                            continue
                    except Unconfirmed as failure:
                        self._failed(connection, failure)
                    if not self._doubts:
                        return True
                    time.sleep(self._pause())
                return False
            finally:
                self._proton.close()
                connection.close()

    # The thread

    def _run(self) -> None:
        _yield_to_the_proxy()
        lock = filelock.FileLock(lock_path(self._journal), thread_local=False)
        try:
            if self._acquire(lock):
                self._deliver_until_stopped()
        finally:
            self._state = "stopped"
            lock.release()
            self._proton.close()

    def _acquire(self, lock: filelock.BaseFileLock) -> bool:
        while not self._stopping.is_set():
            try:
                lock.acquire(timeout=0)
                return True
            except filelock.Timeout:
                self._state = "another worker delivers"
                self._stopping.wait(POLL_SECONDS * 2)
            except OSError as failure:
                self._failed(None, failure)
                self._stopping.wait(self._backoff())
        return False

    def _deliver_until_stopped(self) -> None:
        connection: sqlite3.Connection | None = None
        while not self._is_over():
            try:
                if connection is None:
                    connection = self._open()
                began = time.monotonic()
                if self._step(connection):
                    self._rest(time.monotonic() - began)
                    continue
                if self._stopping.is_set():
                    break
                self._wait_for_rows(connection)
                continue
            except (Failure, schema.SchemaError) as failure:
                self._failed(connection, failure)
            except Exception as failure:
                # The journal, or an error of our own: what is known is read anew from the journal.
                if not isinstance(failure, (sqlite3.Error, OSError)):
                    log.exception("Proton: an error of the exporter's own")
                self._failed(None, failure)
                if connection is not None:
                    connection.close()
                    connection = None
            if self._stopping.is_set():
                break
            self._stopping.wait(self._backoff())
        if connection is not None:
            connection.close()

    def _rest(self, worked: float) -> None:
        """While calls come, deliver a part of the time only: what that moves slows them on a small machine."""
        if time.monotonic() - self._woken_at < BUSY_SECONDS:
            self._stopping.wait(min(worked * REST, LONGEST_REST))

    def _open(self) -> sqlite3.Connection:
        connection = outbox.connect(self._journal)
        try:
            outbox.forget_deleted(connection)
            self._witness = outbox.witness(connection)
            self._doubts = [_Doubt(batch, witness=self._witness) for batch in outbox.sent(connection)]
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_over(self) -> bool:
        return self._stopping.is_set() and time.monotonic() >= self._deadline

    def _wait_for_rows(self, connection: sqlite3.Connection) -> None:
        """Until `wake`, a commit of another process, `stop`, or the time to look for a doubtful batch."""
        until = time.monotonic() + self._pause() if self._doubts else float("inf")
        while not self._woken.wait(max(0.0, min(POLL_SECONDS, until - time.monotonic()))):
            if _data_version(connection) != self._data_version or time.monotonic() >= until:
                return
        self._woken.clear()

    def _pause(self) -> float:
        next_look = min(doubt.next_look for doubt in self._doubts)
        return max(0.001, next_look - time.monotonic())

    def _backoff(self) -> float:
        most = self._settings.backoff_first * 2.0 ** min(self._failures - 1, 20)
        return min(most, self._settings.backoff_most) * random.uniform(0.5, 1.0)

    # One step: what is in doubt first, then the next batch

    def _step(self, connection: sqlite3.Connection) -> bool:
        """Send the next batch; return whether there was one."""
        if self._target is None:
            self._target = self._proton.prepare(self._settings.create)
            self._version = self._proton.version
            self._note(connection, version=self._version, server=self._settings.address)
        for doubt in [d for d in self._doubts if d.next_look <= time.monotonic()]:
            self._settle(connection, doubt)
        if len(self._doubts) >= _MOST_UNCONFIRMED:
            return False
        self._data_version = _data_version(connection)
        taken = outbox.take(connection, self._limit, self._settings.batch_bytes)
        if taken is None:
            self._succeeded(connection)
            return False
        self._send(connection, *taken)
        return True

    def _send(self, connection: sqlite3.Connection, batch: Batch, rows: list[Row], tries: int = 1) -> None:
        assert self._target is not None
        try:
            self._proton.insert(self._target, rows, batch.id)
        except Unavailable:
            outbox.returned(connection, batch)
            self._target = None
            raise
        except Refused as refusal:
            if len(rows) == 1:
                self._set_apart(connection, [(batch, str(refusal))])
            else:
                self._send_smaller(connection, batch)
        except Unconfirmed as failure:
            said = str(failure) if failure.suspicious else ""
            self._doubts.append(_Doubt(batch, self._acknowledged, said, tries, witness=self._witness))
            self._target = None
            raise
        else:
            self._witness = Witness(rows[-1], self._target.names)
            outbox.delivered(connection, batch, self._witness)
            self._taken(connection, rows)

    def _taken(self, connection: sqlite3.Connection, rows: list[Row]) -> None:
        self._acknowledged += len(rows)
        for doubt in self._doubts:
            # The first later one is kept until it is shown; one that never is may have been removed from the stream.
            if doubt.over_at is not None and (not doubt.witness_is_later or self._is_stuck(doubt)):
                doubt.witness, doubt.witness_is_later = self._witness, True
                doubt.shown, doubt.stuck_at = False, None
        if rows[0][0] > self._careful_until and not self._doubts:
            self._limit = self._settings.batch_rows
        for row in rows:
            self._suspected.pop(row[0], None)
            self._strikes.pop(row[0], None)
        self._succeeded(connection)

    def _send_smaller(self, connection: sqlite3.Connection, batch: Batch) -> None:
        outbox.returned(connection, batch)
        self._limit = max(1, len(batch.positions) // 2)
        self._careful_until = max(self._careful_until, batch.positions[-1])

    def _set_apart(self, connection: sqlite3.Connection, refused: list[tuple[Batch, str]]) -> None:
        outbox.refused(connection, refused)
        self._limit = self._settings.batch_rows
        for _, reason in refused:
            log.error("Proton: one call is set apart, the others go on: %s", reason)

    # What is in doubt

    def _settle(self, connection: sqlite3.Connection, doubt: _Doubt) -> None:
        """Find out whether a batch arrived; strike it out, send it again, or look again later."""
        assert self._target is not None
        now = time.monotonic()
        doubt.next_look = now + self._settings.visibility / 20
        if doubt.over_at is None:
            if self._proton.is_over(doubt.batch.id):
                doubt.over_at = time.monotonic()
            return
        rows = outbox.rows(connection, doubt.batch)
        # The witness first: what was taken before it is shown no later than it.
        shown = self._is_shown(connection, doubt)
        others = {} if self._target.has_call_id else outbox.delivered_like(connection, doubt.batch.positions)
        found = self._proton.arrived(self._target, rows, others)
        if len(found) == len(rows):
            self._settled(connection, doubt)
        elif now - doubt.over_at < self._settings.visibility:
            return
        elif shown:
            self._not_arrived(connection, doubt, rows, found)
        else:
            self._tell_if_stuck(doubt, now)

    def _settled(self, connection: sqlite3.Connection, doubt: _Doubt) -> None:
        self._doubts.remove(doubt)
        outbox.delivered(connection, doubt.batch)
        self._succeeded(connection)

    def _is_shown(self, connection: sqlite3.Connection, doubt: _Doubt) -> bool:
        """Whether table() shows what had been taken when the INSERT in doubt was over, as far as can be known."""
        assert self._target is not None
        witness = doubt.witness
        if witness is None:
            return True  # nothing was ever acknowledged
        if not doubt.shown:
            doubt.shown = bool(self._proton.arrived(self._target, [witness.row], {}))
        may_have_halted = self._version.startswith("1.") and witness.columns != self._target.names
        return doubt.shown and (doubt.witness_is_later or not may_have_halted)

    def _is_stuck(self, doubt: _Doubt) -> bool:
        patience = self._settings.visibility * _STUCK
        return doubt.stuck_at is not None and time.monotonic() - doubt.stuck_at >= patience

    def _tell_if_stuck(self, doubt: _Doubt, now: float) -> None:
        if doubt.stuck_at is None:
            doubt.stuck_at = now
        if self._is_stuck(doubt):
            self._warn_once(
                f"table({self._settings.stream}) does not show rows that the server acknowledged, so rows of which it"
                " is not known whether they arrived wait; after an ALTER STREAM on Proton 1.6, restart the server"
            )

    def _not_arrived(self, connection: sqlite3.Connection, doubt: _Doubt, rows: list[Row], found: set[int]) -> None:
        assert self._target is not None
        if self._target.has_call_id and self._proton.arrived_without_id(
            self._target, rows, outbox.delivered_like(connection, doubt.batch.positions)
        ):
            self._settled(connection, doubt)  # the stream has got its call_id since it was sent
            return
        self._doubts.remove(doubt)
        if found:  # of a stream with several shards, one of which failed
            outbox.partly_delivered(connection, doubt.batch, found)
        elif not doubt.suspicious and (doubt.tries < _MOST_TRIES or len(rows) == 1):
            self._send(connection, doubt.batch, rows, doubt.tries + 1)
        elif not doubt.suspicious:
            self._send_smaller(connection, doubt.batch)
        elif len(rows) > 1:
            for position in doubt.batch.positions:
                self._suspected.setdefault(position, doubt.acknowledged)
            self._send_smaller(connection, doubt.batch)
        else:
            self._refused_alone(connection, doubt)

    def _refused_alone(self, connection: sqlite3.Connection, doubt: _Doubt) -> None:
        """A row alone was answered with a code that we do not know: is the server at fault, or the row?

        While the server takes no row at all it is the server. Once it has taken others meanwhile, the row is sent
        again a few times, and set apart when it is refused each time.
        """
        (position,) = doubt.batch.positions
        strikes = self._strikes.get(position, 0)
        if strikes or self._acknowledged > self._suspected.get(position, doubt.acknowledged):
            strikes += 1
        if strikes == _MOST_STRIKES:
            del self._strikes[position]
            self._suspected.pop(position, None)
            self._set_apart(connection, [(doubt.batch, doubt.suspicious)])
            return
        outbox.returned(connection, doubt.batch)
        self._limit, self._careful_until = 1, max(self._careful_until, position)
        if not strikes:
            raise Unavailable(doubt.suspicious)
        self._strikes[position] = strikes

    # What is told

    def _failed(self, connection: sqlite3.Connection | None, failure: Exception) -> None:
        self._state = "failing"
        self._failures += 1
        message = str(failure) or type(failure).__name__
        self._error = message
        if isinstance(failure, Unavailable) and failure.down:
            for doubt in self._doubts:  # a server that starts anew needs time again to show what it has taken
                doubt.over_at, doubt.shown = None, False
        if self._warn_once(f"{message}. Calls go on; their rows wait in the journal"):
            self._note(connection, error=message, error_time=time_text(int(time.time() * 1000)))

    def _warn_once(self, message: str) -> bool:
        if message in self._told:
            return False
        self._told.add(message)
        log.warning("Proton: %s.", message)
        return True

    def _succeeded(self, connection: sqlite3.Connection) -> None:
        self._state = "delivering"
        self._failures = 0
        if self._error and not self._doubts:
            log.warning("Proton: delivery to %s goes on.", self._settings.address)
            self._note(connection, recovered=time_text(int(time.time() * 1000)))
            self._error = ""
            self._told.clear()

    def _note(self, connection: sqlite3.Connection | None, **values: str) -> None:
        if connection is not None:
            try:
                outbox.note(connection, **values)
            except sqlite3.Error as error:
                log.debug("Proton: no note in the journal: %s", error)


def _yield_to_the_proxy() -> None:
    """Give this thread a lower priority, where threads have one: delivery can wait, the calls that pass cannot."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _data_version(connection: sqlite3.Connection) -> int:
    """Changes when another connection has committed to the journal."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)
