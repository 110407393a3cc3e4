"""A server that speaks Proton's native protocol to the unmodified proton-driver, as far as the exporter needs it.

It behaves as a Proton 1.6.1 was recorded to (blocks applied one by one as they are read whole, a record limit,
table() that shows rows late, idempotent ids ignored) or, with `version=(3, …)`, as the 3.x line (idempotent ids
obeyed). `hook` is asked at each stage of an INSERT and may raise `Say` or `Drop`, or wait.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from proton_driver import defines
from proton_driver.block import BlockInfo, ColumnOrientedBlock
from proton_driver.bufferedreader import BufferedSocketReader
from proton_driver.bufferedwriter import BufferedSocketWriter
from proton_driver.columns.service import read_column
from proton_driver.connection import ServerInfo
from proton_driver.context import Context
from proton_driver.protocol import ClientPacketTypes, ServerPacketTypes
from proton_driver.reader import read_binary_str, read_binary_uint8, read_binary_uint64
from proton_driver.streams.native import BlockOutputStream
from proton_driver.varint import read_varint, write_varint
from proton_driver.writer import write_binary_int32, write_binary_str, write_binary_uint8

REVISION = 54459
RECORD_LIMIT = 10_485_760
RECORD_OVERHEAD = 33  # beyond the bytes of a Data packet, so that one string column gives what was recorded
TP_TIME = ("_tp_time", "datetime64(3, 'UTC')", "DEFAULT", "now64(3, 'UTC')")
DESCRIBED = ("name", "type", "default_type", "default_expression", "comment", "codec_expression", "ttl_expression")


class Say(Exception):
    """The server answers with an exception."""

    def __init__(self, code: int, message: str, name: str = "DB::Exception", close: bool = False) -> None:
        super().__init__(message)
        self.code, self.message, self.name, self.close = code, message, name, close


class Drop(Exception):
    """The server closes the connection without a word."""


@dataclass
class Block:
    """A block as it was applied: its columns' values (all of them, or only call_id)."""

    columns: dict[str, Sequence[Any]]
    rows: int
    visible_at: float
    idempotent_id: str


@dataclass
class Stream:
    """name, type, default_kind, default_expression of each column; and what was inserted."""

    columns: list[tuple[str, str, str, str]]
    blocks: list[Block] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    altered: bool = False  # on 1.6, what is inserted from then on stays out of table() until a restart
    create: str = ""

    def writable(self) -> list[tuple[str, str]]:
        return [(c[0], c[1]) for c in self.columns if c[2] != "ALIAS"]


