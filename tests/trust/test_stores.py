"""Trust stores: the exact commands of each, and real ones where this machine can have them in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from calltracker.trust import authority
from calltracker.trust.handshake import Client, trusts
from calltracker.trust.java import find_jdks
from calltracker.trust.manifest import Entry
from calltracker.trust.stores import STORES, proof, store
from e2e.harness import clean_environment
from mitmproxy import certs
from trust.command import LLM_CALLS, source_path

CERTIFICATE = Path("/ca/root.pem")
FILE = "llm-calls-0123abcd"


class Recording:
    """A runner that runs nothing; `answer` is the exit status of what only asks."""

    def __init__(self, answer: int) -> None:
        self.answer = answer
        self.commands: list[str] = []

    def change(self, *command: str, root: bool = False) -> None:
        self.commands.append(("root: " if root else "") + " ".join(command))

    def ask(self, *command: str) -> tuple[int, str]:
        return self.answer, ""


ADDED = f"/usr/local/share/ca-certificates/{FILE}.crt"
FEDORA = f"/etc/pki/ca-trust/source/anchors/{FILE}.pem"
SUSE = f"/etc/pki/trust/anchors/{FILE}.pem"
LOGIN, SYSTEM = "/home/me/login.keychain-db", "/Library/Keychains/System.keychain"
EXPECTED = {
    "debian": (
        "/usr/local/share/ca-certificates",
        [f"root: install -D -m 0644 {CERTIFICATE} {ADDED}", "root: update-ca-certificates"],
        [f"root: rm -f {ADDED}", "root: update-ca-certificates --fresh"],
    ),
    "alpine": (
        "/usr/local/share/ca-certificates",
        [f"root: install -D -m 0644 {CERTIFICATE} {ADDED}", "root: update-ca-certificates"],
        [f"root: rm -f {ADDED}", "root: update-ca-certificates"],
    ),
    "fedora": (
        "/etc/pki/ca-trust/source/anchors",
        [f"root: install -D -m 0644 {CERTIFICATE} {FEDORA}", "root: update-ca-trust"],
        [f"root: rm -f {FEDORA}", "root: update-ca-trust"],
    ),
    "opensuse": (
        "/etc/pki/trust/anchors",
        [f"root: install -D -m 0644 {CERTIFICATE} {SUSE}", "root: update-ca-certificates"],
        [f"root: rm -f {SUSE}", "root: update-ca-certificates"],
    ),
    "arch": (
        "p11-kit",
        [f"root: trust anchor --store {CERTIFICATE}"],
        [f"root: trust anchor --remove {CERTIFICATE}"],
    ),
    "macos-user": (
        LOGIN,
        [f"security add-trusted-cert -r trustRoot -p ssl -k {LOGIN} {CERTIFICATE}"],
        [f"security remove-trusted-cert {CERTIFICATE}", f"security delete-certificate -Z 51a1 {LOGIN}"],
    ),
    "macos-machine": (
        SYSTEM,
        [f"root: security add-trusted-cert -d -r trustRoot -p ssl -p basic -k {SYSTEM} {CERTIFICATE}"],
        [
            f"root: security remove-trusted-cert -d {CERTIFICATE}",
            f"root: security delete-certificate -Z 51a1 {SYSTEM}",
        ],
    ),
    "windows-user": (
        "Root",
        [f"certutil -user -addstore Root {CERTIFICATE}"],
        ["certutil -user -delstore Root 51a1"],
    ),
    "windows-machine": (
        "Root",
        [f"certutil -addstore -f Root {CERTIFICATE}"],
        ["certutil -delstore Root 51a1"],
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_exact_commands(name: str) -> None:
    place, installing, removing = EXPECTED[name]
    entry = Entry(name, place, FILE, "5256", "51a1", "PEM")
    runner = Recording(1)
    STORES[name].install(entry, CERTIFICATE, runner)
    assert runner.commands == installing
    runner.commands.clear()
    STORES[name].uninstall(entry, CERTIFICATE, runner)
    assert runner.commands == removing


def test_debians_entry_in_javas_keystore_goes_too() -> None:
    runner = Recording(0)
    entry = Entry("debian", "/usr/local/share/ca-certificates", FILE, "5256", "51a1", "PEM")
    STORES["debian"].uninstall(entry, CERTIFICATE, runner)
    assert runner.commands[-1] == (
        f"root: keytool -delete -keystore /etc/ssl/certs/java/cacerts -storepass changeit -alias debian:{FILE}.pem"
    )


def llm_calls(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    given = {"LLM_CALLS_HOME": str(folder / "state"), "PYTHONPATH": source_path(), **more}
    environment = clean_environment(folder / "home", **given)
    command = [*LLM_CALLS, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


CLIENTS = {
    "debian": ["/usr/bin/openssl", "/usr/bin/curl"],
    "alpine": ["/usr/bin/openssl", "/usr/bin/curl"],
    "fedora": ["/usr/bin/openssl", "/usr/bin/curl"],
    "opensuse": ["/usr/bin/openssl", "/usr/bin/curl"],
    "arch": ["/usr/bin/openssl", "/usr/bin/curl"],
    "macos-user": ["/usr/bin/curl"],
    "macos-machine": ["/usr/bin/curl"],
    "windows-user": [r"C:\Windows/System32/curl.exe"],
    "windows-machine": [r"C:\Windows/System32/curl.exe"],
}


@pytest.mark.parametrize("name", CLIENTS)
def test_whose_handshake_proves_a_systems_store(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own programs alone: another OpenSSL or curl on the PATH may read other certificates."""
    asked: list[str] = []
    monkeypatch.setenv("SYSTEMROOT", r"C:\Windows")
    monkeypatch.setattr(shutil, "which", asked.append)
    entry = Entry(name, "", FILE, "5256", "51a1", "PEM")
    assert STORES[name].client(entry) is None
    assert asked == CLIENTS[name]


