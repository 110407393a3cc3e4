"""What is measured side by side: no proxy, a plain mitmdump, one that streams, and ours."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import load, machine
from bench.upstream import upstream_process
from e2e.harness import Proxy
from standin import Authority

HERE = Path(__file__).resolve().parent
STREAMING = HERE / "streaming.py"
USUAL_DISPATCH = HERE / "usual_dispatch.py"
DIRECT, PLAIN, TWO_LINES, OURS = "direct", "plain mitmdump", "two-line stream=True", "ours"
SLOWER = "ours, without our dispatch"
SCRIPTS = {TWO_LINES: STREAMING, SLOWER: USUAL_DISPATCH}
WARM_UP = 300  # calls


@dataclass(frozen=True, slots=True)
class Variant:
    """A way from a client to the upstream; `proxy` is None for the direct one."""

    name: str
    target: load.Target
    proxy: Any

    @property
    def pid(self) -> int | None:
        """The proxy's process."""
        return self.proxy.process.pid if self.proxy else None

    @property
    def worker_pid(self) -> int | None:
        """The worker's process; the others have none."""
        children = machine.children(self.pid) if self.pid else []
        return children[0] if children else None


class Cost:
    """The CPU time of a variant's processes during a `with` block, in seconds."""

    def __init__(self, variant: Variant) -> None:
        self._variant = variant
        self.proxy = 0.0
        self.worker = 0.0

    def __enter__(self) -> Cost:
        self._pids = self._variant.pid, self._variant.worker_pid
        self._before = [machine.cpu_seconds(pid) if pid else 0.0 for pid in self._pids]
        return self

    def __exit__(self, *_: object) -> None:
        now = [machine.cpu_seconds(pid) if pid else 0.0 for pid in self._pids]
        self.proxy, self.worker = (after - before for after, before in zip(now, self._before, strict=True))


class Stage:
    """The upstream, and the variants before it, each with a folder of its own."""

    def __init__(self, folder: Path, upstream: int, authority: Any) -> None:
        self._folder = folder
        self._upstream = upstream
        self._root = authority.root
        self._made = 0

    @contextlib.contextmanager
    def variant(self, name: str, **more: Any) -> Iterator[Variant]:
        """Start one, and warm it up. more: arguments of the tests' Proxy."""
        with contextlib.ExitStack() as closing:
            proxy = closing.enter_context(self._proxy(name, **more)) if name != DIRECT else None
            target = (
                load.Target(proxy.port, proxy.root, tunnel=True)
                if proxy
                else load.Target(self._upstream, self._root, tunnel=False)
            )
            load.keep_alive(target, 4, calls=WARM_UP)
            yield Variant(name, target, proxy)

    def _proxy(self, name: str, **more: Any) -> Any:
        self._made += 1
        if name not in (OURS, SLOWER):
            more["addon"] = None
        if name in SCRIPTS:
            more["scripts"] = [SCRIPTS[name]]
        options = {"ssl_verify_upstream_trusted_ca": str(self._root)}
        folder = self._folder / f"{self._made}"
        return Proxy(folder, {load.HOST: self._upstream}, options=options, **more)

    @contextlib.contextmanager
    def variants(self, *names: str) -> Iterator[list[Variant]]:
        with contextlib.ExitStack() as closing:
            yield [closing.enter_context(self.variant(name)) for name in names]


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Start the upstream."""
    authority = Authority(folder / "authority", [load.HOST])
    with upstream_process(folder / "authority" / "leaf.pem") as port:
        yield Stage(folder, port, authority)


def check_platform() -> None:
    """End here where there is no /proc to measure by."""
    if not Path("/proc/self/stat").exists():
        sys.exit("this benchmark reads /proc: it runs on Linux only")
