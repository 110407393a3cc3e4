"""The environments of this checkout: made once, in .envs/, by whatever Python is there, and mended when broken.

This file is read by the `python3` of any machine, so it stays with what Python 3.6 understands and with the
standard library; all else runs inside the environment that it makes, on the newest suitable Python that it finds.

An environment is sound when its stamp says so. The stamp is written last and names what was asked for, so an
environment without one was interrupted and is made anew, and one with another is brought up to date. A lock
makes a second start wait for the first.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

if False:  # for type checkers, in the words of Python 3.6
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".envs"
OLDEST = (3, 11)
NEWEST = (3, 14)
PROBE = "import sys; print(sys.executable); print(*sys.version_info[:3]); import venv, ensurepip; print('venv')"
PROBE_SECONDS = 30
UNREACHABLE = re.compile(
    "Failed to establish a new connection|Name or service not known|nodename nor servname|"
    "Temporary failure in name resolution|Network is unreachable|Connection refused|Connection timed out|"
    "ConnectTimeoutError|NameResolutionError|NewConnectionError|ReadTimeoutError|ProxyError|SSLError|"
    "Cannot connect to proxy|getaddrinfo failed|[(]from versions: none[)]"
)


class EnvironmentFailure(Exception):
    """Why there is no environment, and what to do, in one line."""


class Python:
    """A Python that runs and can make environments."""

    def __init__(self, path: "str", version: "tuple[int, ...]") -> None:
        self.path = path
        self.version = version

    @property
    def name(self) -> str:
        return "Python " + ".".join(str(part) for part in self.version)


def ensure(
    name: str,
    install: "list[str]",
    inputs: "list[Path]",
    pythons: "list[Python] | None" = None,
    folder: "Path | None" = None,
) -> Path:
    """Return the interpreter of the environment of that name, making or mending the environment where needed.

    install: arguments for `pip install`. inputs: the files that these depend on; when they change, pip runs again.
    pythons: those to choose from, the first that works; usually all suitable ones, the newest first.
    Raises EnvironmentFailure.
    """
    place = (folder or ENVIRONMENTS) / name
    interpreter = _interpreter(place)

    def make(outdated: bool) -> None:
        if outdated:
            _say(f"bringing {_shown(place)} up to date")
            _pip(place, install)
        else:
            _make(place, install, pythons or suitable_pythons())

    _once(place, interpreter, _key(place, install, inputs), make)
    return interpreter


def ensure_node_modules(package: Path, folder: "Path | None" = None) -> "Path | None":
    """Return a folder node_modules with what a package.json asks for; None without Node. Raises EnvironmentFailure."""
    place = (folder or ENVIRONMENTS) / "node"
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return None

    def make(_: bool) -> None:
        _say(f"making {_shown(place)} with npm")
        _clear(place)
        place.mkdir()
        shutil.copy(str(package), str(place))
        quiet = ["--no-audit", "--no-fund", "--no-update-notifier"]
        if _run([str(npm), "install", *quiet, "--prefix", str(place)], _log(place), "w"):
            raise EnvironmentFailure(f"npm could not install what {package.name} asks for (details: {_log(place)})")

    modules = place / "node_modules"
    _once(place, modules, _key(place, [], [package]), make)
    return modules


def _once(place: Path, product: Path, wanted: str, make: "Callable[[bool], None]") -> None:
    """Have `make` fill the place unless its stamp says that this was done; it is told whether it only is outdated."""
    if _stamp(place) == wanted and product.exists():
        return
    with _lock(place):
        found = _stamp(place)
        if found == wanted and product.exists():
            return  # somebody else has just made it
        if found:
            (place / "stamp").unlink()
        make(bool(found) and product.exists())
        (place / "stamp.partial").write_text(wanted)
        (place / "stamp.partial").replace(place / "stamp")


def application() -> Path:
    """The environment that `scripts/start` and its like run in: this checkout, installed. Raises EnvironmentFailure."""
    return ensure("llm-calls", ["-e", str(ROOT)], [ROOT / "pyproject.toml"])


def become(command: "list[str]") -> None:
    """Go on as `llm-calls` with these arguments, inside the environment; does not return."""
    try:
        interpreter = application()
    except EnvironmentFailure as failure:
        fail(failure)
    except KeyboardInterrupt:
        _say("interrupted; the next start makes the environment anew")
        sys.exit(130)
    program = str(interpreter.with_name("llm-calls.exe" if os.name == "nt" else "llm-calls"))
    if os.name == "nt":
        sys.exit(subprocess.call([program, *command]))
    sys.stdout.flush()
    os.execv(program, [program, *command])


def fail(failure: "Exception | str") -> None:
    """Say what is wrong, in one line, and exit with status 2."""
    print(f"llm-calls: {failure}", file=sys.stderr)
    sys.exit(2)


# Finding a Python


def suitable_pythons() -> "list[Python]":
    """All Pythons that can run this and make environments, the newest first. Raises EnvironmentFailure if none can."""
    found, rejected = {}, []  # type: dict[tuple[int, ...], Python], list[str]
    for path in _candidates():
        python, reason = probe(path)
        if python and python.version[:2] not in found:
            found[python.version[:2]] = python
        elif reason and reason not in rejected:
            rejected.append(reason)
    if not found:
        raise EnvironmentFailure(_none_suitable(rejected))
    return [found[version] for version in sorted(found, reverse=True)]


def probe(path: str) -> "tuple[Python | None, str]":
    """Whether that is a suitable Python: it and "", or None and why not (in a word or two)."""
    try:
        done = subprocess.run(
            [path, "-I", "-c", PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            universal_newlines=True,  # noqa: UP021  # `text` came with 3.7
            timeout=PROBE_SECONDS,
            check=False,
        )
        lines = done.stdout.splitlines()
        version = tuple(int(part) for part in lines[1].split())
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None, ""  # a pyenv shim without its Python, for one: it is no Python
    name = "Python {}.{}.{}".format(*version)
    if version[:2] < OLDEST:
        return None, name
    if version[:2] > NEWEST:
        return None, f"{name} (not tried yet with what this needs)"
    if "venv" not in lines:
        return None, f"{name} without the module venv (Debian, Ubuntu: apt install python3-venv)"
    return Python(lines[0], version), ""


def _none_suitable(rejected: "list[str]") -> str:
    needed = "this needs Python {}.{} or newer, with its module venv".format(*OLDEST)
    return "{}; found here: {}".format(needed, "; ".join(rejected) or "none that runs")


def _candidates() -> "list[str]":
    """Where Pythons may be: under their names on the PATH, the running one, and in pyenv's folder."""
    names = [f"python{NEWEST[0]}.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    found = [shutil.which(name, path=folder) for name in [*names, "python3", "python"] for folder in folders if folder]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    kept = [str(path) for version in pyenv.glob("3.*") for path in version.glob("bin/python3")]
    usual = sys.executable
    return list(dict.fromkeys([path for path in found if path] + [usual] + sorted(kept, key=_by_number, reverse=True)))


def _by_number(path: str) -> "list[int]":
    return [int(part) for part in re.findall("[0-9]+", Path(path).parent.parent.name)]


# Making an environment


def _make(place: Path, install: "list[str]", pythons: "list[Python]") -> None:
    """Make the environment on the first Python on which everything can be installed."""
    if place.exists():
        _say(f"{_shown(place)} was left unfinished or no longer runs: making it anew")
    for number, python in enumerate(pythons):
        _say(f"making {_shown(place)} with {python.name}; this is done once and takes a minute")
        _clear(place)
        made = _run([python.path, "-I", "-m", "venv", str(place)], _log(place), "w")
        if made:
            raise EnvironmentFailure(f"{python.name} cannot make the environment {_shown(place)} (see {_log(place)})")
        try:
            _pip(place, install)
            return
        except NotInstallable:
            if number + 1 == len(pythons):
                raise
            _say(f"what this needs cannot be installed on {python.name}: trying an older one")


class NotInstallable(EnvironmentFailure):
    """pip reached its index, and yet failed."""


def _pip(place: Path, install: "list[str]") -> None:
    command = [str(_interpreter(place)), "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    status = _run(command + install, _log(place), "a")
    if not status:
        return
    said = _log(place).read_text(encoding="utf-8", errors="replace")
    if UNREACHABLE.search(said):
        raise EnvironmentFailure(
            "pip could not reach its package index: connect to the network, or set PIP_INDEX_URL or HTTPS_PROXY, "
            f"and start again (details: {_log(place)})"
        )
    errors = [line.strip() for line in said.splitlines() if line.lstrip().startswith("ERROR")]
    raise NotInstallable(f"pip failed: {(errors or [f'exit status {status}'])[-1]} (details: {_log(place)})")


def _run(command: "list[str]", log: Path, mode: str) -> int:
    environment = {name: value for name, value in os.environ.items() if not _points_nowhere(name, value)}
    environment.update(PIP_USER="0", PYTHONUTF8="1")
    with log.open(mode + "b") as output:
        return subprocess.call(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=str(ROOT)
        )


def _points_nowhere(name: str, value: str) -> bool:
    """Whether a variable names a proxy on this machine that does not run: the one that is about to be started."""
    if name.lower() not in ("https_proxy", "http_proxy", "all_proxy"):
        return False
    try:
        parts = urlsplit(value if "://" in value else "http://" + value)
        if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            return False
        socket.create_connection((parts.hostname, parts.port or 80), timeout=2).close()
    except (OSError, ValueError):
        return True
    return False


def _clear(place: Path) -> None:
    try:
        if place.exists():
            shutil.rmtree(str(place))
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFailure(f"{_shown(place)} cannot be made anew: {error}") from error


def _interpreter(place: Path) -> Path:
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _log(place: Path) -> Path:
    return place.with_name(place.name + ".log")


def _stamp(place: Path) -> str:
    try:
        return (place / "stamp").read_text()
    except OSError:
        return ""


def _key(place: Path, install: "list[str]", inputs: "list[Path]") -> str:
    """What an environment is made of; its own path too, since an environment that was moved does not run."""
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in inputs]
    return json.dumps([str(place), install, contents])


@contextmanager
def _lock(place: Path) -> "Iterator[None]":
    """Hold the environment's lock, waiting for whoever has it."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        held = place.with_name(place.name + ".lock").open("a+b")
    except OSError as error:
        raise EnvironmentFailure(f"no environment can be made in {place.parent}: {error}") from error
    with held:
        if os.name == "nt":
            import msvcrt

            held.seek(0)
            msvcrt.locking(held.fileno(), msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                _say(f"another process is making {_shown(place)}: waiting for it")
                fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _shown(place: Path) -> str:
    try:
        return str(place.relative_to(ROOT))
    except ValueError:
        return str(place)


def _say(line: str) -> None:
    print("llm-calls: " + line, file=sys.stderr)
    sys.stderr.flush()
