"""What our addon costs a proxy: no proxy, a plain mitmdump, one with a two-line `stream=True` addon, and ours.

    .envs/test/bin/python scripts/bench/proxy.py [--quick] [calls] [streams] [held] [memory]

`scripts/test tests/unit` makes that environment in a fresh clone. Linux only; about eight minutes, with --quick one.
The variants take turns within a round, and a ratio is the median of the rounds' ratios. The clients, the upstream (TLS,
answers made beforehand), the proxy and our worker are processes of their own which share the machine's cores: where
there are few of them, calls a second are also about the others, and CPU time per call (user and system, of the proxy's
process; the worker's apart) is the measure to go by. Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("scripts", "addon", "tests")]

from bench import load, machine  # noqa: E402
from bench.variants import DIRECT, OURS, PLAIN, SLOWER, TWO_LINES, Cost, Stage, Variant, check_platform, stage  # noqa: E402

Loader = Callable[[Variant], "load.Answers | load.Chunks"]
_MISSING = "-"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured; times in seconds."""

    rounds: int = 7
    seconds: float = 2.0
    chunks: int = 200
    calls: int = 20_000
    upload: int = 200_000_000


QUICK = Effort(rounds=2, seconds=1.0, chunks=20, calls=2_000, upload=50_000_000)


@dataclass(frozen=True, slots=True)
class Sample:
    """One load on one variant. Times in ms; `cpu` and `worker`: CPU time per call, or per event of a stream."""

    rate: float
    first: float
    middle: float
    high: float
    cpu: float
    worker: float


def main() -> None:
    sections = {"calls": calls, "streams": streams, "held": held, "memory": memory}
    parser = argparse.ArgumentParser(description="What our addon costs a proxy.")
    parser.add_argument("--quick", action="store_true", help="a short run, for a first impression")
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(sections)}; usually all")
    arguments = parser.parse_args()
    unknown = set(arguments.sections) - set(sections)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: there is no such section")
    check_platform()
    effort = QUICK if arguments.quick else Effort()
    print(f"{machine.describe()}; {effort.rounds} rounds of calls and streams\n", flush=True)
    for name in arguments.sections or sections:
        with tempfile.TemporaryDirectory() as folder, stage(Path(folder)) as built:
            sections[name](built, effort)
        print(flush=True)


# Calls


def calls(built: Stage, effort: Effort) -> None:
    """Calls a second, latency and CPU time."""
    seconds = effort.seconds
    loads: dict[str, Loader] = {
        "keep-alive, 1 client": lambda one: load.keep_alive(one.target, 1, seconds=seconds),
        "keep-alive, 16 clients": lambda one: load.keep_alive(one.target, 16, seconds=seconds),
        "a new connection each": lambda one: load.new_connections(one.target, seconds=seconds),
    }
    with built.variants(DIRECT, PLAIN, TWO_LINES, OURS, SLOWER) as variants:
        found = in_turns(variants, loads, effort.rounds)
    table("calls", "calls/s", "p50 ms", "p99 ms", "CPU ms/call", "worker's", "calls/s ÷ plain", "CPU ÷ plain")
    for what, samples in found.items():
        for name, some in samples.items():
            compared = [ratio(samples, name, PLAIN, measure) for measure in (_rate, _cpu)]
            row(
                f"{what}: {name}",
                number(some, _rate, 0),
                number(some, lambda one: one.middle, 2),
                number(some, lambda one: one.high, 2),
                number(some, _cpu, 2) if name != DIRECT else _MISSING,
                number(some, lambda one: one.worker, 2) if name in (OURS, SLOWER) else _MISSING,
                *(compared if name not in (DIRECT, PLAIN) else (_MISSING, _MISSING)),
            )


