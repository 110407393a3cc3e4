"""Write grafana/dashboard.json anew from sql/proton/: a panel for each question and each live query.

python scripts/proton/dashboard.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
QUESTIONS = HERE.parents[1] / "sql" / "proton"
NOT_ASKED = ("create_", "rollup_", "kafka_", "alert_")
SOURCE = {"type": "timeplus-proton-datasource", "uid": "proton"}
WIDTH, HEIGHT = 12, 8


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it: live queries first, two panels in a line."""
    names = [path.stem for path in QUESTIONS.glob("*.sql") if not path.stem.startswith(NOT_ASKED)]
    names.sort(key=lambda name: (not name.startswith("live_"), name))
    return {
        "uid": "llm-calls",
        "title": "LLM calls",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "panels": [panel(number, name) for number, name in enumerate(names)],
    }


def panel(number: int, name: str) -> dict[str, Any]:
    """A table with the rows that a question answers with."""
    lines = (QUESTIONS / f"{name}.sql").read_text(encoding="utf-8").splitlines()
    return {
        "id": number + 1,
        "title": name.replace("_", " "),
        "description": lines[0].removeprefix("-- "),
        "type": "table",
        "datasource": SOURCE,
        "gridPos": {"x": number % 2 * WIDTH, "y": number // 2 * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "targets": [
            {
                "refId": "A",
                "datasource": SOURCE,
                "sql": "\n".join(line for line in lines if not line.startswith("--")),
            }
        ],
    }


if __name__ == "__main__":
    text = json.dumps(dashboard(), indent=2) + "\n"
    (HERE / "grafana" / "dashboard.json").write_text(text, encoding="utf-8")