class Server:
    """Listens on a free port of 127.0.0.1; `stop` and `start` are a restart that keeps the data."""

    def __init__(
        self,
        *,
        version: tuple[int, int, int] = (1, 6, 1),
        users: dict[str, str] | None = None,
        databases: Iterable[str] = ("default",),
        tls: ssl.SSLContext | None = None,
        visibility: float = 0.0,
        keep_rows: bool = True,
        may_create: bool = True,
        zone: str = "Etc/UTC",
    ) -> None:
        self.version, self.users = version, users or {"default": ""}
        self.databases, self.tls, self.zone = set(databases), tls, zone
        self.visibility, self.keep_rows, self.may_create = visibility, keep_rows, may_create
        self.streams: dict[str, Stream] = {}
        self.hook: Callable[[str, str, int], None] = lambda stage, stream, rows: None
        self.restart_shows_all = True
        self.running = threading.Event()
        self.running.set()
        self.queries: list[str] = []
        self.packets: list[str] = []
        self.lock = threading.RLock()
        self.active: set[str] = set()
        self._connections: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        for stream in self.streams.values() if self.restart_shows_all else ():
            stream.altered = False
            for block in stream.blocks:
                block.visible_at = min(block.visible_at, time.monotonic())
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections and break those that there are."""
        with self.lock:
            listener, self._listener = self._listener, None
            broken = list(self._connections)
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in broken:
            _shut(connection)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.running.set()
        self.stop()

    def rows(self, stream: str = "llm_calls", *columns: str) -> list[tuple[Any, ...]]:
        """What table() would show, seen at once: the named columns of every row."""
        with self.lock:
            blocks = list(self.streams[stream].blocks) if stream in self.streams else []
        return [row for b in blocks for row in zip(*(b.columns[c] for c in columns), strict=True)]

    def count(self, stream: str = "llm_calls") -> int:
        with self.lock:
            return sum(block.rows for block in self.streams[stream].blocks) if stream in self.streams else 0

    def shown(self, stream: Stream) -> list[Block]:
        now = time.monotonic()
        with self.lock:
            return [block for block in stream.blocks if block.visible_at <= now]

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self.lock:
            if self._listener is None:
                connection.close()
                return
            self._connections.add(connection)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wrapped: socket.socket = connection
            if self.tls is not None:
                wrapped = self.tls.wrap_socket(connection, server_side=True)
                with self.lock:
                    self._connections.discard(connection)
                    self._connections.add(wrapped)
                connection = wrapped
            _Session(self, wrapped).run()
        except (OSError, EOFError, Drop, ValueError):
            pass  # the client went away, or spoke something else
        finally:
            with self.lock:
                self._connections.discard(connection)
            _shut(connection)
            connection.close()


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Counting:
    """A socket that counts what was read, for the size of a record."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.total = connection, 0

    def recv_into(self, buffer: Any) -> int:
        size = self.connection.recv_into(buffer)
        self.total += size
        return size


