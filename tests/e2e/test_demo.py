"""scripts/demo: the official openai package as the app, calls of every kind, and the rows at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from e2e.harness import ROOT, clean_environment, clients_python


def test_the_demo_shows_a_row_for_each_call(tmp_path: Path) -> None:
    environment = clean_environment(
        tmp_path,
        LLM_CALLS_DEMO=clients_python(),
        LLM_CALLS_HOME=str(tmp_path / "state"),
        PYTHONPATH=f"{ROOT / 'addon'}:{ROOT / 'tests'}:{ROOT / 'scripts'}",
    )
    command = [sys.executable, str(ROOT / "scripts" / "demo")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 rows for 14 calls" in done.stdout
    assert "client_cancelled" in done.stdout
    assert "avg" in done.stdout
