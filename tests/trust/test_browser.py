"""Chromium, headless, with an NSS database of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from calltracker.trust import authority
from e2e.harness import clean_environment
from trust.servers import server
from trust.test_stores import llm_calls

HOST = "api.openai.com"
NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--enable-logging=stderr"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def test_trusted_after_install_and_refused_after_uninstall(tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None or shutil.which("certutil") is None:
        pytest.skip("Chromium or NSS's certutil is not installed (Debian: chromium, libnss3-tools)")
    database = tmp_path / "home" / ".pki" / "nssdb"
    database.mkdir(parents=True)
    subprocess.run(["certutil", "-N", "--empty-password", "-d", f"sql:{database}"], check=True)
    done = llm_calls(tmp_path, "ca", "install", "--store", "nss")
    assert done.returncode == 0, done.stderr
    ca = authority.read(tmp_path / "state" / "ca")
    with server(ca, HOST, tmp_path) as port:
        assert ">ok</pre>" in page(browser, tmp_path, "first", port)
        done = llm_calls(tmp_path, "ca", "uninstall")
        assert done.returncode == 0, done.stderr
        refused = page(browser, tmp_path, "second", port)
        assert "net::ERR_CERT_AUTHORITY_INVALID" in refused and ">ok</pre>" not in refused


def page(browser: str, folder: Path, profile: str, port: int) -> str:
    """What the browser shows for the host, whose server is at that port, and what it logs."""
    command = [
        *(browser, *QUIET, f"--user-data-dir={folder / profile}"),
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        *(f"--host-resolver-rules=MAP {HOST} 127.0.0.1:{port}", "--dump-dom", f"https://{HOST}/"),
    ]
    done = subprocess.run(
        command, env=clean_environment(folder / "home"), capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
