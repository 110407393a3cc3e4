"""The machine's Java installations: where their keystores are, and a trust store of one's own for a child's
JVMs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .authority import Authority
from .child import Java

PASSWORD = "changeit"  # that of every JDK's cacerts: it guards nothing but against damage
TIMEOUT = 60.0
STORES = "java-*.keystore"
PLACES = (
    "/usr/lib/jvm/*",
    "/usr/java/*",
    "/opt/java/*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "~/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "~/.sdkman/candidates/java/*",
    "~/.jdks/*",
    "C:/Program Files/Java/*",
    "C:/Program Files/Eclipse Adoptium/*",
)


class JavaError(Exception):
    """No trust store for Java can be made; one line that says why."""


@dataclass(frozen=True)
class Jdk:
    """One Java installation. keystore: its cacerts, links resolved (Debian's JDKs share one)."""

    home: Path
    keystore: Path

    @property
    def keytool(self) -> Path:
        return self.home / "bin" / ("keytool.exe" if os.name == "nt" else "keytool")

    @property
    def java(self) -> Path:
        return self.keytool.with_name("java.exe" if os.name == "nt" else "java")


def find_jdks(environ: Mapping[str, str], places: tuple[str, ...] = PLACES) -> list[Jdk]:
    """The installations that can be used, that of JAVA_HOME first, then that of PATH; a JAVA_HOME that is
    none is left out.
    """
    homes: list[Path] = []
    if environ.get("JAVA_HOME"):
        homes.append(Path(environ["JAVA_HOME"]))
    if found := shutil.which("java", path=environ.get("PATH")):
        homes.append(Path(found).resolve().parent.parent)
    for place in places:
        pattern = Path(place).expanduser()
        homes += sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    jdks: dict[Path, Jdk] = {}
    for home in homes:
        for relative in ("lib/security/cacerts", "jre/lib/security/cacerts"):
            keystore = home / relative
            jdk = Jdk(home.resolve(), keystore.resolve())
            if keystore.is_file() and jdk.keytool.is_file():
                jdks.setdefault(jdk.home, jdk)
    return list(jdks.values())


def trust_for_child(authority: Authority, environ: Mapping[str, str] | None = None) -> Java:
    """A copy of the first JDK's certificates with our root, in the CA's folder. Raises JavaError."""
    jdks = find_jdks(os.environ if environ is None else environ)
    if not jdks:
        raise JavaError("no Java with a keytool is found: set JAVA_HOME to one, or leave --java out")
    jdk = jdks[0]
    original = jdk.keystore.read_bytes()
    key = hashlib.sha256(original + authority.root_pem).hexdigest()[:8]
    target = authority.folder / f"java-{key}.keystore"
    if target.exists():
        return Java(target, PASSWORD)
    with tempfile.TemporaryDirectory(dir=authority.folder) as folder:
        copy = Path(folder) / "keystore"
        copy.write_bytes(original)
        command = [
            *(str(jdk.keytool), "-importcert", "-noprompt", "-alias", authority.name),
            *("-file", str(authority.root_path), "-keystore", str(copy), "-storepass", PASSWORD),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT, check=False, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise JavaError(f"{jdk.keytool} does not work ({error}): set JAVA_HOME to another Java") from error
        if done.returncode:
            words = (done.stdout + done.stderr).strip().split("\n")[-1]
            raise JavaError(f"{jdk.keytool} could not add the CA to a copy of {jdk.keystore}: {words}")
        copy.chmod(0o644)
        copy.replace(target)
    delete(authority.folder, but=target)
    return Java(target, PASSWORD)


def delete(folder: Path, but: Path | None = None) -> list[Path]:
    """Remove the trust stores that were made for children, except for one; returns what was removed. Raises OSError."""
    found = [path for path in folder.glob(STORES) if path != but]
    for path in found:
        path.unlink(missing_ok=True)
    return found
