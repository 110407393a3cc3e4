"""One connection to Proton through proton-driver: what we ask of the server, and what its failures mean.

Every failure is told apart by what it means for the rows: `Unavailable` (nothing was sent), `Refused` (the
rows themselves are at fault, and none of them was taken) or `Unconfirmed` (they may have been taken, or not).
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import logging
import os
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import orjson
from proton_driver import Client, errors

from ..call import COLUMNS, Kind
from ..journal import time_number
from . import schema
from .outbox import Row
from .settings import Settings

# Codes (of Proton's ErrorCodes.cpp) by which a server refuses a block for what is in it, and takes none of it
_DATA_CODES = frozenset({6, 27, 32, 38, 41, 43, 53, 69, 70, 72, 117, 128, 131, 190, 321, 349, 469, 2514})
_UNKNOWN_STREAM = 60
_NO_SUCH_COLUMN = 16
_QUERY_RUNNING = 216
_NO_PRIVILEGE = 497
# … and with which it says that it has trouble of its own, whatever the block holds
_TROUBLE_CODES = frozenset(
    {101, 159, 160, 164, 173, 201, 202, 203, 209, 210, 216, 225, 236, 241, 242, 243, 244, 252, 319, 394}
    | {425, 439, 497, 516, 573, 574, 999, 2003}
)
_IDS_A_QUERY = 1000
# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH; _CERT_NOT_YET_VALID and _CERT_HAS_EXPIRED
_WRONG_NAME, _WRONG_TIME = (62, 64), (9, 10)
_SHOWN_WITHIN_SECONDS = 10.0  # a Proton 3.x creates streams in the background

T = TypeVar("T")


_BROKEN = (OSError, EOFError, errors.NetworkError, errors.SocketTimeoutError)  # what a connection fails with


class Failure(Exception):
    """What went wrong with Proton, in one line that says what to do."""


class Unavailable(Failure):
    """Nothing was sent: try again later. `down` is true when nothing listens: the server ended, or starts anew."""

    def __init__(self, message: str, down: bool = False) -> None:
        super().__init__(message)
        self.down = down


class Refused(Failure):
    """The server or the driver refuses these rows as they are, and none of them was taken."""


class Unconfirmed(Failure):
    """The rows were on their way when it broke: they may have been taken, or not.

    `suspicious` is true when the server spoke, and of nothing that is known to be trouble of its own.
    """

    def __init__(self, message: str, suspicious: bool = False) -> None:
        super().__init__(message)
        self.suspicious = suspicious


class _Client(Client):  # type: ignore[misc]
    """The driver, which remembers how far an INSERT came."""

    sending = False  # data may have left
    unencodable = False  # the driver itself refused a value, in the middle of the one block

    def send_data(self, *args: Any, **options: Any) -> Any:
        self.sending = True
        try:
            return super().send_data(*args, **options)
        except (OSError, EOFError):
            raise
        except Exception:
            self.unencodable = True
            raise


class Proton:
    """A connection to one stream of a Proton. It connects when it is used first, and again after a failure."""

    def __init__(self, settings: Settings) -> None:
        _name_the_user()
        logging.getLogger("proton_driver.connection").setLevel(logging.CRITICAL)  # we tell what fails, once
        self._settings = settings
        self._client = _Client(
            settings.host,
            settings.port,
            database=settings.database,
            user=settings.user,
            password=settings.password,
            client_name="llm-calls",
            connect_timeout=settings.connect_timeout,
            send_receive_timeout=settings.timeout,
            sync_request_timeout=min(5.0, settings.timeout),
            secure=settings.secure,
        )
        if settings.secure:
            # The driver's own context verifies nothing, whatever it is told (0.3.0 sets `options`).
            self._client.connection._create_ssl_context = lambda _: _tls(settings)
        self._connect_error: OSError | None = None
        self._greeted = False  # the server of this connection has said that it is one
        connection = self._client.connection
        self._open_socket, connection._create_socket = connection._create_socket, self._connect
        self._receive_hello, connection.receive_hello = connection.receive_hello, self._hello

    def _connect(self, host: str, port: int) -> Any:
        """Open a socket; remember why that failed, of which the driver keeps only the words."""
        self._connect_error, self._greeted = None, False
        try:
            return self._open_socket(host, port)
        except OSError as error:
            self._connect_error = error
            raise

    def _hello(self) -> None:
        self._receive_hello()
        self._greeted = True

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        with contextlib.suppress(OSError):
            self._client.disconnect()

    def interrupt(self) -> None:
        """Make a call that hangs in another thread fail at once."""
        held = self._client.connection.socket
        if held is not None:
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)

    @property
    def version(self) -> str:
        """The server's version, '' while there is no connection."""
        server = self._client.connection.server_info
        return ".".join(str(part) for part in server.version_tuple()) if server else ""

    def prepare(self, create: bool) -> schema.Target:
        """Find out how the stream is made, creating it where it is missing and that is wanted.

        Raises Unavailable, and SchemaError for a stream that cannot take our rows.
        """
        described = self.describe()
        if described is None and create:
            described = self.create()
        if described is None:
            stream = f"{self._settings.database}.{self._settings.stream}"
            raise Unavailable(f"Proton has no stream {stream}: run `llm-calls proton init`, or set PROTON_CREATE=true")
        return schema.compare(self._settings.stream, described)

    def create(self) -> list[tuple[Any, ...]]:
        """Create the stream, and wait until DESCRIBE shows it; return that. Raises Unavailable."""
        self.execute(schema.create_statement(self._settings.stream))
        deadline = time.monotonic() + _SHOWN_WITHIN_SECONDS
        while (described := self.describe()) is None:
            if time.monotonic() > deadline:
                raise Unavailable(f"Proton was told to create the stream {self._settings.stream} and does not show it")
            time.sleep(0.1)
        return described

    def describe(self) -> list[tuple[Any, ...]] | None:
        """DESCRIBE's rows: name, type, default_kind, …; None if there is no such stream. Raises Unavailable."""
        try:
            rows: list[tuple[Any, ...]] = self.execute(f"DESCRIBE `{self._settings.stream}`")
            return rows
        except Unavailable as failure:
            if _code(failure.__cause__) == _UNKNOWN_STREAM:
                return None
            raise

    def execute(self, query: str, with_types: bool = False) -> Any:
        """Run a statement that is no INSERT of rows; return its rows. Raises Unavailable."""
        with self._asking():
            return self._client.execute(query, with_column_types=with_types)

    def insert(self, target: schema.Target, rows: Sequence[Row], batch_id: str) -> None:
        """Send rows as one block of one INSERT, and wait until the server has them.

        The id is the INSERT's query id, by which `is_over` asks for it, and its idempotent id, which a Proton
        3.x uses to take a block once (1.6 ignores it). Raises Unavailable, Refused, Unconfirmed.
        """
        try:
            columns = _columns(target, rows)
        except (ValueError, TypeError, AttributeError) as error:
            raise Refused(f"the journal's row cannot be read: {_first_line(error)}") from error
        client = self._client
        client.sending = client.unencodable = False
        try:
            client.execute(
                target.insert,
                columns,
                columnar=True,
                query_id=batch_id,
                settings={"idempotent_id": batch_id},
            )
        except Exception as error:
            client.disconnect()
            message = self.explain(error)
            if not client.sending:
                raise self._unavailable(error) from error
            if client.unencodable or _code(error) in _DATA_CODES:
                raise Refused(message) from error
            suspicious = isinstance(error, errors.ServerException) and error.code not in _TROUBLE_CODES
            raise Unconfirmed(message, suspicious) from error

    def is_over(self, batch_id: str) -> bool:
        """Whether the server is done with the INSERT of that id, one way or the other. Raises Unavailable.

        A server refuses a query (216) while another with its id runs. An INSERT whose client is gone runs on
        until the server has read what had come; only then can its rows be looked for.
        """
        try:
            with self._asking():
                self._client.execute("SELECT 1", query_id=batch_id)
        except Unavailable as failure:
            if _code(failure.__cause__) == _QUERY_RUNNING:
                return False
            raise
        return True

    def arrived(self, target: schema.Target, rows: Sequence[Row], others: Mapping[int, int]) -> set[int]:
        """The outbox positions of those rows that the stream's table shows. Raises Unavailable.

        A stream without call_id is searched for what the rows hold: see `arrived_without_id`.
        """
        if not target.has_call_id:
            return self.arrived_without_id(target, rows, others)
        found: set[int] = set()
        query = f"SELECT call_id FROM table(`{target.stream}`) WHERE call_id IN %(ids)s"
        for some in _portions(rows):
            positions = {row[_CALL_ID]: row[0] for row in some}
            with self._asking():
                answer = self._client.execute(query, {"ids": tuple(positions)})
            found.update(positions[call_id] for (call_id,) in answer)
        return found

    def arrived_without_id(self, target: schema.Target, rows: Sequence[Row], others: Mapping[int, int]) -> set[int]:
        """The positions of all rows of a batch that the table shows as rows without a call_id, or none of them.

        They are known by their times, method, URL, status and sizes; `others` tells for a position how many equal
        rows of other batches the stream has. As a block is taken whole or not at all, one that is absent speaks for
        all. Raises Unavailable.
        """
        try:
            wanted = Counter(_content_key(row) for row in rows)
            known = {_content_key(row): others.get(row[0], 0) for row in rows}
        except (ValueError, TypeError, AttributeError):
            return set()  # a row that cannot be read could not be sent either
        shown: Counter[tuple[Any, ...]] = Counter()
        without = " AND call_id = ''" if target.has_call_id else ""
        query = f"SELECT {_CONTENT} FROM table(`{target.stream}`) WHERE {_CONTENT_TIME} IN %(times)s{without}"
        for some in _portions(sorted({key[0] for key in wanted})):
            with self._asking():
                shown.update(self._client.execute(query, {"times": tuple(some)}))
        if all(shown[key] >= count + known[key] for key, count in wanted.items()):
            return {row[0] for row in rows}
        return set()

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._client.disconnect()
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> Unavailable:
        down = isinstance(error, errors.NetworkError) and isinstance(self._connect_error, ConnectionRefusedError)
        return Unavailable(self.explain(error), down)

    def explain(self, error: BaseException) -> str:
        """Say in one line what an error of the driver means and what to do."""
        if isinstance(error, errors.NetworkError) and self._connect_error is not None:
            return _explain_connect(self._connect_error, self._settings)
        if not self._greeted and isinstance(error, _BROKEN):
            return _explain_silence(error, self._settings)
        return _explain(error, self._settings)