class _Session:
    """One connection."""

    def __init__(self, server: Server, connection: socket.socket) -> None:
        self.server, self.socket = server, connection
        self.counting = _Counting(connection)
        self.reader = BufferedSocketReader(self.counting, 1 << 20)
        self.writer = BufferedSocketWriter(connection, 1 << 20)
        self.context = Context()
        self.context.settings = {}
        self.context.client_settings = {
            "strings_as_bytes": False,
            "strings_encoding": "utf-8",
            "use_numpy": False,
            "opentelemetry_traceparent": None,
            "opentelemetry_tracestate": "",
            "quota_key": "",
            "namedtuple_as_json": False,
            "insert_block_size": defines.DEFAULT_INSERT_BLOCK_SIZE,
        }
        self.context.server_info = ServerInfo("proton", *server.version, REVISION, server.zone, "vm")
        self.blocks_out = BlockOutputStream(self.writer, self.context)
        self.user = ""

    def run(self) -> None:
        self._hello()
        while True:
            packet = self._packet()
            if packet == ClientPacketTypes.PING:
                self._note("C Ping")
                write_varint(ServerPacketTypes.PONG, self.writer)
                self.writer.flush()
                self._note("S Pong")
            elif packet == ClientPacketTypes.QUERY:
                self._query()
            elif packet == ClientPacketTypes.DATA:
                self._read_block()
                self._say(Say(101, "DB::NetException: Unexpected packet Data received from client", "DB::NetException"))
                raise Drop
            else:
                raise Drop

    def _note(self, text: str) -> None:
        self.server.packets.append(text)

    def _packet(self) -> int:
        packet = read_varint(self.reader)
        self.server.running.wait()
        return packet

    def _hello(self) -> None:
        if self._packet() != ClientPacketTypes.HELLO:
            self.socket.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nThis is a native port.\r\n")
            raise Drop
        self._note("C Hello")
        read_binary_str(self.reader)
        for _ in range(3):
            read_varint(self.reader)
        database, self.user, password = (read_binary_str(self.reader) for _ in range(3))
        if self.server.users.get(self.user) != password:
            self._say(
                Say(
                    516,
                    f"{self.user}: Authentication failed: password is incorrect or there is no user with such name",
                )
            )
            raise Drop
        write_varint(ServerPacketTypes.HELLO, self.writer)
        write_binary_str("proton", self.writer)
        write_varint(self.server.version[0], self.writer)
        write_varint(self.server.version[1], self.writer)
        write_varint(REVISION, self.writer)
        write_binary_str(self.server.zone, self.writer)
        write_binary_str("vm", self.writer)
        write_varint(self.server.version[2], self.writer)
        self.writer.flush()
        self._note("S Hello")
        if database not in self.server.databases:
            self._say(Say(81, f"Database {database} doesn't exist"))
            # A real one closes at once; what the driver then makes of it depends on a race.
            while True:
                self._packet()

    def _query(self) -> None:
        query_id = read_binary_str(self.reader)
        self._skip_client_info()
        settings = dict(self._settings())
        read_binary_str(self.reader)
        read_varint(self.reader)
        read_varint(self.reader)
        query = read_binary_str(self.reader)
        self._note("C Query")
        self._packet()
        self._read_block()  # the external tables: none
        with self.server.lock:
            self.server.queries.append(query)
            busy = bool(query_id) and query_id in self.server.active
            if not busy:
                self.server.active.add(query_id)
        if busy:
            self._say(Say(216, f"Query with id = {query_id} is already running."))
            return
        try:
            self._run(query, settings)
        except Say as said:
            self._say(said)
            if said.close:
                raise Drop from None
        finally:
            with self.server.lock:
                self.server.active.discard(query_id)

    def _skip_client_info(self) -> None:
        read_binary_uint8(self.reader)
        for _ in range(3):
            read_binary_str(self.reader)
        read_binary_uint64(self.reader)
        read_binary_uint8(self.reader)
        for _ in range(3):
            read_binary_str(self.reader)
        for _ in range(3):
            read_varint(self.reader)
        read_binary_str(self.reader)
        read_varint(self.reader)
        read_varint(self.reader)
        if read_binary_uint8(self.reader):
            self.reader.read(24)
            read_binary_str(self.reader)
            read_binary_uint8(self.reader)
        for _ in range(3):
            read_varint(self.reader)

    def _settings(self) -> Iterator[tuple[str, str]]:
        while name := read_binary_str(self.reader):
            read_binary_uint8(self.reader)
            yield name, read_binary_str(self.reader)

    # Statements

    def _run(self, query: str, settings: dict[str, str]) -> None:
        text = query.strip().rstrip(";")
        for pattern, method in _STATEMENTS:
            if match := re.fullmatch(pattern, text, re.IGNORECASE | re.DOTALL):
                getattr(self, method)(match, settings)
                return
        raise Say(62, f"DB::Exception: Syntax error: the test server does not know: {text[:200]}")

    def _stream(self, name: str) -> Stream:
        stream = self.server.streams.get(name)
        if stream is None:
            raise Say(60, f"Stream default.{name} doesn't exist")
        return stream

    def _create(self, match: re.Match[str], _: object) -> None:
        if not self.server.may_create:
            name = match["name"]
            raise Say(
                497,
                f"{self.user}: Not enough privileges. To execute this query it's necessary to have grant"
                f" CREATE TABLE ON default.{name}",
            )
        with self.server.lock:
            if match["name"] not in self.server.streams:
                columns = [_column(text) for text in _split(match["columns"])]
                stream = Stream([*columns, TP_TIME], create=match[0])
                event_time = re.search(r"event_time_column *= *'(\w+)'", match[0])
                if event_time:
                    stream.columns[-1] = (*TP_TIME[:3], event_time[1])
                self.server.streams[match["name"]] = stream
            elif not match["quietly"]:
                raise Say(57, f"Stream default.{match['name']} already exists")
        self._end()

    def _alter(self, match: re.Match[str], _: object) -> None:
        stream = self._stream(match["name"])
        with self.server.lock:
            column = _column(match["column"])
            if any(c[0] == column[0] for c in stream.columns):
                if not match["quietly"]:
                    raise Say(15, f"Cannot add column `{column[0]}`: column with this name already exists")
            else:
                stream.columns.append(column)
                stream.altered = self.server.version[0] == 1
        self._end()

    def _drop(self, match: re.Match[str], _: object) -> None:
        if not match["quietly"]:
            self._stream(match["name"])
        self.server.streams.pop(match["name"], None)
        self._end()

    def _describe(self, match: re.Match[str], _: object) -> None:
        stream = self._stream(match["name"])
        rows = [(*column, "", "DoubleDelta, LZ4" if column[0] == "_tp_time" else "", "") for column in stream.columns]
        self._answer([(name, "string") for name in DESCRIBED], rows)

    def _exists(self, match: re.Match[str], _: object) -> None:
        self._answer([("result", "uint8")], [(int(match["name"] in self.server.streams),)])

    def _select_one(self, match: re.Match[str], _: object) -> None:
        self._answer([(match["number"], "uint8")], [(int(match["number"]),)])

    def _select_version(self, match: re.Match[str], _: object) -> None:
        version = ".".join(str(part) for part in self.server.version)
        self._answer([("version()", "string"), ("timezone()", "string")], [(version, self.server.zone)])

    def _select_user(self, match: re.Match[str], _: object) -> None:
        self._answer([("current_user()", "string")], [(self.user,)])

    def _select_count(self, match: re.Match[str], _: object) -> None:
        blocks = self.server.shown(self._stream(match["name"]))
        self._answer([("count()", "uint64")], [(sum(block.rows for block in blocks),)])

    def _select_ids(self, match: re.Match[str], _: object) -> None:
        wanted = set(re.findall(r"'([^']*)'", match["ids"] or ""))
        blocks = self.server.shown(self._stream(match["name"]))
        ids = [i for block in blocks for i in self._column_of(block, "call_id")]
        found = [(i,) for i in ids if match["ids"] is None or i in wanted]
        self._answer([("call_id", "string")], found)

    def _select_content(self, match: re.Match[str], _: object) -> None:
        wanted = {int(number) for number in match["times"].split(",") if number.strip()}
        stream = self._stream(match["name"])
        plain = ("request_time", "response_time", "request_method", "request_url", "response_status_code")
        named = (*plain, "request_content", "response_text", *(("call_id",) if match["nameless"] else ()))
        rows = [
            (*row[:5], len(row[5].encode()), len(row[6].encode()))
            for block in self.server.shown(stream)
            for row in zip(*(self._column_of(block, c) for c in named), strict=True)
            if row[0] in wanted and not any(row[7:])
        ]
        types = ("int64", "int64", "string", "string", "int32", "uint64", "uint64")
        names = ("request_time", "response_time", *plain[2:], "length(request_content)", "length(response_text)")
        self._answer(list(zip(names, types, strict=True)), rows)

    @staticmethod
    def _column_of(block: Block, name: str) -> Sequence[Any]:
        return block.columns.get(name, [""] * block.rows)

    # INSERT

    def _insert(self, match: re.Match[str], settings: dict[str, str]) -> None:
        name = match["name"]
        if match["setting"]:
            raise Say(115, f"Unknown setting {match['setting']}")
        stream = self._stream(name)
        names = [n.strip().strip("`") for n in match["columns"].split(",")] if match["columns"] else None
        known = dict(stream.writable())
        for i, column in enumerate(names or []):
            if column not in known:
                raise Say(16, f"No such column {column} in stream default.{name}")
            if column in (names or [])[:i]:
                raise Say(15, f"Column {column} specified more than once")
        self.server.hook("query", name, 0)
        wanted = [(column, known[column]) for column in names or known]
        self._table_columns(stream)
        self._data(wanted, [])
        number = 0
        while True:
            if self._packet() != ClientPacketTypes.DATA:
                raise Drop
            start = self.counting.total - (self.reader.current_buffer_size - self.reader.position)
            columns, rows = self._read_block()
            if not columns:
                break
            size = self.counting.total - (self.reader.current_buffer_size - self.reader.position) - start
            size += RECORD_OVERHEAD
            self.server.hook("block", name, rows)
            if size > RECORD_LIMIT:
                raise Say(
                    2514,
                    f"The record batch size in append to shard {name}-0 is {size} bytes"
                    f" which exceeds the maximum configured value of {RECORD_LIMIT}",
                )
            self._apply(stream, columns, rows, settings.get("idempotent_id", ""), number)
            number += 1
            self.server.hook("applied", name, rows)
        self.server.hook("end", name, 0)
        self._end()

    def _apply(self, stream: Stream, columns: dict[str, Any], rows: int, idempotent_id: str, number: int) -> None:
        with self.server.lock:
            key = f"{idempotent_id}-{number}" if idempotent_id and self.server.version[0] >= 3 else ""
            if key and key in stream.ids:
                return
            stream.ids.add(key)
            now = time.monotonic()
            last = stream.blocks[-1].visible_at if stream.blocks else now
            visible_at = max(last, now + self.server.visibility * random.uniform(0.3, 1.0))
            if stream.altered:
                visible_at = float("inf")
            if not self.server.keep_rows:
                columns = {name: values for name, values in columns.items() if name == "call_id"}
            stream.blocks.append(Block(columns, rows, visible_at, idempotent_id))

    # Packets

    def _read_block(self) -> tuple[dict[str, Any], int]:
        read_binary_str(self.reader)
        BlockInfo().read(self.reader)
        count, rows = read_varint(self.reader), read_varint(self.reader)
        columns = {}
        for _ in range(count):
            name, kind = read_binary_str(self.reader), read_binary_str(self.reader)
            if rows:
                ticks = re.sub(r"datetime64\((\d|, *|'[^']*')*\)", "int64", kind)
                columns[name] = read_column(self.context, ticks, rows, self.reader)
        self._note(f"C Data {count} cols x {rows} rows")
        return columns, rows

    def _say(self, said: Say) -> None:
        message = said.message if said.message.startswith("DB::") else f"DB::Exception: {said.message}"
        write_varint(ServerPacketTypes.EXCEPTION, self.writer)
        write_binary_int32(said.code, self.writer)
        write_binary_str(said.name, self.writer)
        write_binary_str(message, self.writer)
        write_binary_str("", self.writer)
        write_binary_uint8(0, self.writer)
        self.writer.flush()
        self._note(f"S Exception {said.code}")

    def _end(self) -> None:
        write_varint(ServerPacketTypes.END_OF_STREAM, self.writer)
        self.writer.flush()
        self._note("S EndOfStream")

    def _table_columns(self, stream: Stream) -> None:
        write_varint(ServerPacketTypes.TABLE_COLUMNS, self.writer)
        write_binary_str("", self.writer)
        lines = []
        for name, kind, default, expression in stream.columns:
            line = f"`{name}` {kind}"
            if default:
                line += f"\t{default}\t{expression}"
            if name == "_tp_time":
                line += "\tCODEC(DoubleDelta, LZ4)"
            lines.append(line.replace("'", "\\'") + "\n")
        text = f"columns format version: 1\n{len(lines)} columns:\n{''.join(lines)}"
        write_binary_str(text, self.writer)
        self._note("S TableColumns")

    def _data(self, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Any]], events: bool = False) -> None:
        write_varint(ServerPacketTypes.PROFILE_EVENTS if events else ServerPacketTypes.DATA, self.writer)
        write_binary_str("", self.writer)
        data = [list(values) for values in zip(*rows, strict=True)] if rows else [[] for _ in columns]
        block = ColumnOrientedBlock(columns, data)
        if rows or not columns:
            self.blocks_out.write(block)
        else:
            block.info.write(self.writer)
            write_varint(len(columns), self.writer)
            write_varint(0, self.writer)
            for name, kind in columns:
                write_binary_str(name, self.writer)
                write_binary_str(kind, self.writer)
            self.writer.flush()
        self._note(f"S {'ProfileEvents' if events else 'Data'} {len(columns)} cols x {len(rows)} rows")

    def _progress(self, *numbers: int) -> None:
        write_varint(ServerPacketTypes.PROGRESS, self.writer)
        for number in numbers:
            write_varint(number, self.writer)
        self._note("S Progress")

    def _answer(self, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Any]]) -> None:
        """A bounded select, in the order of packets that was recorded."""
        self._data(columns, [])
        for start in range(0, len(rows), 65409):
            self._data(columns, rows[start : start + 65409])
        write_varint(ServerPacketTypes.PROFILE_INFO, self.writer)
        for number in (len(rows), 1, 64, 0, 0, 0):  # rows, blocks, bytes, limit applied, rows before it, known
            write_varint(number, self.writer)
        self._note("S ProfileInfo")
        self._progress(len(rows), len(rows), 0, 0, 0)
        self._data(PROFILE_EVENTS, [("vm", 1_700_000_000, 0, 1, "Query", 1)], events=True)
        self._data([], [])
        self._progress(0, 0, 0, 0, 0)
        self._end()


