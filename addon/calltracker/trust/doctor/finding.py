"""One thing that doctor found."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.StrEnum):
    """OK: as it should be. NOTE: worth knowing, nothing is wrong. PROBLEM: calls are lost, or fail, or wait."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """section: what it is about. text: what was found. advice: what to do about it, empty for nothing."""

    section: str
    level: Level
    text: str
    advice: str = ""


class Verdict(enum.StrEnum):
    """What became of a client's call.

    CAPTURED: there is its row. BYPASSED: it never came to the proxy. REFUSED: it came, and broke off. MISSED: it was
    answered through the proxy, and no row came. UNTRIED: the client could not make one.
    """

    CAPTURED = "captured"
    BYPASSED = "bypassed"
    REFUSED = "refused"
    MISSED = "missed"
    UNTRIED = "untried"


@dataclass(frozen=True)
class Trial:
    """A client and what became of its call. detail: what the client said, where it was not captured."""

    client: str
    program: str
    verdict: Verdict
    detail: str = ""
    advice: str = ""

    @property
    def well(self) -> bool:
        return self.verdict in (Verdict.CAPTURED, Verdict.UNTRIED)
