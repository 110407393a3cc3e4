"""`llm-calls doctor` tells the truth about what there is, and about what becomes of each client's call."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from calltracker.trust import authority
from calltracker.trust.doctor import trial
from calltracker.trust.doctor.probes import Probe
from e2e.harness import Proxy, clean_environment, clients_python, closed_port, until
from standin import StandIn
from trust.command import LLM_CALLS, node_path, source_path

OK, NOTE, PROBLEM = "ok", "note", "problem"
# Programs named `curl`: one goes past the proxy, one trusts other certificates than it is given.
PAST = "#!/bin/sh\necho 'status 200'\n"
DISTRUSTFUL = '#!/bin/sh\nexec {curl} --cacert {other} "$@"\n'


class Doctor:
    """`llm-calls doctor` for a user whose PATH has only the given programs."""

    def __init__(self, folder: Path, state: Path | None = None) -> None:
        self.folder = folder
        self.state = state or folder / "state"
        self.path = folder / "path"
        self.path.mkdir(parents=True)

    def add(self, name: str, program: str | Path) -> None:
        """Put a program on the PATH: one of this machine, or the text of a script."""
        if isinstance(program, Path):
            (self.path / name).symlink_to(program)
        else:
            (self.path / name).write_text(program)
            (self.path / name).chmod(0o755)

    def __call__(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = clean_environment(
            self.folder / "home",
            **{"LLM_CALLS_HOME": str(self.state), "PYTHONPATH": source_path(), "PATH": str(self.path), **more},
        )
        command = [*LLM_CALLS, "doctor", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    def report(self, **more: str) -> dict[str, Any]:
        """What it tells a program; its exit status fits that."""
        done = self("--json", **more)
        report: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if report["healthy"] else 1), done.stderr
        return report

    def found(self, section: str, **more: str) -> list[tuple[str, str]]:
        """Level and text of all findings of a section."""
        findings = self.report(**more)["findings"]
        return [
            (each["level"], each["text"] + " → " + each["advice"]) for each in findings if each["section"] == section
        ]


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    return Doctor(tmp_path)


def curl() -> Path:
    found = shutil.which("curl")
    if found is None:
        pytest.skip("curl is not installed")
    return Path(found)


def problems(report: dict[str, Any]) -> list[Any]:
    """What makes the report unhealthy."""
    found = [each for each in report["findings"] if each["level"] == PROBLEM]
    found += [each for each in report["clients"] if each["verdict"] not in ("captured", "untried")]
    assert report["healthy"] == (not found)
    return found


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {client["client"]: client["verdict"] for client in report["clients"]}


def test_every_client_of_this_machine_is_captured_without_a_trace_in_the_users_journal(doctor: Doctor) -> None:
    path = f"{Path(clients_python()).parent}:{os.environ['PATH']}"
    report = doctor.report(PATH=path, NODE_PATH=node_path(), PROTON_HOST="127.0.0.1", PROTON_PORT=str(closed_port()))
    assert not problems(report)
    assert set(verdicts(report).values()) == {"captured"}, report
    told = "\n".join(verdicts(report))
    for client in ("openai 3.", "requests", "httpx", "aiohttp", "urllib", ", fetch", ", https", ", openai 6"):
        assert client in told
    for program, client in (("curl", "curl"), ("go", "Go"), ("javac", "Java")):
        assert (client in told) == (shutil.which(program) is not None)
    assert not (doctor.state / "journal.sqlite3").exists()
    assert not (doctor.state / "proxy.json").exists()
    assert "one of doctor's own" in report["through"]


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """A running proxy whose OpenAI is the stand-in."""
    with StandIn() as standin, Proxy(tmp_path / "proxy", {"api.openai.com": standin}) as running:
        yield running


def test_through_the_running_proxy_each_client_gets_its_verdict(tmp_path: Path, proxy: Proxy) -> None:
    real = curl()
    other = authority.ensure(tmp_path / "other", ["api.openai.com"]).root_path
    doctor = Doctor(tmp_path / "user", proxy.home)
    doctor.add("curl", real)
    doctor.add("node", "#!/bin/sh\necho 'this node is broken' >&2\nexit 3\n")
    report = doctor.report(LLM_CALLS_JOURNAL=str(proxy.journal))
    assert not problems(report)
    assert verdicts(report) == {"curl": "captured", str(doctor.path / "node"): "untried"}
    assert "this node is broken" in report["clients"][1]["detail"]
    assert "the running one" in report["through"]
    [row] = proxy.rows()
    assert (row["request_method"], row["outcome"]) == ("GET", "ok")
    assert row["request_url"].startswith("https://api.openai.com/v1/models?llm-calls-doctor=")

    for script, verdict, advice in (
        (PAST, "bypassed", "it does not follow HTTPS_PROXY"),
        (DISTRUSTFUL.format(curl=real, other=other), "refused", "llm-calls ca install"),
    ):
        (doctor.path / "curl").unlink()
        doctor.add("curl", script)
        report = doctor.report(LLM_CALLS_JOURNAL=str(proxy.journal))
        assert not report["healthy"]
        assert (report["clients"][0]["verdict"], advice in report["clients"][0]["advice"]) == (verdict, True), report
    assert "certificate" in report["clients"][0]["detail"]
    assert len(proxy.rows()) == 1


def test_programs_that_are_none_do_not_keep_others_from_being_tried(doctor: Doctor) -> None:
    doctor.add("curl", "not a program")
    doctor.add("python3", "#!/bin/sh\necho 'a banner'; echo '[]'\n")
    doctor.add("node", "#!/bin/sh\necho 'no JSON'\n")
    report = doctor.report()
    assert report["healthy"]
    assert [client["verdict"] for client in report["clients"]] == ["untried"] * 3
    assert all(client["detail"] for client in report["clients"])


def test_a_client_that_hangs_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    hanging = Probe("hanging", ("sh", "-c", f"sleep 600 & echo $! > {pid}; wait"), seconds=1)
    attempts = trial.attempt_all([hanging], ("127.0.0.1", closed_port()), lambda _: os.environ)
    [judged] = trial.judge(attempts, set())
    assert (judged.verdict, judged.detail) == ("untried", "no end within 1 s")
    state = Path(f"/proc/{pid.read_text().strip()}/stat")
    until(lambda: not state.exists() or state.read_text().split()[2] == "Z")


def test_a_running_proxy_that_does_not_reach_openai(tmp_path: Path) -> None:
    with Proxy(tmp_path / "proxy", {"api.openai.com": None}) as proxy:
        doctor = Doctor(tmp_path / "user", proxy.home)
        doctor.add("curl", curl())
        report = doctor.report(LLM_CALLS_JOURNAL=str(proxy.journal))
    assert verdicts(report) == {"curl": "captured"}
    assert "one of doctor's own" in report["through"]
    [problem] = [each for each in report["findings"] if each["level"] == PROBLEM]
    assert "does not reach api.openai.com (it answers 502)" in problem["text"]


def test_a_running_proxy_with_another_ca_and_a_reverse_one(tmp_path: Path, proxy: Proxy) -> None:
    record = proxy.home / "proxy.json"
    facts = json.loads(record.read_text())
    assert facts["mode"] == "regular"
    other = authority.ensure(tmp_path / "other", ["api.openai.com"]).folder
    doctor = Doctor(tmp_path / "user", proxy.home)
    record.write_text(json.dumps(facts | {"confdir": str(other)}))
    assert "does not show a certificate of the CA" in doctor.found("running")[-1][1]
    before = proxy.root.read_bytes()  # what the proxy signs with; its successor remembers that
    new = authority.rotate(tmp_path / "new", ["api.openai.com"]).folder
    (new / "previous-roots.pem").write_bytes(before)
    record.write_text(json.dumps(facts | {"confdir": str(new)}))
    assert "the CA before today's" in doctor.found("running", LLM_CALLS_JOURNAL=str(proxy.journal))[-1][1]
    record.write_text(json.dumps(facts | {"mode": "reverse:https://api.openai.com"}))
    found = doctor.found("running", LLM_CALLS_JOURNAL=str(proxy.journal))
    assert [level for level, _ in found] == [OK]
    assert "OPENAI_BASE_URL" in found[0][1]


def test_nothing_is_there_yet(doctor: Doctor) -> None:
    report = doctor.report()
    assert report["healthy"]
    assert {each["level"] for each in report["findings"]} == {OK, NOTE}
    assert "Proton" not in json.dumps(report)
    text = doctor().stdout
    assert [line for line in text.splitlines() if not line.startswith(" ")][:4] == [
        "installed",
        "running",
        "trusted",
        "delivered",
    ]
    assert not doctor.state.exists()


def test_a_record_of_a_proxy_that_has_ended(doctor: Doctor) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    doctor.state.mkdir()
    facts = {
        "pid": ended.pid,
        "host": "127.0.0.1",
        "port": closed_port(),
        "mode": "regular",
        "confdir": "/",
        "journal": "",
    }
    (doctor.state / "proxy.json").write_text(json.dumps(facts))
    found = doctor.found("running")
    assert (found[0][0], "has ended without saying so" in found[0][1]) == (NOTE, True)


@pytest.mark.parametrize(
    ("file", "section", "says"),
    [
        ("ca/mitmproxy-ca.pem", "installed", "is damaged"),
        ("ca/manifest.json", "trusted", "manifest.json cannot be read"),
        ("journal.sqlite3", "delivered", "cannot be read"),
    ],
)
def test_damaged_files_are_told(doctor: Doctor, file: str, section: str, says: str) -> None:
    path = doctor.state / file
    path.parent.mkdir(parents=True)
    path.write_text("this is none of ours " * 100)
    assert [level for level, text in doctor.found(section) if says in text] == [PROBLEM]


def test_an_option_that_cannot_be_used(doctor: Doctor) -> None:
    [(level, text)] = [
        found for found in doctor.found("installed", LLM_CALLS_HOSTS="https://x") if "LLM_CALLS" in found[1]
    ]
    assert (level, "'https://x' is not a host" in text) == (PROBLEM, True)


def test_a_store_from_which_the_ca_was_taken(doctor: Doctor) -> None:
    ca = authority.ensure(doctor.state / "ca", ["api.openai.com"])
    place = doctor.folder / "no database"
    entry = {"store": "nss", "place": str(place), "name": ca.name, "sha256": ca.fingerprint, "sha1": "", "pem": ""}
    (ca.folder / "manifest.json").write_text(json.dumps({"entries": [entry]}))
    [(level, text)] = doctor.found("trusted")
    assert (level, "no longer there: `llm-calls ca install`" in text) == (PROBLEM, True)


def test_rows_that_wait_for_proton(tmp_path: Path) -> None:
    with (
        StandIn() as standin,
        Proxy(
            tmp_path / "proxy",
            {"api.openai.com": standin},
            environment={"PROTON_HOST": "127.0.0.1", "PROTON_PORT": str(port := closed_port())},
        ) as proxy,
    ):
        doctor = Doctor(tmp_path / "user", proxy.home)
        doctor.add("curl", curl())
        settings = {"LLM_CALLS_JOURNAL": str(proxy.journal), "PROTON_HOST": "127.0.0.1", "PROTON_PORT": str(port)}
        assert verdicts(doctor.report(**settings)) == {"curl": "captured"}
        proxy.wait_rows(lambda _: _note(proxy.journal, "error"))
        [_, (level, text)] = doctor.found("delivered", **settings)
    assert level == PROBLEM
    assert f"Proton 127.0.0.1:{port}" in text
    assert "0 rows delivered" in text and "last error" in text


def _note(journal: Path, name: str) -> object:
    with closing(sqlite3.connect(f"{journal.as_uri()}?mode=rw", uri=True)) as connection:
        try:
            return connection.execute("SELECT value FROM outbox_notes WHERE name = ?", (name,)).fetchone()
        except sqlite3.OperationalError:
            return None  # the exporter has not begun
