"""The files that start Proton and Grafana: well formed, and the dashboard asks what sql/proton/ does."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

from calltracker import paths
from ruamel.yaml import YAML  # mitmproxy's

FOLDER = Path(__file__).resolve().parents[2] / "scripts" / "proton"


def test_compose_is_well_formed_and_its_files_are_there() -> None:
    services = YAML(typ="safe").load(FOLDER / "compose.yaml")["services"]
    assert services["proton"]["environment"]["TELEMETRY_ENABLED"] == "false"
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert all(name in services for name in service.get("depends_on", {}))
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith(".") or (FOLDER / source).is_file()


def test_grafana_finds_its_data_source() -> None:
    [source] = YAML(typ="safe").load(FOLDER / "grafana" / "datasource.yaml")["datasources"]
    dashboard = json.loads((FOLDER / "grafana" / "dashboard.json").read_text())
    wanted = {"type": source["type"], "uid": source["uid"]}
    assert all(panel["datasource"] == wanted for panel in dashboard["panels"])


def test_the_dashboard_asks_the_questions_as_they_are() -> None:
    written = json.loads((FOLDER / "grafana" / "dashboard.json").read_text())
    assert written == runpy.run_path(str(FOLDER / "dashboard.py"))["dashboard"]()
    titles = {panel["title"].replace(" ", "_") for panel in written["panels"]}
    questions = {path.stem for path in paths.sql_folder("sqlite").glob("*.sql")}
    assert questions | {"live_latency", "live_errors", "live_tokens", "live_failure_bursts"} == titles