def _explain(error: BaseException, settings: Settings) -> str:
    where, code = settings.address, _code(error)
    said = _first_line(error)
    known = {
        516: f"Proton at {where} refuses user {settings.user!r}: check PROTON_USER and PROTON_PASSWORD",
        81: f"Proton at {where} has no database {settings.database!r}: create it, or set PROTON_DATABASE",
        _NO_PRIVILEGE: f"Proton's user {settings.user!r} lacks a right; grant it, or have the stream made by one who"
        f" has it, from sql/proton/create_stream.sql: {said}",
        _UNKNOWN_STREAM: f"Proton has no stream {settings.stream!r}: run `llm-calls proton init`",
        _NO_SUCH_COLUMN: f"Proton's stream {settings.stream!r} has changed: {said}",
        102: f"{where} does not speak Proton's native protocol: check PROTON_PORT and PROTON_SECURE (9440 has TLS)",
        2514: f"Proton takes records of at most 10 MiB; keep less of bodies by LLM_CALLS_BODY_LIMIT: {said}",
        243: f"Proton's disk is full: {said}",
    }
    if code in known:
        return known[code]
    if isinstance(error, errors.ServerException):
        return f"Proton at {where} says (code {code}): {said}"
    if isinstance(error, (TimeoutError, errors.SocketTimeoutError)):
        return f"Proton at {where} does not answer in time"
    if isinstance(error, _BROKEN):
        return f"the connection to Proton at {where} broke: {said or type(error).__name__}"
    return f"Proton at {where}: {type(error).__name__}: {said}"


