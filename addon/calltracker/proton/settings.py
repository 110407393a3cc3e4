"""Where the Proton is and how to talk to it: from the environment, a URL or mitmproxy's options, checked.

Nothing here connects or imports the driver: the proxy's process checks settings and hands them to the worker.
"""

from __future__ import annotations

import dataclasses
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

PORT = 8463
SECURE_PORT = 9440

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOST = re.compile(r"[A-Za-z0-9_.\-]+|[0-9A-Fa-f:.%]+")


class SettingsError(ValueError):
    """A setting that cannot be used; the message is one line that names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A checked configuration of the delivery to one stream. Times are in seconds, sizes in bytes."""

    host: str
    port: int = 0  # 0: 8463, or 9440 with TLS
    user: str = "default"
    password: str = field(default="", repr=False)
    database: str = "default"
    stream: str = "llm_calls"
    secure: bool = False
    verify: bool = True
    ca_certs: str = ""
    create: bool = True

    batch_rows: int = 2000
    batch_bytes: int = 6 << 20  # of the rows as the journal holds them; below the server's record limit of 10 MiB
    connect_timeout: float = 10.0
    timeout: float = 30.0  # of one send or receive
    visibility: float = 10.0  # after which table() shows a row that the server took; 2.2 s were measured on 1.6
    backoff_first: float = 0.25
    backoff_most: float = 5.0

    def __post_init__(self) -> None:
        if not self.host or not _HOST.fullmatch(self.host):
            raise SettingsError(
                f"PROTON_HOST: {self.host!r} is not a host name; give the name or address alone, "
                "or a whole URL as PROTON_URL=proton://user:password@host:8463/default"
            )
        if not self.port:
            object.__setattr__(self, "port", SECURE_PORT if self.secure else PORT)
        if not 1 <= self.port <= 65535:
            raise SettingsError(
                f"PROTON_PORT: {self.port} is not a port; Proton's is {PORT}, or {SECURE_PORT} with TLS"
            )
        for name, value in (("PROTON_STREAM", self.stream), ("PROTON_DATABASE", self.database)):
            if not _NAME.fullmatch(value):
                raise SettingsError(f"{name}: {value!r} is not a name; use letters, digits and underscores")
        if not self.user:
            raise SettingsError("PROTON_USER: empty; leave it unset for Proton's own user 'default'")
        if self.ca_certs:
            self._check_ca_certs()
        for limit in _LIMITS:
            if getattr(self, limit) <= 0:
                raise SettingsError(f"PROTON_{limit.upper()}: must be above 0")

    def _check_ca_certs(self) -> None:
        if not self.secure:
            raise SettingsError("PROTON_CA_CERTS: set without TLS; add PROTON_SECURE=true, or take it away")
        try:
            ssl.create_default_context(cafile=self.ca_certs)
        except ssl.SSLError:
            raise SettingsError(
                f"PROTON_CA_CERTS: {self.ca_certs} holds no certificate in PEM; give the CA's"
            ) from None
        except OSError as error:
            reason = error.strerror or error
            raise SettingsError(f"PROTON_CA_CERTS: {self.ca_certs}: {reason}; give a PEM file with the CA") from None

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings | None:
        """Read PROTON_*; None where neither PROTON_HOST nor PROTON_URL is set. Raises SettingsError."""
        values: dict[str, Any] = {
            name: environment[_variable(name)] for name in _TYPES if environment.get(_variable(name))
        }
        if environment.get("PROTON_URL"):
            values["url"] = environment["PROTON_URL"]
        return cls.from_options(values)

    @classmethod
    def from_url(cls, url: str) -> Settings:
        """Read proton://user:password@host:port/database?stream=… (protons: TLS). Raises SettingsError."""
        return cls(**_typed(_of_url(url)))

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Settings | None:
        """Read a dict of the fields' names, and `url`; what it names itself goes before what the URL says.

        Values may be text; empty and None mean "not set". None where there is neither a host nor a URL.
        Raises SettingsError.
        """
        given = {name: value for name, value in options.items() if value is not None and value != ""}
        url = given.pop("url", None)
        unknown = given.keys() - _TYPES.keys()
        if unknown:
            raise SettingsError(f"Proton has no setting {min(unknown)!r}; there are {', '.join(_TYPES)}")
        if url is not None:
            return cls(**_typed(_of_url(str(url)) | given))
        return cls(**_typed(given)) if "host" in given else None

    def to_dict(self) -> dict[str, Any]:
        """Every field, the password too, as JSON can hold it: for the pipe to the worker, never for a log."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The inverse of `to_dict`. Raises SettingsError."""
        return cls(**_typed(values))


_TYPES: dict[str, type] = {
    f.name: {"str": str, "int": int, "bool": bool, "float": float}[str(f.type)] for f in dataclasses.fields(Settings)
}
_LIMITS = (
    "batch_rows",
    "batch_bytes",
    "connect_timeout",
    "timeout",
    "visibility",
    "backoff_first",
    "backoff_most",
)


def _variable(name: str) -> str:
    return f"PROTON_{name.upper()}"


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(name, value) for name, value in values.items()}


def _value(name: str, value: Any) -> Any:
    wanted = _TYPES[name]
    if wanted is bool:
        word = str(value).strip().lower()
        if word not in _TRUE | _FALSE:
            raise SettingsError(f"{_variable(name)}: {value!r} is neither true nor false")
        return word in _TRUE
    if wanted is str:
        return str(value) if name == "password" else str(value).strip()
    try:
        return wanted(value)
    except (TypeError, ValueError):
        kind = "a whole number" if wanted is int else "a number"
        raise SettingsError(f"{_variable(name)}: {value!r} is not {kind}") from None


def _of_url(url: str) -> dict[str, Any]:
    form = "write it as proton://user:password@host:8463/database (protons:// for TLS)"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"PROTON_URL: {error}; {form}") from None
    if parts.scheme not in ("proton", "protons"):
        raise SettingsError(f"PROTON_URL: begins with neither proton:// nor protons://; {form}")
    if not parts.hostname:
        raise SettingsError(f"PROTON_URL: names no host; {form}")
    values: dict[str, Any] = {"host": parts.hostname, "secure": parts.scheme == "protons"}
    if port is not None:
        values["port"] = port
    if parts.username:
        values["user"] = unquote(parts.username)
    if parts.password:
        values["password"] = unquote(parts.password)
    if parts.path.strip("/"):
        values["database"] = unquote(parts.path.strip("/"))
    for name, value in parse_qsl(parts.query):
        if name not in _TYPES:
            raise SettingsError(f"PROTON_URL: has no setting {name!r}; there are {', '.join(_TYPES)}")
        values[name] = value
    return values
