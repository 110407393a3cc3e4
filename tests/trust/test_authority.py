"""The CA vouches for the configured hosts, and no client believes it about anything else."""

from __future__ import annotations

import datetime
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from calltracker.trust import authority
from cryptography.hazmat.primitives import serialization
from e2e.harness import clean_environment

HOSTS = ["api.openai.com", "*.openai.azure.com"]
GOOD = ["api.openai.com", "mine.openai.azure.com"]
BAD = ["example.com", "evil-openai.com", "openai.com", "127.0.0.1", "::1"]


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> authority.Authority:
    return authority.ensure(tmp_path_factory.mktemp("ca") / "ca", HOSTS)


@contextmanager
def server(ca: authority.Authority, name: str, folder: Path) -> Iterator[int]:
    """A TLS server with a leaf for the name, which says ok to every request; its port."""
    key, chain = authority.sign_leaf(ca, name)
    pem = folder / "leaf.pem"
    pem.write_bytes(key + chain)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):  # the listener is closed at the end
            while True:
                plain, _ = listener.accept()
                plain.settimeout(20)
                with suppress(OSError), context.wrap_socket(plain, server_side=True) as secure:
                    secure.recv(65536)
                    secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)


def by_python(ca: authority.Authority, name: str, port: int, folder: Path) -> bool:
    context = ssl.create_default_context(cafile=ca.root_path)
    with socket.create_connection(("127.0.0.1", port), 20) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=name):
                return True
        except ssl.SSLCertVerificationError:
            return False


def by_curl(ca: authority.Authority, name: str, port: int, folder: Path) -> bool:
    host = f"[{name}]" if ":" in name else name
    done = program(
        folder,
        *("curl", "-sS", "--cacert", str(ca.root_path)),
        *("--connect-to", f"::127.0.0.1:{port}", f"https://{host}:{port}/"),
    )
    assert done.returncode in (0, 60), done.stderr
    return done.returncode == 0


NODE = """
const [root, name, port] = process.argv.slice(2), tls = require('tls'), net = require('net')
const options = { host: '127.0.0.1', port, ca: require('fs').readFileSync(root) }
if (net.isIP(name)) options.checkServerIdentity = (_, certificate) => tls.checkServerIdentity(name, certificate)
else options.servername = name
tls.connect(options, () => process.exit(0)).on('error', error => { console.error(error.code); process.exit(60) })
"""


def by_node(ca: authority.Authority, name: str, port: int, folder: Path) -> bool:
    (folder / "client.cjs").write_text(NODE)
    done = program(folder, "node", str(folder / "client.cjs"), str(ca.root_path), name, str(port))
    assert done.returncode in (0, 60), done.stderr
    return done.returncode == 0


JAVA = """
import javax.net.ssl.*; import java.net.*;
public class Client { public static void main(String[] given) throws Exception {
  Socket plain = new Socket("127.0.0.1", Integer.parseInt(given[1]));
  SSLSocketFactory factory = (SSLSocketFactory) SSLSocketFactory.getDefault();
  SSLSocket secure = (SSLSocket) factory.createSocket(plain, given[0], plain.getPort(), true);
  SSLParameters parameters = secure.getSSLParameters(); parameters.setEndpointIdentificationAlgorithm("HTTPS");
  secure.setSSLParameters(parameters);
  try { secure.startHandshake(); } catch (SSLHandshakeException refused) { System.exit(60); }
} }
"""