PROFILE_EVENTS = (
    ("host_name", "string"),
    ("current_time", "datetime"),
    ("thread_id", "uint64"),
    ("type", "enum8('increment' = 1, 'gauge' = 2)"),
    ("name", "string"),
    ("value", "int64"),
)

_NAMED = r"(?:`?\w+`?\.)?`?(?P<name>\w+)`?"
_STATEMENTS = (
    (
        rf"CREATE STREAM (?P<quietly>IF NOT EXISTS )?{_NAMED}\s*\((?P<columns>.*?)\n?\)(?:\s*(?:TTL|SETTINGS) .*)?",
        "_create",
    ),
    (rf"ALTER STREAM {_NAMED} ADD COLUMN (?P<quietly>IF NOT EXISTS )?(?P<column>.*)", "_alter"),
    (rf"DROP STREAM (?P<quietly>IF EXISTS )?{_NAMED}", "_drop"),
    (rf"DESCRIBE {_NAMED}", "_describe"),
    (rf"EXISTS STREAM {_NAMED}", "_exists"),
    (r"SELECT (?P<number>\d+)", "_select_one"),
    (r"SELECT version\(\), timezone\(\)", "_select_version"),
    (r"SELECT current_user\(\)", "_select_user"),
    (rf"SELECT count\(\) FROM table\({_NAMED}\)", "_select_count"),
    (rf"SELECT call_id FROM table\({_NAMED}\)(?: WHERE call_id IN \((?P<ids>.*)\))?", "_select_ids"),
    (
        r"SELECT to_unix_timestamp64_milli\(request_time\), to_unix_timestamp64_milli\(response_time\), request_method,"
        r" request_url, response_status_code, length\(request_content\), length\(response_text\)"
        rf" FROM table\({_NAMED}\) WHERE to_unix_timestamp64_milli\(request_time\) IN \((?P<times>.*?)\)"
        r"(?P<nameless> AND call_id = '')?",
        "_select_content",
    ),
    (
        rf"INSERT INTO {_NAMED}\s*(?:\((?P<columns>[^)]*)\))?\s*(?:SETTINGS (?P<setting>\w+) *=.*)?\s*VALUES",
        "_insert",
    ),
)


def _split(columns: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts, depth = [""], 0
    for character in columns:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _column(text: str) -> tuple[str, str, str, str]:
    match = re.fullmatch(
        r"`?(?P<name>\w+)`?\s+(?P<type>.*?)(?:\s+(?P<kind>DEFAULT|ALIAS)\s+(?P<expression>.*))?", text, re.DOTALL
    )
    if match is None:
        raise Say(62, f"Syntax error: {text}")
    kind = re.sub(r"\bdatetime64\b(?!\()", "datetime64(3)", match["type"].strip())
    kind = re.sub(r"\bint\b", "int32", kind)
    kind = re.sub(r",(?=\S)", ", ", kind)
    unknown = re.fullmatch(r"\w+", kind) and kind not in _KINDS
    if unknown:
        raise Say(50, f"Unknown data type family: {kind}. Maybe you meant: ['string']")
    return match["name"], kind, match["kind"] or "", match["expression"] or ""


_KINDS = {"string", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float64"}
