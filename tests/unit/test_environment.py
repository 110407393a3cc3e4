"""The environments that scripts/ make: which Python, what becomes of a broken one, and what is said."""

from __future__ import annotations

import sys
from pathlib import Path

import environment
import pytest
from e2e.harness import closed_port


def a_program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def a_python(folder: Path, version: str, more: str = "venv") -> str:
    """A program that answers as a Python of that version would."""
    path = folder / f"python-{version}"
    return a_program(path, f"printf '%s\\n' {path} '{version.replace('.', ' ')}' {more}")


@pytest.fixture
def pips(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The programs that were run to make environments; none of them really is, and all go well."""
    run: list[list[str]] = []

    def recorded(command: list[str], log: Path, mode: str) -> int:
        run.append(command)
        if "venv" in command:
            program = Path(command[-1]) / "bin" / "python"
            program.parent.mkdir(parents=True)
            program.touch()
        return 0

    monkeypatch.setattr(environment, "_run", recorded)
    return run


def test_this_python_will_do() -> None:
    python, reason = environment.probe(sys.executable)
    assert python is not None and python.version == sys.version_info[:3], reason


def test_what_does_not_run_is_no_python(tmp_path: Path) -> None:
    shim = a_program(tmp_path / "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    assert environment.probe(shim) == (None, "")
    assert environment.probe(str(tmp_path / "nothing")) == (None, "")


@pytest.mark.parametrize(
    ("version", "more", "why"),
    [
        ("3.8.10", "venv", "Python 3.8.10"),
        ("3.99.0", "venv", "not tried yet"),
        ("3.12.1", "", "without the module venv"),
    ],
)
def test_why_a_python_will_not_do(tmp_path: Path, version: str, more: str, why: str) -> None:
    python, reason = environment.probe(a_python(tmp_path, version, more))
    assert python is None
    assert why in reason


def test_the_newest_is_taken_and_all_that_are_too_old_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [a_python(tmp_path, version) for version in ("3.9.1", "3.11.7", "3.13.0", "3.12.4")]
    monkeypatch.setattr(environment, "_candidates", lambda: found)
    assert [python.name for python in environment.suitable_pythons()] == [
        "Python 3.13.0",
        "Python 3.12.4",
        "Python 3.11.7",
    ]
    monkeypatch.setattr(environment, "_candidates", lambda: found[:1])
    with pytest.raises(
        environment.EnvironmentFailure, match=r"needs Python 3\.11 or newer.*found here: Python 3\.9\.1"
    ):
        environment.suitable_pythons()


def test_an_environment_is_made_once_brought_up_to_date_and_mended(tmp_path: Path, pips: list[list[str]]) -> None:
    asked = tmp_path / "requirements.txt"
    asked.write_text("a")
    usual = [environment.Python(sys.executable, (3, 12, 0))]

    def ensured() -> list[str]:
        """What was done: 'venv', 'pip'."""
        pips.clear()
        interpreter = environment.ensure("e", ["-r", str(asked)], [asked], usual, tmp_path)
        assert interpreter == tmp_path / "e" / "bin" / "python"
        return ["venv" if "venv" in command else "pip" for command in pips]

    assert ensured() == ["venv", "pip"]
    assert ensured() == []
    asked.write_text("b")
    assert ensured() == ["pip"]
    (tmp_path / "e" / "stamp").unlink()  # as an interrupted run leaves it
    assert ensured() == ["venv", "pip"]
    (tmp_path / "e" / "bin" / "python").unlink()  # the Python that it was made of is gone
    assert ensured() == ["venv", "pip"]


def test_without_a_package_index_there_is_one_line_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed_port()}/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    python, _ = environment.probe(sys.executable)
    assert python is not None
    with pytest.raises(environment.EnvironmentFailure, match="pip could not reach its package index") as raised:
        environment.ensure("e", ["a-package-that-is-not-here"], [], [python], tmp_path)
    assert not isinstance(raised.value, environment.NotInstallable)  # no older Python would help
    with pytest.raises(SystemExit) as ended:
        environment.fail(raised.value)
    assert ended.value.code == 2
    said = capfd.readouterr().err.splitlines()
    assert said[-1].startswith("llm-calls: pip could not reach")


def test_the_proxy_that_is_about_to_start_is_not_asked_for_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = f"http://127.0.0.1:{closed_port()}"
    assert environment._points_nowhere("HTTPS_PROXY", nobody)
    assert not environment._points_nowhere("HTTPS_PROXY", "http://proxy.example:3128")
    assert not environment._points_nowhere("PIP_INDEX_URL", nobody)