def test_the_words_for_each_state_of_a_store(tmp_path: Path) -> None:
    ca = authority.ensure(tmp_path / "ca", ["api.openai.com"])
    entry = Entry("alpine", "/", ca.name, ca.fingerprint, "51a1", ca.root_pem.decode())
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")

    class Half:
        """A store of which `held` says whether it lists the CA, and the options what its client trusts."""

        name, held, options = "half", True, ("-CAfile", str(ca.root_path))

        def holds(self, *_: object) -> bool:
            return self.held

        def client(self, _: object) -> Client | None:
            return Client((openssl, *store.openssl().words[1:], *self.options)) if self.options else None

    half = Half()

    def words(about: Entry = entry) -> tuple[bool, str]:
        found = proof.prove(half, about, ca, Recording(0))  # type: ignore[arg-type]
        return found.trusted, found.words

    assert words() == (True, f"trusted, as a TLS handshake by {openssl} proves")
    half.options = ("-CAfile", str(authority.ensure(tmp_path / "other", ["api.openai.com"]).root_path))
    assert words()[0] is False and "refuses it in a TLS handshake" in words()[1]
    half.options = ()
    assert words()[0] is True and "no program that reads it is on this machine" in words()[1]
    assert words(Entry("half", "/", "llm-calls-00000000", "00", "00", ""))[0] is False
    half.held = False
    assert words()[0] is False and "no longer there" in words()[1]


def make_database(folder: Path) -> list[str]:
    """Make an NSS database; the command that lists it. Skips the test where NSS's programs are not installed."""
    if shutil.which("certutil") is None:
        pytest.skip("NSS's certutil is not installed (Debian: libnss3-tools)")
    folder.mkdir(parents=True)
    subprocess.run(["certutil", "-N", "--empty-password", "-d", f"sql:{folder}"], check=True)
    return ["certutil", "-L", "-d", f"sql:{folder}"]


def names(listing: list[str]) -> list[str]:
    return [line.split()[0] for line in subprocess.check_output(listing, text=True).splitlines() if "C,," in line]


