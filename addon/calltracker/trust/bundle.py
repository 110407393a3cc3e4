"""Files of certificates for clients that take one file and forget all others: the user's own, the system's,
and our root.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import ssl
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from . import files
from .authority import Authority, previous_roots

# What clients read instead of their default, each holding the path of one PEM file.
REPLACING = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
# The same, but set for a child only where the user has set them: only patched or rare clients read them.
REPLACING_IF_SET = ("NIX_SSL_CERT_FILE", "HTTPLIB2_CA_CERTS")
# What clients read besides their default.
ADDING = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")

SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # macOS, BSD
)
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class Bundles:
    """combined: what the user trusts and our root; extra: what the user adds for Node or Deno and our root;
    upstream: what the user trusts without our root, for the proxy to verify OpenAI with (behind a company's
    TLS inspection this holds the company's certificate); notes: files that could not be read, a line each.
    """

    combined: Path
    extra: Path
    upstream: Path
    notes: tuple[str, ...]


def build(authority: Authority, environ: Mapping[str, str]) -> Bundles:
    """Write the bundles for this environment into the CA's folder; the same environment gives the same paths.

    Raises OSError.
    """
    notes: list[str] = []
    own = [root.public_bytes(Encoding.DER) for root in (authority.root, *previous_roots(authority.folder))]
    replacing = _of_user((*REPLACING, *REPLACING_IF_SET), environ, notes)
    adding = _of_user(ADDING, environ, notes)
    trusted = [der for der in _unique([*replacing, *adding, *_system()]) if der not in own]
    key = _key(environ)
    combined, extra, upstream = (authority.folder / f"{use}-{key}.pem" for use in ("bundle", "extra", "upstream"))
    files.write_if_changed(upstream, _pem(trusted), 0o644)
    files.write_if_changed(combined, _pem([*trusted, *own]), 0o644)
    files.write_if_changed(extra, _pem(_unique([*adding, *own])), 0o644)
    return Bundles(combined, extra, upstream, tuple(notes))


def delete(folder: Path) -> list[Path]:
    """Remove all bundles of a CA's folder; returns what was removed. Raises OSError."""
    found = [path for use in ("bundle", "extra", "upstream") for path in folder.glob(f"{use}-*.pem")]
    for path in found:
        path.unlink(missing_ok=True)
    return found


def _key(environ: Mapping[str, str]) -> str:
    names = (*REPLACING, *REPLACING_IF_SET, *ADDING, "SSL_CERT_DIR")
    paths = "\n".join(sorted({environ[name] for name in names if environ.get(name)}))
    return hashlib.sha256(paths.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _of_user(names: Iterable[str], environ: Mapping[str, str], notes: list[str]) -> list[bytes]:
    found: list[bytes] = []
    for name in names:
        if value := environ.get(name):
            found += _read(Path(value), name, notes)
    if "SSL_CERT_FILE" in names:
        for folder in filter(None, environ.get("SSL_CERT_DIR", "").split(":" if sys.platform != "win32" else ";")):
            # OpenSSL looks up hash.0, hash.1, …; the same certificates often lie there under other names as
            # well
            for path in sorted(Path(folder).glob("*.[0-9]")) if Path(folder).is_dir() else ():
                found += _read(path, "SSL_CERT_DIR", notes)
    return found


def _read(path: Path, variable: str, notes: list[str]) -> list[bytes]:
    try:
        certificates = _ders(path.read_bytes())
    except OSError as error:
        notes.append(f"{variable} names {path}, which cannot be read ({error.strerror}): left out")
        return []
    if not certificates:
        notes.append(f"{variable} names {path}, which holds no certificate: left out")
    return certificates


def _system() -> list[bytes]:
    found: list[bytes] = []
    default = ssl.get_default_verify_paths().openssl_cafile
    for name in dict.fromkeys((*SYSTEM_BUNDLES, default)):
        path = Path(name)
        if path.is_file():
            found += _ders(path.read_bytes())
            break
    if sys.platform == "win32":
        for store in ("ROOT", "CA"):
            found += [der for der, encoding, _ in ssl.enum_certificates(store) if encoding == "x509_asn"]
    elif sys.platform == "darwin":
        # what an administrator added (a company's inspecting proxy); Apple's own are in /etc/ssl/cert.pem
        command = ["security", "find-certificate", "-a", "-p", "/Library/Keychains/System.keychain"]
        found += _ders(subprocess.run(command, capture_output=True, timeout=30, check=False).stdout)
    return found + _ders(Path(certifi.where()).read_bytes())


def _ders(text: bytes) -> list[bytes]:
    found = []
    for body in _PEM.findall(text):
        try:
            found.append(base64.b64decode(body, validate=False))
        except binascii.Error:
            continue
    return found


def _unique(ders: Iterable[bytes]) -> list[bytes]:
    return list(dict.fromkeys(ders))


def _pem(ders: Iterable[bytes]) -> bytes:
    return b"".join(ssl.DER_cert_to_PEM_cert(der).encode() for der in ders)


def certificates(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file. Raises OSError, ValueError."""
    return x509.load_pem_x509_certificates(path.read_bytes())
