"""The certificate authority that the proxy signs with: it can vouch for the configured hosts and for nothing
else.

A root whose private key is never written anywhere, and under it an issuing certificate with which mitmproxy
signs. Both carry the same critical name constraints (RFC 5280, 4.2.1.10): the DNS names of the configured
hosts are permitted, every IP address is excluded. The two levels are needed because some clients (Java 17)
apply no constraint that stands in the trust anchor itself. Whoever steals the folder can therefore
impersonate those hosts, to those who trust this root, and no others.

The folder is a `confdir` of mitmproxy. `mitmproxy-ca.pem` (issuing key, issuing certificate, root) is the
truth; the other files are made from it. After these, it holds the certificates of the CAs before: a proxy that
runs goes on signing with the one that it began with, and completes each chain from this file as it is then.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..capture.hosts import parse_host
from ..paths import make_private
from . import files
from .manifest import Manifest

CA_FILE = "mitmproxy-ca.pem"
ROOT_FILE = "mitmproxy-ca-cert.pem"
PREVIOUS_FILE = "previous-roots.pem"
OWN = "llm-calls-"  # how the names of our CAs begin
KEPT = 4  # CAs before, for what still runs with them
LIFE = datetime.timedelta(days=730)
WARN_BEFORE = datetime.timedelta(days=30)
CLOCK_SKEW = datetime.timedelta(days=2)
# Top-level names that nobody can register (RFC 6761, RFC 6762 appendix G): a subtree as wide as one
# of these is still the user's own network.
PRIVATE_SUFFIXES = frozenset(
    [
        "corp",
        "example",
        "home",
        "internal",
        "intranet",
        "invalid",
        "lan",
        "local",
        "localdomain",
        "localhost",
        "private",
        "test",
    ]
)


class AuthorityError(Exception):
    """What is wrong with a CA folder or a list of hosts, and what to do, in one line."""


@dataclass(frozen=True)
class Authority:
    """A CA as it lies in its folder.

    permitted: the DNS subtrees (without leading dot, each covering its subdomains) that the CA can vouch for,
    None if it is not limited (mitmproxy's own CA). notes: what `ensure` did that the user has to know, a line
    each.
    """

    folder: Path
    root: x509.Certificate
    issuing: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    permitted: tuple[str, ...] | None
    notes: tuple[str, ...] = ()

    @property
    def root_path(self) -> Path:
        """The root alone, as PEM: what clients have to trust."""
        return self.folder / ROOT_FILE

    @property
    def root_pem(self) -> bytes:
        return self.root.public_bytes(Encoding.PEM)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the root's DER, in lower-case hexadecimal."""
        return self.root.fingerprint(hashes.SHA256()).hex()

    @property
    def name(self) -> str:
        """The name under which stores list the root: no two CAs share it."""
        return f"{'mitmproxy-' if self.permitted is None else OWN}{self.fingerprint[:8]}"

    @property
    def expires(self) -> datetime.datetime:
        return min(self.root.not_valid_after_utc, self.issuing.not_valid_after_utc)

    def warnings(self, now: datetime.datetime | None = None) -> list[str]:
        """What the user should be told: the notes of `ensure`, and an end of validity within the next 30
        days.
        """
        lines = list(self.notes)
        left = self.expires - (now or _now())
        if left <= datetime.timedelta(0):
            lines.append(f"the CA {self.name} has expired: make a new one with `llm-calls ca rotate`")
        elif left <= WARN_BEFORE:
            lines.append(
                f"the CA {self.name} expires in {left.days} days ({self.expires:%Y-%m-%d}): "
                "make a new one with `llm-calls ca rotate`"
            )
        return lines

    def covers(self, names: Iterable[str]) -> bool:
        """Whether the CA can vouch for all of these DNS names."""
        return self.permitted is None or all(_within(name, self.permitted) for name in names)


def dns_names(patterns: Iterable[str]) -> tuple[str, ...]:
    """The DNS subtrees that host patterns (see capture.hosts) need: the fewest, in order.

    IP addresses give none, since a certificate of this CA can never name one (plain http and reverse mode
    serve those). Raises AuthorityError for a pattern that is none, and for a wildcard under which anybody can
    register (`*.com`).
    """
    names: set[str] = set()
    for word in patterns:
        try:
            pattern = parse_host(word)
        except ValueError as error:
            raise AuthorityError(str(error)) from error
        if pattern.subdomains and "." not in pattern.name and pattern.name not in PRIVATE_SUFFIXES:
            raise AuthorityError(f"the host pattern {word!r} is too wide for a CA: name the domains one by one")
        if not _is_address(pattern.name):
            names.add(pattern.name)
    return tuple(sorted(name for name in names if not _within(name, names - {name})))


def ensure(folder: Path, hosts: Sequence[str]) -> Authority:
    """The CA of the folder, made or made anew where that is needed; safe to call from several processes at
    once.

    A CA is made when there is none, and made anew when a host is not covered, when key and certificate do not
    belong together, when a file is damaged, when it has expired, or when it soon will and no trust store
    holds it. `notes` tells which, and what follows. Raises AuthorityError when the folder cannot be used or a
    host cannot be had.
    """
    needed = dns_names(hosts)
    with _locked(folder):
        try:
            current = read(folder)
        except FileNotFoundError:
            return _create(folder, needed, None, ())
        except AuthorityError as error:
            return _create(folder, needed, None, (f"{error}; made a new CA", *_consequences(folder)))
        reason, permitted = _why_anew(current, needed)
        if reason is None:
            _write_public_files(current)
            return current
        return _create(folder, permitted, current, (f"{reason}: made a new CA", *_consequences(folder)))


def rotate(folder: Path, hosts: Sequence[str]) -> Authority:
    """A new CA for exactly these hosts in place of the folder's. Raises AuthorityError."""
    needed = dns_names(hosts)
    with _locked(folder):
        try:
            current: Authority | None = read(folder)
        except (FileNotFoundError, AuthorityError):
            current = None
        return _create(folder, needed, current, _consequences(folder))


def read(folder: Path) -> Authority:
    """The CA that lies in a confdir, ours or mitmproxy's own.

    Raises FileNotFoundError where there is none, AuthorityError where it is damaged or its key does not
    belong to its certificate (mitmproxy itself would accept that and then fail with every client).
    """
    path = folder / CA_FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise AuthorityError(f"the CA {path} cannot be read ({error.strerror})") from error
    try:
        key = serialization.load_pem_private_key(text, password=None)
        chain = x509.load_pem_x509_certificates(text)
    except (ValueError, TypeError) as error:
        raise AuthorityError(f"the CA {path} is damaged ({str(error).splitlines()[0]})") from error
    issuing, root = chain[0], chain[:2][-1]  # mitmproxy's own CA is one certificate
    if key.public_key() != issuing.public_key():
        raise AuthorityError(f"the key in {path} does not belong to its certificate")
    try:
        issuing.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise AuthorityError(f"the certificates in {path} do not form a chain") from error
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise AuthorityError(f"the key in {path} is of a kind that mitmproxy cannot sign with: use P-256 or RSA")
    return Authority(folder, root, issuing, key, _permitted(issuing))


def delete(folder: Path) -> list[Path]:
    """Remove the CA's files (not the folder's others), the key first; returns what was removed. Raises
    OSError.
    """
    removed = []
    for name in (CA_FILE, ROOT_FILE, *_DERIVED, PREVIOUS_FILE, "mitmproxy-dhparam.pem"):
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
            removed.append(folder / name)
    return removed


def sign_leaf(authority: Authority, name: str) -> tuple[bytes, bytes]:
    """A key and a chain (both PEM) for a DNS name or an IP address, valid for a day: to try a client's trust
    with.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    alternative: x509.GeneralName = (
        x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name)
    )
    leaf = (
        _builder(name, authority.issuing.subject, key.public_key(), datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_authority_key_id(authority.issuing), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    chain = [leaf] if authority.issuing == authority.root else [leaf, authority.issuing]
    return _key_pem(key), b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)


# ── making ────────────────────────────────────────────────────────────────────────────────────────


def _create(folder: Path, names: tuple[str, ...], before: Authority | None, notes: tuple[str, ...]) -> Authority:
    if not names:
        raise AuthorityError("no host with a DNS name is configured: a CA has nothing to vouch for")
    root_key, issuing_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _certificate("llm-calls root", 1, names, root_key.public_key(), None, root_key)
    issuing = _certificate("llm-calls proxy", 0, names, issuing_key.public_key(), root, root_key)
    authority = Authority(folder, root, issuing, issuing_key, names, notes)
    if before is not None:
        _remember(folder, before.root)
    certificates = [issuing, root, *_chain_before(folder)]
    chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
    try:
        files.write(folder / CA_FILE, _key_pem(issuing_key) + chain, 0o600)
    except OSError as error:
        raise AuthorityError(f"the CA cannot be written to {folder} ({error.strerror})") from error
    _write_public_files(authority)
    return authority


def _certificate(
    common_name: str,
    path_length: int,
    names: tuple[str, ...],
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate | None,
    signing_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject_key_id = x509.SubjectKeyIdentifier.from_public_key(public_key)
    common_name += (
        f" {subject_key_id.digest[:4].hex()}"  # clients that look an issuer up by its name find the right one
    )
    issuer_key_id = (
        _authority_key_id(issuer)
        if issuer
        else x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key_id)
    )
    constraints = x509.NameConstraints(
        permitted_subtrees=[x509.DNSName(name) for name in names],
        excluded_subtrees=[
            x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")),
            x509.IPAddress(ipaddress.ip_network("::/0")),
        ],
    )
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _builder(common_name, issuer.subject if issuer else None, public_key, LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(subject_key_id, critical=False)
        .add_extension(issuer_key_id, critical=False)
        .add_extension(constraints, critical=True)
        .sign(signing_key, hashes.SHA256())
    )


def _builder(
    common_name: str,
    issuer: x509.Name | None,
    public_key: ec.EllipticCurvePublicKey,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "llm-calls (this machine only)"),
        ]
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - CLOCK_SKEW)
        .not_valid_after(_now() + life)
    )


def _authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption())


def _write_public_files(authority: Authority) -> None:
    """The root in the forms that mitmproxy's own onboarding page (mitm.it) offers; written only where they
    differ.
    """
    root = authority.root
    forms = {ROOT_FILE: authority.root_pem, "mitmproxy-ca-cert.cer": authority.root_pem}
    for name, data in forms.items():
        files.write_if_changed(authority.folder / name, data, 0o644)
    bag = authority.folder / "mitmproxy-ca-cert.p12"  # salted: cannot be compared with what would be written
    if not bag.exists() or bag.stat().st_mtime < (authority.folder / CA_FILE).stat().st_mtime:
        files.write(
            bag,
            pkcs12.serialize_key_and_certificates(None, None, None, [root], serialization.NoEncryption()),
            0o644,
        )


_DERIVED = ("mitmproxy-ca-cert.cer", "mitmproxy-ca-cert.p12")


def _remember(folder: Path, root: x509.Certificate) -> None:
    """Keep a replaced root for the children of a proxy that still signs with it; its key is gone, so it can
    sign nothing.
    """
    path = folder / PREVIOUS_FILE
    kept = previous_roots(folder)
    if root not in kept:
        kept.append(root)
    files.write(path, b"".join(certificate.public_bytes(Encoding.PEM) for certificate in kept[-KEPT:]), 0o644)


def _chain_before(folder: Path) -> list[x509.Certificate]:
    """The certificates of the file that is about to be replaced, without those that have expired."""
    try:
        certificates = x509.load_pem_x509_certificates((folder / CA_FILE).read_bytes())
    except (OSError, ValueError):
        return []
    return [certificate for certificate in certificates if certificate.not_valid_after_utc > _now()][: 2 * KEPT]


def previous_roots(folder: Path) -> list[x509.Certificate]:
    """Roots that were replaced and have not expired."""
    try:
        certificates = x509.load_pem_x509_certificates((folder / PREVIOUS_FILE).read_bytes())
    except (OSError, ValueError):
        return []
    return [certificate for certificate in certificates if certificate.not_valid_after_utc > _now()]


# ── judging ───────────────────────────────────────────────────────────────────────────────────────


def _why_anew(current: Authority, needed: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Why the CA has to be replaced (None: it need not be) and the names of the next one.

    The next one keeps the names of the last, so that two shells with different lists of hosts do not replace
    each other's CA for ever; `rotate` narrows.
    """
    held = current.permitted or ()
    if current.permitted is None:
        return "the CA was not limited to the configured hosts", needed
    missing = [name for name in needed if not _within(name, held)]
    if missing:
        return f"the CA did not cover {', '.join(missing)}", dns_names([*held, *needed])
    left = current.expires - _now()
    if left <= datetime.timedelta(0):
        return f"the CA expired on {current.expires:%Y-%m-%d}", held
    if left <= WARN_BEFORE and not _installed(current.folder):
        return f"the CA would have expired on {current.expires:%Y-%m-%d}", held
    return None, held


def _installed(folder: Path) -> bool:
    return bool(Manifest.read(folder).entries)


def _consequences(folder: Path) -> tuple[str, ...]:
    lines = [
        "a proxy that runs keeps the old one until its next start; apps that were started before need a new start then "
        "(`llm-calls run`, or `llm-calls env` again)"
    ]
    if _installed(folder):
        lines.append("trust stores still hold the old one: `llm-calls ca install` puts the new one in its place")
    return tuple(lines)


def _permitted(issuing: x509.Certificate) -> tuple[str, ...] | None:
    try:
        constraints = issuing.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None
    subtrees = constraints.permitted_subtrees or ()
    return tuple(name.value for name in subtrees if isinstance(name, x509.DNSName))


def _within(name: str, subtrees: Iterable[str]) -> bool:
    return any(name == subtree or name.endswith("." + subtree) for subtree in subtrees)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        make_private(folder)
        if os.name == "posix" and folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
        with filelock.FileLock(folder / ".lock", timeout=30):
            yield
    except filelock.Timeout as error:
        raise AuthorityError(
            f"another program has held {folder / '.lock'} for 30 s: end it, or remove the file"
        ) from error
    except OSError as error:
        raise AuthorityError(
            f"the CA's folder {folder} cannot be used ({error.strerror}): set LLM_CALLS_HOME to one of yours"
        ) from error