def test_nss_install_twice_rotate_status_uninstall(tmp_path: Path) -> None:
    listing = make_database(tmp_path / "home" / ".pki" / "nssdb")
    for _ in range(2):
        done = llm_calls(tmp_path, "ca", "install", "--store", "nss")
        assert done.returncode == 0, done.stderr
    [first] = names(listing)
    assert f"trusted, as a TLS handshake by {shutil.which('tstclnt')} proves" in done.stdout
    assert "puts the new one in its place" in llm_calls(tmp_path, "ca", "rotate").stderr
    assert "there, but replaced by llm-calls-" in llm_calls(tmp_path, "ca", "status").stdout
    assert llm_calls(tmp_path, "ca", "install", "--store", "nss").returncode == 0
    [second] = names(listing)
    assert second != first
    assert "trusted, as" in llm_calls(tmp_path, "ca", "status").stdout
    subprocess.run(["certutil", "-M", "-n", second, "-t", "p,,", *listing[2:]], check=True)
    assert "trusted" not in llm_calls(tmp_path, "ca", "status").stdout
    for path in (tmp_path / "state" / "ca").glob("mitmproxy-ca*"):
        path.unlink()  # the list alone must be enough
    shutil.move(tmp_path / "state", tmp_path / "moved")
    done = llm_calls(tmp_path, "ca", "uninstall", LLM_CALLS_HOME=str(tmp_path / "moved"))
    assert done.returncode == 0, done.stderr
    assert names(listing) == []
    assert not (tmp_path / "moved" / "ca" / "manifest.json").exists()
    assert "no trust store" in llm_calls(tmp_path, "ca", "uninstall").stdout


def test_every_browsers_place(tmp_path: Path) -> None:
    """Those of Debian's, snap's and Flatpak's Firefox, old and new, and of Chromium."""
    places = [
        ".pki/nssdb",
        ".local/share/pki/nssdb",
        "snap/chromium/current/.pki/nssdb",
        ".var/app/org.chromium.Chromium/.pki/nssdb",
        ".mozilla/firefox/abc.default-release",
        ".config/mozilla/firefox/def.default",
        "snap/firefox/common/.mozilla/firefox/ghi.default",
        ".var/app/org.mozilla.firefox/.mozilla/firefox/jkl.default",
        ".var/app/org.mozilla.firefox/config/mozilla/firefox/mno.default",
        "Library/Application Support/Firefox/Profiles/pqr.default",
    ]
    listings = [make_database(tmp_path / "home" / place) for place in places]
    done = llm_calls(tmp_path, "ca", "install", "--store", "nss")
    assert done.returncode == 0, done.stderr
    assert [len(names(listing)) for listing in listings] == [1] * len(places)
    assert llm_calls(tmp_path, "ca", "uninstall").returncode == 0
    assert [len(names(listing)) for listing in listings] == [0] * len(places)


def test_a_database_that_cannot_be_changed_does_not_keep_the_others_from_it(tmp_path: Path) -> None:
    good = make_database(tmp_path / "home" / ".local" / "share" / "pki" / "nssdb")
    bad = tmp_path / "home" / ".pki" / "nssdb"
    make_database(bad)
    (bad / "cert9.db").write_bytes(b"no database")
    done = llm_calls(tmp_path, "ca", "install", "--store", "nss")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert f"nss: {bad}:" in done.stderr
    assert len(names(good)) == 1


def test_mitmproxys_own_ca(tmp_path: Path) -> None:
    listing = make_database(tmp_path / "home" / ".pki" / "nssdb")
    folder = tmp_path / "home" / ".mitmproxy"
    certs.CertStore.from_store(folder, "mitmproxy", 2048)
    done = llm_calls(tmp_path, "ca", "install", "--store", "nss", "--ca", "~/.mitmproxy")
    assert done.returncode == 0, done.stderr
    assert "can vouch for every site" in done.stderr
    assert llm_calls(tmp_path, "ca", "install", "--store", "nss").returncode == 0
    assert len(names(listing)) == 2  # ours takes the place of ours alone
    assert llm_calls(tmp_path, "ca", "status", "--ca", str(folder)).stdout.count("trusted, as a TLS handshake") == 1
    assert llm_calls(tmp_path, "ca", "uninstall").returncode == 0
    assert names(listing) == []
    assert (folder / "mitmproxy-ca.pem").exists()


