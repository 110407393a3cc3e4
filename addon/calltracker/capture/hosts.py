"""Which hosts are OpenAI's, or the user's own compatible servers: all others are tunnelled undecrypted."""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass

DEFAULT_HOSTS = (
    "api.openai.com",
    "*.api.openai.com",  # regional endpoints
    "*.openai.azure.com",
    "*.cognitiveservices.azure.com",
    "*.services.ai.azure.com",
)

_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?")
_FORMS = "write a host as name, *.suffix, name:port, an IP address, or [IPv6]:port"


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One host (`name`), or with `subdomains` every name that ends with `.name`; `port` None is any port."""

    name: str
    subdomains: bool = False
    port: int | None = None

    def matches(self, host: str, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        return host.endswith("." + self.name) if self.subdomains else host == self.name


def parse_hosts(text: str) -> tuple[HostPattern, ...]:
    """Read a list of hosts, separated by commas or blanks. Raises ValueError with one line that says what is wrong."""
    return tuple(parse_host(word) for word in re.split(r"[,\s]+", text.strip()) if word)


def parse_host(word: str) -> HostPattern:
    """Read one of `name`, `*.suffix`, `name:port`, `10.0.0.1`, `::1`, `[::1]:8000`. Raises ValueError."""
    if "/" in word:
        raise ValueError(f"{word!r} is not a host but a URL or a path: {_FORMS}")
    name, port = word.lower(), None
    if not _is_ip(name):
        name, colon, digits = name.rpartition(":") if ":" in name and not name.endswith("]") else (name, "", "")
        if colon and not (digits.isascii() and digits.isdigit() and 0 < int(digits) < 65536):
            raise ValueError(f"{word!r} has no port number from 1 to 65535 after its ':': {_FORMS}")
        port = int(digits) if digits else None
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    subdomains = name.startswith("*.")
    bare = name.removeprefix("*.").removesuffix(".")
    if not (_is_ip(bare) and not subdomains) and not _NAME.fullmatch(bare):
        raise ValueError(f"{word!r} is not a host: {_FORMS}")
    return HostPattern(bare, subdomains, port)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts whose calls become rows."""

    patterns: tuple[HostPattern, ...]

    @classmethod
    def with_own(cls, text: str) -> Hosts:
        """OpenAI's hosts and those of a user's list. Raises ValueError."""
        return cls(parse_hosts(" ".join(DEFAULT_HOSTS)) + parse_hosts(text))

    @property
    def names(self) -> list[str]:
        """The hosts without their ports: name, or *.suffix."""
        return [f"*.{pattern.name}" if pattern.subdomains else pattern.name for pattern in self.patterns]

    @functools.lru_cache(maxsize=1024)  # noqa: B019 - one instance lives as long as the settings do
    def wanted(self, host: str | None, port: int) -> bool:
        if not host:
            return False
        name = host.lower().removesuffix(".")
        return any(pattern.matches(name, port) for pattern in self.patterns)
