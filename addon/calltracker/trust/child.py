"""The environment that makes a program send its TLS connections through the proxy and trust the proxy's CA.

Pure: what the environment was goes in, what has to change comes out. There is one variable or more for each
family of clients, because no two agree; see the table of clients in the README.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..capture.hosts import HostPattern
from .bundle import REPLACING, REPLACING_IF_SET, Bundles

PRELOAD = Path(__file__).with_name("preload.cjs")
# Never the bracketed [::1]: httpx 0.25 to 0.28 raises InvalidURL for it.
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Tells a nested `run` that its proxy is one of ours, so that it adds no second one behind it.
MARK = "LLM_CALLS_PROXY"


@dataclass(frozen=True)
class Changes:
    """What to set and what to unset in an environment, and what the user should be told, a line each."""

    set: dict[str, str]
    unset: tuple[str, ...]
    notes: tuple[str, ...]

    def applied_to(self, environ: Mapping[str, str]) -> dict[str, str]:
        return {**{name: value for name, value in environ.items() if name not in self.unset}, **self.set}


@dataclass(frozen=True)
class Java:
    """A trust store for JVMs: the JDK's certificates and our root. No JVM reads any of the other variables."""

    trust_store: Path
    password: str


def changes(
    environ: Mapping[str, str],
    proxy: tuple[str, int],
    bundles: Bundles,
    hosts: Sequence[HostPattern],
    *,
    java: Java | None = None,
    plain_http: bool = False,
) -> Changes:
    """The changes that route a program started with `environ` through the proxy at (host, port).

    hosts: those whose calls are wanted; an inherited NO_PROXY loses the entries that would bypass one.
    plain_http sends unencrypted requests through the proxy too, for compatible servers without TLS.
    """
    address, port = proxy
    url = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
    kept, dropped = no_proxy(environ, hosts)
    notes = [*bundles.notes]
    if dropped:
        notes.append(f"NO_PROXY held {', '.join(dropped)}: taken out for this program, or its calls would not be seen")
    for name in ("ALL_PROXY", "all_proxy"):
        if environ.get(name, "").lower().startswith("socks"):
            notes.append(
                f"{name}={environ[name]}: OpenAI's Python package fails with it where `socksio` is missing; unset it"
            )
            break
    combined = str(bundles.combined)
    values = {
        MARK: url,
        "HTTPS_PROXY": url,
        "https_proxy": url,
        "NO_PROXY": ",".join(kept),
        "no_proxy": ",".join(kept),
        **dict.fromkeys(REPLACING, combined),
        **{name: combined for name in REPLACING_IF_SET if environ.get(name)},
        "NODE_EXTRA_CA_CERTS": str(bundles.extra),
        "DENO_CERT": str(bundles.extra),
        "NODE_USE_ENV_PROXY": "1",
        "NODE_OPTIONS": _appended(environ.get("NODE_OPTIONS"), f"--require={_node_quoted(PRELOAD)}"),
    }
    if plain_http:
        values |= {"HTTP_PROXY": url, "http_proxy": url}
    if java is not None:
        options = (
            f"-Dhttps.proxyHost={address}",
            f"-Dhttps.proxyPort={port}",
            f"-Dhttp.nonProxyHosts={'|'.join(_java_non_proxy(kept))}",
            f"-Djavax.net.ssl.trustStore={java.trust_store}",
            f"-Djavax.net.ssl.trustStorePassword={java.password}",
        )
        current = environ.get("JAVA_TOOL_OPTIONS")
        for option in options:
            current = _appended(current, _java_quoted(option))
        values["JAVA_TOOL_OPTIONS"] = current or ""
    unset = tuple(name for name in ("SSL_CERT_DIR",) if name in environ)  # its certificates are in the bundle
    return Changes(values, unset, tuple(notes))


def no_proxy(environ: Mapping[str, str], hosts: Sequence[HostPattern]) -> tuple[list[str], list[str]]:
    """The entries of NO_PROXY to keep (loopback added, unless a wanted host is on it), and those that were
    taken out.
    """
    given: list[str] = []
    for name in ("no_proxy", "NO_PROXY"):
        given += re.split(r"[,\s]+", environ.get(name, ""))
    entries = [
        entry.strip("[]") if entry.startswith("[") and entry.endswith("]") else entry for entry in given if entry
    ]
    dropped = [entry for entry in entries if any(_bypasses(entry, host) for host in hosts)]
    kept = [entry for entry in (*entries, *LOOPBACK) if not any(_bypasses(entry, host) for host in hosts)]
    return list(dict.fromkeys(kept)), list(dict.fromkeys(dropped))


def _bypasses(entry: str, host: HostPattern) -> bool:
    """Whether a client would leave out the proxy for this host, or for one of a pattern's, by any client's
    reading.
    """
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host.name) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        pass
    name = re.sub(r":\d+$", "", entry.lower()).removeprefix("*").removeprefix(".").removesuffix(".")
    if not name:
        return False
    return host.name == name or host.name.endswith("." + name) or (host.subdomains and name.endswith("." + host.name))


def _appended(value: str | None, addition: str) -> str:
    if not value or not value.strip():
        return addition
    return value if addition in value else f"{value} {addition}"


def _node_quoted(path: Path) -> str:
    """NODE_OPTIONS splits at blanks; within double quotes a backslash escapes."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _java_quoted(option: str) -> str:
    """JAVA_TOOL_OPTIONS splits at blanks, except within quotes of either kind."""
    return f'"{option}"' if re.search(r"\s", option) else option


def _java_non_proxy(entries: Iterable[str]) -> list[str]:
    """http.nonProxyHosts in Java's words: `|` between, `*` as wildcard, IPv6 addresses in brackets."""
    words = []
    for entry in entries:
        if "/" in entry:
            continue
        if entry.startswith("."):
            words += [entry[1:], "*" + entry]
        else:
            words.append(f"[{entry}]" if entry.count(":") > 1 else entry)
    return words