def test_javas_keystore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a copy of a JDK's, by that JDK: added, trusted in a handshake, taken out; the other entries stay."""
    [jdk, *_] = find_jdks(os.environ) or [None]
    if jdk is None:
        pytest.skip("no Java is installed")
    home = tmp_path / "jdk"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "keytool").symlink_to(jdk.keytool)
    (home / "lib" / "security").mkdir(parents=True)
    keystore = home / "lib" / "security" / "cacerts"
    shutil.copy(jdk.keystore, keystore)
    monkeypatch.setenv("JAVA_HOME", str(home))
    ca = authority.ensure(tmp_path / "ca", ["api.openai.com"])
    entry = Entry("java", str(keystore), ca.name, ca.fingerprint, "51a1", ca.root_pem.decode())
    java, runner = STORES["java"], store.RealRunner(print)
    assert str(keystore) in java.places()
    client = java.client(entry)
    assert client is not None and not trusts(client, ca)
    java.install(entry, ca.root_path, runner)
    java.install(entry, ca.root_path, runner)
    assert proof.prove(java, entry, ca, runner).words.startswith("trusted, as a TLS handshake by")
    java.uninstall(entry, ca.root_path, runner)
    assert not java.holds(entry, ca.root_path, runner)
    assert not trusts(client, ca)


THROWAWAY = """
set -e
for tree in /etc/ssl /usr/local/share/ca-certificates /etc/ca-certificates; do
  mkdir -p "$1$tree"; cp -a "$tree/." "$1$tree/"; mount --bind "$1$tree" "$tree"
done
printf 'mounted\\n'
picture() { cd /; find /etc/ssl /usr/local/share/ca-certificates -path /etc/ssl/certs/java -prune -o \\
  \\( -type f -exec sha256sum {} + -o -type l -printf '%p -> %l\\n' \\) | sort; }
java_aliases() {
  keytool -list -keystore /etc/ssl/certs/java/cacerts -storepass changeit 2>/dev/null | sed 1,4d | sort
}
update-ca-certificates --fresh  # a file that somebody put where Debian has a link becomes the link here, not later
picture > "$1/before"; java_aliases > "$1/java-before"
shift_root=$1; shift
"$@" install --store debian; "$@" install --store debian; "$@" status
openssl verify -CApath /etc/ssl/certs "$LLM_CALLS_HOME/ca/mitmproxy-ca-cert.pem"
picture > "$shift_root/between"
"$@" uninstall
picture > "$shift_root/after"; java_aliases > "$shift_root/java-after"
"""


def test_debian_in_a_throwaway_root(tmp_path: Path) -> None:
    if not Path("/etc/debian_version").exists() or shutil.which("update-ca-certificates") is None:
        pytest.skip("this is no Debian with ca-certificates")
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a mount namespace needs root here")
    # the shell's own mounts, seen by nobody else: the machine's store stays as it is
    real = Path("/etc/ssl/certs/ca-certificates.crt").read_bytes()
    root = tmp_path / "root"
    environment = clean_environment(tmp_path / "home", LLM_CALLS_HOME=str(tmp_path / "state"), PYTHONPATH=source_path())
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", THROWAWAY, "sh", str(root), *LLM_CALLS, "ca"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if "mounted" not in done.stdout:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (root / "between").read_bytes() != (root / "before").read_bytes()
    assert (root / "after").read_bytes() == (root / "before").read_bytes()
    assert (root / "java-after").read_bytes() == (root / "java-before").read_bytes()
    assert done.stdout.count("trusted, as a TLS handshake by /usr/bin/openssl proves") == 3  # install twice, status
    assert Path("/etc/ssl/certs/ca-certificates.crt").read_bytes() == real


def test_dry_run_changes_nothing_and_says_what_it_would(tmp_path: Path) -> None:
    if not Path("/etc/debian_version").exists() or shutil.which("update-ca-certificates") is None:
        pytest.skip("this is no Debian with ca-certificates")
    done = llm_calls(tmp_path, "ca", "install", "--store", "debian", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("update-ca-certificates")
    assert not (tmp_path / "state" / "ca" / "manifest.json").exists()
    assert not list(Path("/usr/local/share/ca-certificates").glob("llm-calls-*"))


def test_a_folder_without_a_ca_is_refused_in_one_line(tmp_path: Path) -> None:
    done = llm_calls(tmp_path, "ca", "install", "--ca", str(tmp_path))
    assert done.returncode == 2
    assert "there is no CA in" in done.stderr
    assert len(done.stderr.splitlines()) == 1