def by_java(ca: authority.Authority, name: str, port: int, folder: Path) -> bool:
    if shutil.which("javac") is None or shutil.which("keytool") is None:
        pytest.skip("no JDK is installed")
    store = folder / "trust.p12"
    (folder / "Client.java").write_text(JAVA)
    made = program(
        folder,
        *("keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", str(ca.root_path)),
        *("-storetype", "PKCS12", "-keystore", str(store), "-storepass", "changeit"),
    )
    assert made.returncode == 0, made.stdout
    options = [f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStorePassword=changeit"]
    done = program(folder, "java", *options, str(folder / "Client.java"), name, str(port))
    assert done.returncode in (0, 60), done.stderr
    return done.returncode == 0


def by_openssl(ca: authority.Authority, name: str, port: int, folder: Path) -> bool:
    chain = (folder / "leaf.pem").read_text()
    done = program(
        folder,
        *("openssl", "verify", "-no-CApath", "-no-CAstore", "-CAfile", str(ca.root_path)),
        *("-untrusted", str(folder / "leaf.pem"), str(folder / "leaf.pem")),
    )
    assert "BEGIN CERTIFICATE" in chain
    return done.returncode == 0


def program(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a client program; skips the test where it is not installed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    environment = clean_environment(folder / "home")
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


Client = Callable[[authority.Authority, str, int, Path], bool]
CLIENTS = [by_python, by_curl, by_node, by_java, by_openssl]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", [*GOOD, *BAD])
def test_only_configured_hosts_are_believed(ca: authority.Authority, client: Client, name: str, tmp_path: Path) -> None:
    with server(ca, name, tmp_path) as port:
        assert client(ca, name, port, tmp_path) is (name in GOOD)


def test_private_keys_are_private_and_the_roots_is_nowhere(ca: authority.Authority) -> None:
    assert ca.folder.stat().st_mode & 0o777 == 0o700
    assert (ca.folder / authority.CA_FILE).stat().st_mode & 0o777 == 0o600
    root_key = ca.root.public_key()
    for path in ca.folder.iterdir():
        if b"PRIVATE KEY" in path.read_bytes():
            key = serialization.load_pem_private_key(path.read_bytes(), None)
            assert key.public_key() == ca.issuing.public_key() != root_key


def test_a_ca_stays_while_it_covers_the_hosts_and_grows_when_it_does_not(tmp_path: Path) -> None:
    first = authority.ensure(tmp_path, HOSTS)
    assert authority.ensure(tmp_path, ["api.openai.com"]).fingerprint == first.fingerprint
    grown = authority.ensure(tmp_path, ["llm.example.org"])
    assert grown.fingerprint != first.fingerprint
    assert grown.covers(["llm.example.org", "api.openai.com"])
    assert "did not cover llm.example.org" in grown.notes[0]
    assert "need a new start" in grown.notes[1]


def test_a_key_of_another_certificate_is_found(tmp_path: Path) -> None:
    one, other = authority.ensure(tmp_path / "1", HOSTS), authority.ensure(tmp_path / "2", HOSTS)
    key = (other.folder / authority.CA_FILE).read_bytes().partition(b"-----BEGIN CERTIFICATE")[0]
    chain = (
        b"-----BEGIN CERTIFICATE"
        + (one.folder / authority.CA_FILE).read_bytes().partition(b"-----BEGIN CERT")[2][len(b"IFICATE") :]
    )
    (one.folder / authority.CA_FILE).write_bytes(key + chain)
    with pytest.raises(authority.AuthorityError, match="does not belong"):
        authority.read(one.folder)
    assert "made a new CA" in authority.ensure(one.folder, HOSTS).notes[0]


def test_the_end_of_validity_is_told_30_days_before(ca: authority.Authority) -> None:
    assert ca.warnings(ca.expires - datetime.timedelta(days=31)) == []
    assert "expires in 29 days" in ca.warnings(ca.expires - datetime.timedelta(days=29, hours=1))[0]
    assert "has expired" in ca.warnings(ca.expires)[0]


@pytest.mark.parametrize("hosts", [["*.com"], ["127.0.0.1"], []])
def test_a_ca_that_is_too_wide_or_for_nothing_is_refused(tmp_path: Path, hosts: list[str]) -> None:
    with pytest.raises(authority.AuthorityError):
        authority.ensure(tmp_path, hosts)
