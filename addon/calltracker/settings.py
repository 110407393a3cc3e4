"""The options: one list of names, defaults and meanings, and the checked settings that are made of them.

Every option is text, because mitmproxy drops an addon silently when a number on the command line is not one; each is
checked here, with one line that names the option. An option that is not set takes its environment variable:
LLM_CALLS_HOSTS for llm_calls_hosts, and PROTON_HOST for llm_calls_proton_host.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from . import paths
from .capture.hosts import Hosts
from .capture.secrets import Redaction
from .proton.settings import Settings as ProtonSettings

PREFIX = "llm_calls_"


@dataclass(frozen=True, slots=True)
class Option:
    """An option of the addon; `default` holds where neither the option nor its environment variable is set."""

    name: str
    default: str
    help: str

    @property
    def variable(self) -> str:
        """The environment variable that stands in for the option."""
        own = self.name.removeprefix(PREFIX)
        return own.upper() if own.startswith("proton_") else self.name.upper()


OPTIONS = (
    Option(
        "llm_calls_hosts",
        "",
        "Hosts beside OpenAI's whose calls are recorded: name, *.suffix, name:port; comma-separated.",
    ),
    Option(
        "llm_calls_journal",
        "",
        "The SQLite file with the rows. Default: journal.sqlite3 in the state folder.",
    ),
    Option(
        "llm_calls_bodies", "on", "Keep what was asked and answered: on, off. Off keeps model, tokens and the like."
    ),
    Option("llm_calls_body_limit", "2m", "How much of one body is kept, in bytes, or with k, m, g."),
    Option("llm_calls_redact", "", "More headers and query parameters whose values are masked; comma-separated."),
    Option(
        "llm_calls_durability",
        "process",
        "What a finished call survives: process (kill -9), power (a power cut; slower).",
    ),
    Option(
        "llm_calls_spool_limit",
        "4g",
        "How much may wait on the disk for the worker; what comes then is counted as lost.",
    ),
    Option(
        "llm_calls_keep_days",
        "0",
        "Remove rows older than this from the journal, once delivered; 0 keeps all.",
    ),
    Option(
        "llm_calls_keep_size",
        "0",
        "Remove the oldest rows when the journal is larger, once delivered; 0 keeps all.",
    ),
    Option("llm_calls_proton_url", "", "proton://user:password@host:port/database, or protons:// for TLS."),
    Option("llm_calls_proton_host", "", "Host of a Timeplus Proton that gets every row. Default: none."),
    Option("llm_calls_proton_port", "", "Its native port. Default: 8463, with TLS 9440."),
    Option("llm_calls_proton_user", "", "Its user. Default: default."),
    Option(
        "llm_calls_proton_password",
        "",
        "Its password; better in PROTON_PASSWORD, which no list of processes shows.",
    ),
    Option("llm_calls_proton_database", "", "Its database. Default: default."),
    Option("llm_calls_proton_stream", "", "Its stream. Default: llm_calls."),
    Option("llm_calls_proton_secure", "", "Use TLS: on, off. Default: off."),
    Option("llm_calls_proton_ca_certs", "", "PEM file with the CA that Proton's certificate is checked against."),
    Option("llm_calls_proton_create", "", "Create the stream where it is missing: on, off. Default: on."),
)


class OptionError(ValueError):
    """An option that cannot be used; the message is one line."""


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """What the recorder needs."""

    hosts: Hosts
    redaction: Redaction
    body_limit: int


@dataclass(frozen=True, slots=True)
class Settings:
    """All options, checked. Sizes are in bytes; 0 is "no limit" for what is kept."""

    capture: CaptureSettings
    journal: Path
    bodies: bool
    fsync: bool
    spool_limit: int
    keep_days: float
    keep_bytes: int
    proton: ProtonSettings | None


T = TypeVar("T")


def read(options: Mapping[str, str], environment: Mapping[str, str]) -> Settings:
    """Check the options (by name; empty is "not set") over the environment. Raises OptionError."""

    def value(name: str, check: Callable[[str], T]) -> T:
        option = next(option for option in OPTIONS if option.name == name)
        given = options.get(name, "")
        source = name if given else option.variable
        text = given or environment.get(option.variable, "") or option.default
        try:
            return check(text)
        except ValueError as error:
            raise OptionError(f"{source}: {error}") from None

    capture = CaptureSettings(
        hosts=value("llm_calls_hosts", Hosts.with_own),
        redaction=value("llm_calls_redact", _redaction),
        body_limit=value("llm_calls_body_limit", parse_size),
    )
    return Settings(
        capture=capture,
        journal=value(
            "llm_calls_journal",
            lambda text: Path(text).expanduser().absolute() if text else paths.journal_path(),
        ),
        bodies=value("llm_calls_bodies", _switch),
        fsync=value("llm_calls_durability", lambda text: _choice(text, "process", "power")) == "power",
        spool_limit=value("llm_calls_spool_limit", parse_size),
        keep_days=value("llm_calls_keep_days", _days),
        keep_bytes=value("llm_calls_keep_size", parse_size),
        proton=_proton(options, environment),
    )


def _proton(options: Mapping[str, str], environment: Mapping[str, str]) -> ProtonSettings | None:
    given = {
        option.variable: options[option.name]
        for option in OPTIONS
        if option.variable.startswith("PROTON_") and options.get(option.name)
    }
    try:
        return ProtonSettings.from_environment({**environment, **given})
    except ValueError as error:
        raise OptionError(str(error)) from None


def parse_size(text: str) -> int:
    """Read a size: '1000', '64k', '2m', '1g' (powers of 1024). Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,15})\s*([kmg]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write bytes, or 64k, 2m, 1g")
    return int(match[1]) << 10 * " kmg".index(match[2] or " ")


def _days(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", text.strip()):
        raise ValueError(f"{text!r} is not a number of days; write 30, or 0.5, or 0 to keep all")
    return float(text)


def _switch(text: str) -> bool:
    return _choice(text, "on", "off", "true", "false", "yes", "no", "1", "0") in ("on", "true", "yes", "1")


def _choice(text: str, *choices: str) -> str:
    if text.strip().lower() not in choices:
        raise ValueError(f"{text!r} is none of {', '.join(choices[:2])}")
    return text.strip().lower()


def _redaction(text: str) -> Redaction:
    names = frozenset(name.lower() for name in re.split(r"[,\s]+", text) if name)
    for name in names:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+", name):  # RFC 9110, 5.6.2: token
            raise ValueError(f"{name!r} is not the name of a header or a query parameter")
    return Redaction(names)