def streams(built: Stage, effort: Effort) -> None:
    """Delay of the events of streams."""
    loads: dict[str, Loader] = {
        "1 stream, 20 ms": lambda one: load.streams(one.target, 1, chunks=effort.chunks, pause=0.02),
        "100 streams, 50 ms": lambda one: load.streams(one.target, 100, chunks=effort.chunks // 4, pause=0.05),
    }
    with built.variants(DIRECT, TWO_LINES, OURS) as variants:
        found = in_turns(variants, loads, effort.rounds)
    table("streams", "first event ms", "delay p50 ms", "p99 ms", "CPU ms/event", "delay ÷ two-line", "CPU ÷ two-line")
    for what, samples in found.items():
        for name, some in samples.items():
            compared = [ratio(samples, name, TWO_LINES, measure) for measure in (_middle, _cpu)]
            row(
                f"{what}: {name}",
                number(some, lambda one: one.first, 2),
                number(some, _middle, 2),
                number(some, lambda one: one.high, 2),
                number(some, _cpu, 3) if name != DIRECT else _MISSING,
                *(compared if name == OURS else (_MISSING, _MISSING)),
            )


def in_turns(
    variants: Sequence[Variant], loads: Mapping[str, Loader], rounds: int
) -> dict[str, dict[str, list[Sample]]]:
    """Put each load on each variant, in turns that change their order from round to round."""
    found: dict[str, dict[str, list[Sample]]] = {what: {one.name: [] for one in variants} for what in loads}
    for turn in range(rounds):
        for what, one_load in loads.items():
            for variant in variants if turn % 2 == 0 else reversed(variants):
                with Cost(variant) as cost:
                    answers = one_load(variant)
                found[what][variant.name].append(sample(answers, cost))
    return found


def sample(answers: load.Answers | load.Chunks, cost: Cost) -> Sample:
    times = answers.latencies if isinstance(answers, load.Answers) else answers.delays
    first = machine.median(answers.first) if isinstance(answers, load.Chunks) else 0.0
    rate = answers.rate if isinstance(answers, load.Answers) else 0.0
    middle, high = machine.median(times), machine.percentile(times, 0.99)
    each = 1000 / len(times)
    return Sample(rate, 1000 * first, 1000 * middle, 1000 * high, each * cost.proxy, each * cost.worker)


# What the commit costs


def held(built: Stage, effort: Effort) -> None:
    """How long the end of a response waits for the spool."""
    table("end of a response held back", "median ms", "p99 ms", "responses")
    loads: dict[str, Loader] = {
        "1 client": lambda one: load.keep_alive(one.target, 1, seconds=effort.seconds),
        "16 clients": lambda one: load.keep_alive(one.target, 16, seconds=effort.seconds),
        "100 streams, 50 ms": lambda one: load.streams(one.target, 100, chunks=effort.chunks // 4, pause=0.05),
    }
    for what, one_load in loads.items():
        times = holding(built, one_load)
        row(what, f"{machine.median(times):.3f}", f"{machine.percentile(times, 0.99):.3f}", str(len(times)))


def holding(built: Stage, one_load: Loader) -> list[float]:
    """The times, in ms, for which our hook held back responses under a load, the warm-up's too."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "times.json"
        scripts = [Path(__file__).with_name("holding.py")]
        with built.variant(OURS, scripts=scripts, environment={"LLM_CALLS_BENCH_HOLDING": str(file)}) as variant:
            one_load(variant)
        return [microseconds / 1000 for microseconds in json.loads(file.read_text())]


# Memory


def memory(built: Stage, effort: Effort) -> None:
    """How a proxy's memory grows."""
    million = effort.upload // 1_000_000
    table(
        "memory of the proxy", f"{effort.calls:,} calls: growth MiB", f"{million} MB upload: growth MiB", "at its peak"
    )
    for name in (PLAIN, TWO_LINES, OURS):
        with grown(built, name) as over_calls:
            load.keep_alive(over_calls.variant.target, 16, calls=effort.calls)
        with grown(built, name) as over_upload:
            load.upload(over_upload.variant.target, effort.upload)
        row(name, f"{over_calls.growth:.1f}", f"{over_upload.growth:.1f}", f"{over_upload.peak:.1f}")


class Growth:
    """MiB by which a variant's memory grew during a `with` block; `peak`: by which it ever was higher."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.growth = 0.0
        self.peak = 0.0


@contextlib.contextmanager
def grown(built: Stage, name: str) -> Iterator[Growth]:
    """Measure a variant of its own, that has been warmed up by two thousand calls."""
    with built.variant(name) as variant:
        pid = variant.pid
        assert pid is not None
        load.keep_alive(variant.target, 16, calls=2_000)
        growth = Growth(variant)
        before = machine.resident(pid)
        machine.begin_peak(pid)
        yield growth
        growth.peak = machine.peak(pid) - before
        growth.growth = machine.resident(pid) - before


# Tables


def table(*titles: str) -> None:
    row(*titles)
    row(*(":--" if place == 0 else "--:" for place in range(len(titles))))


def row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def number(samples: Sequence[Sample], measure: Callable[[Sample], float], digits: int) -> str:
    return f"{machine.median([measure(one) for one in samples]):,.{digits}f}"


def ratio(samples: Mapping[str, Sequence[Sample]], name: str, other: str, measure: Callable[[Sample], float]) -> str:
    """The median of what a measure was in one variant, divided by what it was in the other in the same round."""
    pairs = zip(samples[name], samples[other], strict=True)
    return f"{machine.median([measure(one) / measure(beside) for one, beside in pairs if measure(beside)]):.2f}"


def _rate(one: Sample) -> float:
    return one.rate


def _cpu(one: Sample) -> float:
    return one.cpu


def _middle(one: Sample) -> float:
    return one.middle


if __name__ == "__main__":
    main()
