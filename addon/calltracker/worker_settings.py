"""What the proxy tells its worker, in one line of JSON through a pipe: it holds a password."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from .proton.settings import Settings as ProtonSettings


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What the proxy tells its worker. `run` is the folder of the proxy's run, "" for a worker without a proxy."""

    journal: Path
    run: str
    bodies: bool
    fsync: bool
    keep_days: float
    keep_bytes: int
    proton: ProtonSettings | None

    def to_line(self) -> str:
        facts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        facts["journal"] = str(self.journal)
        facts["proton"] = self.proton.to_dict() if self.proton else None
        return json.dumps(facts)

    @classmethod
    def from_line(cls, line: str) -> WorkerSettings:
        facts = json.loads(line)
        facts["journal"] = Path(facts["journal"])
        facts["proton"] = ProtonSettings.from_dict(facts["proton"]) if facts["proton"] else None
        return cls(**facts)
