"""The client programs that are tried, as data: how each is found, and how it makes one call.

Each asks for the list of models without an API key: that costs nothing, and is refused. A mark in the URL tells its
row from all others.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..java import find_jdks

MARK = "llm-calls-doctor"
SERVER = "https://api.openai.com/v1"
LOOK_SECONDS = 20.0
CALL_SECONDS = 20.0
BUILD_SECONDS = 60.0  # Go may have to build its library first

CLOSED = "if it gets its certificates in its code, give it those of SSL_CERT_FILE; else: llm-calls ca install"
PAST = "it does not follow HTTPS_PROXY: where its server can be set, use llm-calls start --reverse"


@dataclass(frozen=True)
class Probe:
    """A client and how it makes a call. words: its command line, <url> stands for what to ask for. source: the name and
    text of a file that is to be in its folder, <folder>. refused, bypassed: what to do then. seconds: its bound.
    """

    client: str
    words: tuple[str, ...]
    source: tuple[str, str] | None = None
    seconds: float = CALL_SECONDS
    refused: str = CLOSED
    bypassed: str = PAST

    @property
    def program(self) -> str:
        return self.words[0]

    def command(self, mark: str, folder: Path) -> list[str]:
        url = f"{SERVER}/models?{MARK}={mark}"
        return [word.replace("<url>", url).replace("<folder>", str(folder)) for word in self.words]


@dataclass(frozen=True)
class Unusable:
    """A program that is there and does not work."""

    program: str
    reason: str


# Python: library → what makes the call. The openai packages need a key that is not empty.
PYTHON = {
    "openai": """
import openai, sys
server, _, query = sys.argv[1].partition("/models?")
client = openai.OpenAI(api_key="none", base_url=server, max_retries=0, timeout=15)
try:
    client.models.list(extra_query=dict([query.split("=")]))
except openai.APIStatusError as error:
    print("status", error.status_code)
""",
    "requests": 'import requests, sys\nprint("status", requests.get(sys.argv[1], timeout=15).status_code)',
    "httpx": 'import httpx, sys\nprint("status", httpx.get(sys.argv[1], timeout=15).status_code)',
    "aiohttp": """
import aiohttp, asyncio, sys
async def call():
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(sys.argv[1]) as answer:
        print("status", answer.status)
asyncio.run(call())
""",
    "urllib": """
import sys, urllib.error, urllib.request
try:
    print("status", urllib.request.urlopen(sys.argv[1], timeout=15).status)
except urllib.error.HTTPError as error:
    print("status", error.code)
""",
}
TITLES = {"aiohttp": "aiohttp {} with trust_env=True (without, it bypasses every proxy)", "urllib": "urllib"}
PYTHON_LOOK = """
import json, platform, sys
try:
    from importlib.metadata import version
except ImportError:
    version = __import__
found = {"urllib": ""}
for name in sys.argv[1:]:
    try:
        found[name] = str(version(name))
    except Exception:
        pass
print(json.dumps([sys.prefix, platform.python_version(), found]))
"""

NODE = {
    "openai": """
const server = process.argv[1].split('/models?')[0], [name, mark] = process.argv[1].split('?')[1].split('=')
const made = require('openai'), OpenAI = made.default || made
new OpenAI({ apiKey: 'none', baseURL: server, maxRetries: 0, timeout: 15000 }).models.list({ query: { [name]: mark } })
  .catch(error => { if (!error.status) throw error; console.log('status', error.status) })
  .catch(error => { console.error(String(error.cause || error)); process.exit(1) })
""",
    "fetch": """
fetch(process.argv[1]).then(answer => console.log('status', answer.status))
  .catch(error => { console.error(String(error.cause || error)); process.exit(1) })
""",
    "https": """
require('https').get(process.argv[1], answer => { console.log('status', answer.statusCode); answer.resume() })
  .on('error', error => { console.error(String(error)); process.exit(1) })
""",
}
NODE_LOOK = """
let openai = ''
try { openai = require('openai/version').VERSION } catch {}
console.log(JSON.stringify([process.versions.node, openai, typeof fetch]))
"""

GO = """package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	answer, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("status", answer.StatusCode)
}
"""


def find(environ: Mapping[str, str], pythons: Iterable[str] = ()) -> tuple[list[Probe], list[Unusable]]:
    """The clients of this machine, by the PATH of an environment; pythons: further interpreters."""
    found = [*_pythons(environ, pythons), *_node(environ), *_others(environ)]
    return [each for each in found if isinstance(each, Probe)], [each for each in found if isinstance(each, Unusable)]


def _pythons(environ: Mapping[str, str], given: Iterable[str]) -> Iterable[Probe | Unusable]:
    path = environ.get("PATH")
    named = [*given, *filter(None, (shutil.which(name, path=path) for name in ("python", "python3")))]
    seen = set()
    for program in dict.fromkeys(named):
        libraries = [name for name in PYTHON if name != "urllib"]
        said, reason = _ask([program, "-c", PYTHON_LOOK, *libraries], environ)
        if reason:
            yield Unusable(program, reason)
            continue
        prefix, version, found = said
        if prefix in seen:
            continue  # one environment under two names
        seen.add(prefix)
        for name in PYTHON:
            if name in found:
                title = TITLES.get(name, name + " {}").format(found[name])
                yield Probe(f"Python {version}, {title}", (program, "-c", PYTHON[name], "<url>"))


def _node(environ: Mapping[str, str]) -> Iterable[Probe | Unusable]:
    program = shutil.which("node", path=environ.get("PATH"))
    if program is None:
        return
    said, reason = _ask([program, "-e", NODE_LOOK], environ)
    if reason:
        yield Unusable(program, reason)
        return
    version, openai, fetch = said
    for name, code in NODE.items():
        if (name == "openai" and not openai) or (name == "fetch" and fetch != "function"):
            continue
        title = f"openai {openai}" if name == "openai" else name
        yield Probe(f"Node {version}, {title}", (program, "-e", code, "<url>"))


def _others(environ: Mapping[str, str]) -> Iterable[Probe | Unusable]:
    path = environ.get("PATH")
    if curl := shutil.which("curl", path=path):
        yield Probe("curl", (curl, "-sS", "-o", os.devnull, "-w", "status %{http_code}\\n", "<url>"))
    if go := shutil.which("go", path=path):
        source = ("probe.go", GO)
        yield Probe("Go, net/http", (go, "run", f"<folder>/{source[0]}", "<url>"), source, BUILD_SECONDS)
    for jdk in find_jdks(environ, places=())[:1]:  # what `java` is here
        # every JVM has keytool, and it fetches a list of revoked certificates from where it is told
        yield Probe("Java, with `run --java` or `env --java`", (str(jdk.keytool), "-printcrl", "-file", "<url>"))


def _ask(command: list[str], environ: Mapping[str, str]) -> tuple[Any, str]:
    """What a program says of itself, as JSON, and why it does not."""
    try:
        done = subprocess.run(
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LOOK_SECONDS,
            check=True,
        )
        said = json.loads((done.stdout.strip().splitlines() or [b""])[-1])  # the user's own start-up files may print
        if not isinstance(said, list) or len(said) != 3:
            raise ValueError(f"it told {said!r} of itself")
        return said, ""
    except subprocess.TimeoutExpired:
        return None, f"it did not answer within {LOOK_SECONDS:.0f} s"
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        return None, lines[-1] if lines else f"it ended with status {error.returncode}"
    except (OSError, ValueError) as error:
        return None, str(error)