def _explain_connect(error: OSError, settings: Settings) -> str:
    where = settings.address
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {where} is not trusted ({error.verify_message}): {_certificate_advice(error)}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS with {where} ({error.reason or error}): check PROTON_PORT and PROTON_SECURE"
    if isinstance(error, socket.gaierror):
        return f"there is no host {settings.host!r} ({error.strerror}): check PROTON_HOST"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {where}: start Proton, or check PROTON_HOST and PROTON_PORT"
    if isinstance(error, TimeoutError):
        return f"{where} does not answer: check PROTON_HOST and PROTON_PORT, or a firewall between"
    return f"no connection to {where} ({error.strerror or error}): check PROTON_HOST and PROTON_PORT"


def _explain_silence(error: BaseException, settings: Settings) -> str:
    """A connection that failed before the server had said what it is."""
    if isinstance(error, (TimeoutError, errors.SocketTimeoutError)):
        what = "takes a connection and says nothing"
    else:
        what = "breaks off before it says that it is a Proton"
    return (
        f"{settings.address} {what}: if that lasts, check PROTON_PORT and PROTON_SECURE (9440 has TLS, 8463 has none)"
    )


def _certificate_advice(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _WRONG_NAME:
        return "set PROTON_HOST to a name that it has"
    if error.verify_code in _WRONG_TIME:
        return "renew it, or set this machine's clock"
    return "set PROTON_CA_CERTS to its CA, or PROTON_VERIFY=false"


def _first_line(error: BaseException) -> str:
    text = str(error).split("Stack trace:")[0].strip()
    text = re.sub(r"^(Code: \d+\.\s*)?(DB::Exception: ?)?", "", text).strip()
    return " ".join(text.split())[:300]


def _code(error: BaseException | None) -> int:
    """The error's code in Proton's list, 0 if it has none (the driver's own errors have codes of it too)."""
    return int(error.code) if isinstance(error, errors.Error) and error.code is not None else 0


def _tls(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ca_certs or None)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _name_the_user() -> None:
    """The driver tells the server the user's name; from Python 3.13 it fails where the user has none."""
    try:
        getpass.getuser()
    except (OSError, KeyError, ImportError):
        os.environ["LOGNAME"] = "llm-calls"


_INDEX = {column.name: index for index, column in enumerate(COLUMNS, 1)}  # in a Row
_CALL_ID = _INDEX["call_id"]


def _columns(target: schema.Target, rows: Sequence[Row]) -> list[list[Any]]:
    """Rows as the driver takes them fastest: the target's columns, times as ticks, maps as dicts."""
    return [
        _converted(column.kind, scale, [row[_INDEX[column.name]] for row in rows])
        for column, scale in zip(target.columns, target.scales, strict=True)
    ]


def _converted(kind: Kind, scale: int, values: list[Any]) -> list[Any]:
    if scale:
        to_ticks = schema.ticks(scale)
        return [None if value is None else to_ticks(_milliseconds(value)) for value in values]
    if kind is Kind.MAP:
        read = {value: orjson.loads(value) for value in set(values)}  # many are alike
        return [read[value] for value in values]
    if kind is Kind.FLAG:
        return [bool(value) for value in values]
    return values


def _milliseconds(text: str) -> int:
    """As time_number does, several times as fast where times are close to one another, as a batch's are."""
    return _second(text[:19]) + int(text[20:]) if len(text) == 23 else time_number(text)


@functools.lru_cache(maxsize=4096)
def _second(text: str) -> int:
    return time_number(text)


# What a row without a call_id is known by: see `_content_key`
_CONTENT_TIME = "to_unix_timestamp64_milli(request_time)"
_CONTENT = (
    f"{_CONTENT_TIME}, to_unix_timestamp64_milli(response_time), request_method, request_url, response_status_code,"
    " length(request_content), length(response_text)"
)


def _content_key(row: Row) -> tuple[Any, ...]:
    """A row's values of `_CONTENT`, as the driver returns them."""
    return (
        time_number(row[_INDEX["request_time"]]),
        time_number(row[_INDEX["response_time"]]),
        row[_INDEX["request_method"]],
        row[_INDEX["request_url"]],
        row[_INDEX["response_status_code"]],
        len(row[_INDEX["request_content"]].encode("utf-8", "surrogateescape")),
        len(row[_INDEX["response_text"]].encode("utf-8", "surrogateescape")),
    )


def _portions(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _IDS_A_QUERY] for start in range(0, len(items), _IDS_A_QUERY))
