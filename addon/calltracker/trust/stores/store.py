"""What all trust stores have in common, and how their programs are run."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..handshake import Client
from ..manifest import Entry

TIMEOUT = 300.0  # seconds: sudo may ask for a password


class StoreError(Exception):
    """A store could not be changed or read; one line that says why."""


class Runner(Protocol):
    """Runs the stores' programs. Tests put a recording one in its place."""

    def change(self, *command: str, root: bool = False) -> None:
        """Run a command that changes a store, through sudo where `root` is needed and missing. Raises StoreError."""

    def ask(self, *command: str) -> tuple[int, str]:
        """Run a command that only reads; its exit status (127: not there) and what it printed."""


@dataclass(frozen=True)
class RealRunner:
    """Runs the commands; with dry_run, tells those that would change something instead."""

    tell: Callable[[str], None]
    dry_run: bool = False

    def change(self, *command: str, root: bool = False) -> None:
        words = ("sudo", *command) if root and os.name == "posix" and os.geteuid() != 0 else command
        if self.dry_run:
            self.tell(shlex.join(words))
            return
        if shutil.which(words[0]) is None:
            raise StoreError(f"{words[0]} is not installed; by hand: {shlex.join(command)}")
        try:
            done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StoreError(f"{shlex.join(words)}: {error}") from error
        if done.returncode:
            said = done.stdout.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"]
            raise StoreError(f"{shlex.join(words)}: {said[-1]}")

    def ask(self, *command: str) -> tuple[int, str]:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=60,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return 127, str(error)
        return done.returncode, done.stdout.decode(errors="replace")


class Store(Protocol):
    """A kind of trust store.

    An entry's `place` is one of `places()`; its `name` carries the fingerprint. certificate: a PEM file of the
    entry's certificate. All verbs may be repeated; they raise StoreError.
    """

    @property
    def name(self) -> str: ...

    def places(self) -> list[str]:
        """Where this machine and user have such a store; none: this kind is not here."""

    def install(self, entry: Entry, certificate: Path, runner: Runner) -> None: ...

    def uninstall(self, entry: Entry, certificate: Path, runner: Runner) -> None: ...

    def holds(self, entry: Entry, certificate: Path, runner: Runner) -> bool: ...

    def client(self, entry: Entry) -> Client | None:
        """A program of this machine that trusts what this very store holds; None where there is none."""
        ...


def first(*clients: Client) -> Client | None:
    """The first of these whose program is on this machine, with its path."""
    for client in clients:
        if found := shutil.which(client.program):
            return Client((found, *client.words[1:]))
    return None


def openssl(folder: str = "/usr/bin/") -> Client:
    """OpenSSL with its own default certificates: those of the system, where it is the system's OpenSSL."""
    return Client(
        (
            *(f"{folder}openssl", "s_client", "-connect", "127.0.0.1:<port>", "-servername", "<name>"),
            *("-verify_hostname", "<name>", "-verify_return_error", "-quiet"),
        )
    )


def curl(program: str, *more: str) -> Client:
    """A curl with its own default certificates."""
    return Client((program, "-q", *more, "--noproxy", "*", "--connect-to", "::127.0.0.1:<port>", "https://<name>/"))
