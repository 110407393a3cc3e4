"""Trust stores: the exact commands of each, and real ones where this machine can have them in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from calltracker.trust.manifest import Entry
from calltracker.trust.stores import STORES
from e2e.harness import ROOT, clean_environment
from trust.command import LLM_CALLS

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


def llm_calls(folder: Path, *words: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(
        folder / "home", LLM_CALLS_HOME=str(folder / "state"), PYTHONPATH=str(ROOT / "addon")
    )
    command = [*prefix, *LLM_CALLS, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_nss_install_twice_status_uninstall(tmp_path: Path) -> None:
    if shutil.which("certutil") is None:
        pytest.skip("NSS's certutil is not installed (Debian: libnss3-tools)")
    database = tmp_path / "home" / ".pki" / "nssdb"
    database.mkdir(parents=True)
    listing = ["certutil", "-L", "-d", f"sql:{database}"]
    subprocess.run(["certutil", "-N", "--empty-password", "-d", f"sql:{database}"], check=True)
    for _ in range(2):
        done = llm_calls(tmp_path, "ca", "install", "--store", "nss")
        assert done.returncode == 0, done.stderr
    assert subprocess.check_output(listing, text=True).count("llm-calls-") == 1
    assert "trusted" in llm_calls(tmp_path, "ca", "status").stdout
    shutil.move(tmp_path / "state", tmp_path / "moved")
    shutil.move(tmp_path / "moved", tmp_path / "state")
    for path in (tmp_path / "state" / "ca").glob("mitmproxy-ca*"):
        path.unlink()  # the list alone must be enough
    done = llm_calls(tmp_path, "ca", "uninstall")
    assert done.returncode == 0, done.stderr
    assert "llm-calls-" not in subprocess.check_output(listing, text=True)
    assert not (tmp_path / "state" / "ca" / "manifest.json").exists()
    assert "no trust store" in llm_calls(tmp_path, "ca", "uninstall").stdout


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
    environment = clean_environment(
        tmp_path / "home", LLM_CALLS_HOME=str(tmp_path / "state"), PYTHONPATH=str(ROOT / "addon")
    )
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", THROWAWAY, "sh", str(root), *LLM_CALLS, "ca"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if "mounted" not in done.stdout:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (root / "between").read_bytes() != (root / "before").read_bytes()
    assert (root / "after").read_bytes() == (root / "before").read_bytes()
    assert (root / "java-after").read_bytes() == (root / "java-before").read_bytes()
    assert "trusted" in done.stdout
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
