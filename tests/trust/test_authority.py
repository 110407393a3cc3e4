"""The CA vouches for the configured hosts, and no client believes it about anything else."""

from __future__ import annotations

import datetime
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from calltracker.trust import authority
from cryptography.hazmat.primitives import serialization
from e2e.harness import clean_environment
from trust.servers import server

HOSTS = ["api.openai.com", "*.openai.azure.com"]
GOOD = ["api.openai.com", "mine.openai.azure.com"]
BAD = ["example.com", "evil-openai.com", "openai.com", "127.0.0.1", "::1"]


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> authority.Authority:
    return authority.ensure(tmp_path_factory.mktemp("ca") / "ca", HOSTS)


@pytest.fixture(scope="module")
def ports(ca: authority.Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """For each name, the port of a server with a leaf for it, which the CA has signed."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(server(ca, name, tmp_path_factory.mktemp("leaf"))) for name in (*GOOD, *BAD)}


# Each client, given name → port, tells which of the names it believes.


def by_python(ca: authority.Authority, ports: dict[str, int], folder: Path) -> set[str]:
    context = ssl.create_default_context(cafile=ca.root_path)
    believed = set()
    for name, port in ports.items():
        with socket.create_connection(("127.0.0.1", port), 20) as plain, suppress(ssl.SSLCertVerificationError):
            context.wrap_socket(plain, server_hostname=name).close()
            believed.add(name)
    return believed


def by_curl(ca: authority.Authority, ports: dict[str, int], folder: Path) -> set[str]:
    believed = set()
    for name, port in ports.items():
        host = f"[{name}]" if ":" in name else name
        done = program(
            folder,
            *("curl", "-sS", "--cacert", str(ca.root_path)),
            *("--connect-to", f"::127.0.0.1:{port}", f"https://{host}:{port}/"),
        )
        assert done.returncode in (0, 60), done.stderr
        believed |= {name} if done.returncode == 0 else set()
    return believed


NODE = """
const [root, ...pairs] = process.argv.slice(2), tls = require('tls'), net = require('net')
for (const pair of pairs) {
  const [name, port] = pair.split('=')
  const options = { host: '127.0.0.1', port, ca: require('fs').readFileSync(root) }
  if (net.isIP(name)) options.checkServerIdentity = (_, certificate) => tls.checkServerIdentity(name, certificate)
  else options.servername = name
  const socket = tls.connect(options, () => { console.log('believed', name); socket.end() })
  socket.on('error', error => console.log('refused', name, error.code))
}
"""


def by_node(ca: authority.Authority, ports: dict[str, int], folder: Path) -> set[str]:
    (folder / "client.cjs").write_text(NODE)
    return told(program(folder, "node", str(folder / "client.cjs"), str(ca.root_path), *pairs(ports)), ports)


JAVA = """
import javax.net.ssl.*; import java.net.*;
public class Client { public static void main(String[] given) throws Exception {
  for (String pair : given) {
    String name = pair.split("=")[0];
    Socket plain = new Socket("127.0.0.1", Integer.parseInt(pair.split("=")[1]));
    SSLSocketFactory factory = (SSLSocketFactory) SSLSocketFactory.getDefault();
    SSLSocket secure = (SSLSocket) factory.createSocket(plain, name, plain.getPort(), true);
    SSLParameters parameters = secure.getSSLParameters(); parameters.setEndpointIdentificationAlgorithm("HTTPS");
    secure.setSSLParameters(parameters);
    try { secure.startHandshake(); System.out.println("believed " + name); secure.close(); }
    catch (SSLHandshakeException refused) { System.out.println("refused " + name + " " + refused.getMessage()); }
  }
} }
"""


def by_java(ca: authority.Authority, ports: dict[str, int], folder: Path) -> set[str]:
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
    return told(program(folder, "java", *options, str(folder / "Client.java"), *pairs(ports)), ports)


def by_openssl(ca: authority.Authority, ports: dict[str, int], folder: Path) -> set[str]:
    believed = set()
    for name in ports:
        leaf = folder / "leaf.pem"
        leaf.write_bytes(authority.sign_leaf(ca, name)[1])
        options = ("-no-CApath", "-no-CAstore", "-CAfile", str(ca.root_path), "-untrusted", str(leaf))
        if program(folder, "openssl", "verify", *options, str(leaf)).returncode == 0:
            believed.add(name)
    return believed


def pairs(ports: dict[str, int]) -> list[str]:
    return [f"{name}={port}" for name, port in ports.items()]


def told(done: subprocess.CompletedProcess[str], ports: dict[str, int]) -> set[str]:
    """The names that a program said it believes; it must have told of every one."""
    words = [line.split()[:2] for line in done.stdout.splitlines()]
    assert {name for _, name in words} == set(ports), done.stdout + done.stderr
    return {name for word, name in words if word == "believed"}


def program(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a client program; skips the test where it is not installed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    environment = clean_environment(folder / "home")
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("client", [by_python, by_curl, by_node, by_java, by_openssl])
def test_only_configured_hosts_are_believed(
    ca: authority.Authority,
    ports: dict[str, int],
    client: Callable[[authority.Authority, dict[str, int], Path], set[str]],
    tmp_path: Path,
) -> None:
    assert client(ca, ports, tmp_path) == set(GOOD)


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
