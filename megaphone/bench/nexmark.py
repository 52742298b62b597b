"""NEXMark: the highest rate at which each query's p99 latency stays under 100 ms, and its latency at half of that.

Each run is a process of its own.  The search begins at what a closed loop takes and goes down until a run on schedule
keeps up twice: all events sent when they were due, and 99 of 100 done within the bound.  Plain and flex of a query
alternate, so that a slow minute slows both.  Two sizes: the benchmark's own, in which no window closes and few auctions
expire within seconds, and one in which they do, all the time.

    python -m megaphone.bench.nexmark --queries "q3 q5" --seconds 4
    python -m megaphone.bench.nexmark --held 8000000

``--held RATE`` is the other question: q8 with as many keys as that many events/s bring in half a minute, of which a
quarter changes its worker at a third, and back at two thirds.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from megaphone.bench.runs import report_of
from megaphone.errors import MegaphoneError

QUERIES: Final = tuple(f"q{number}" for number in range(9))
STYLES: Final = ("", "-flex")
BOUND_NS: Final = 100_000_000
KEPT_UP: Final = 0.98
"""Share of the events that were due in a run that must have been sent in it. All that are sent are waited for, and each
is a sample; the time that windows and auctions take that are still open at the end belongs to no event."""
DOWN: Final = 0.88
"""From one rate to the next, lower one."""
TRIES: Final = 16

SIZES: Final[dict[str, tuple[str, ...]]] = {
    "12 h": (),
    # Windows of half a second and auctions that live for about as long, at any rate that a machine can reach.
    "closing": ("--time-dilation", "1", "--in-flight", "20000", "--q5-window", "1", "--q5-slide", "0.1",
                "--q7-window", "0.5", "--q8-window", "1"),
}  # fmt: skip
"""Flags of each size: the benchmark's own windows, and short ones."""

ORIGINAL: Final = {
    "q0": 3.0, "q1": 4.0, "q2": 3.6, "q3": 3.0, "q4": 1.5, "q5": 2.2, "q6": 2.2, "q7": 5.5, "q8": 4.35,
    "q0-flex": 2.4, "q1-flex": 3.5, "q2-flex": 5.0, "q3-flex": 2.5, "q4-flex": 1.2, "q5-flex": 0.84, "q6-flex": 1.2,
    "q7-flex": 2.7, "q8-flex": 3.6,
}  # fmt: skip
"""Million events/s of the original on two threads of the machine on which it was measured, not this one."""


@dataclass(frozen=True)
class Found:
    """What the search for one query gave.

    Attributes:
        query: with -flex or without.
        size: key of SIZES.
        closed: million events/s of a closed loop.
        highest: million events/s on schedule with p99 under the bound; 0 where no try kept up.
        half_p50_ms: latency at half of that.
        half_p99_ms: the same, 99 of 100.
        half_max_ms: the same, all.
        tries: rates that it took.
    """

    query: str
    size: str
    closed: float
    highest: float
    half_p50_ms: float
    half_p99_ms: float
    half_max_ms: float
    tries: int


def run(query: str, size: str, seconds: float, workers: int, *more: str) -> dict[str, Any]:
    """Run one query once and return the report."""
    flags = ("--queries", query, "-w", str(workers), "--duration", str(seconds), *SIZES[size], *more)
    return report_of(*flags, job="nexmark")


def on_schedule(query: str, size: str, rate: float, seconds: float, workers: int) -> dict[str, Any] | None:
    """Offer a rate; the report of a run that kept up within the bound, else None."""
    report = run(query, size, seconds, workers, "--total-rate", str(int(rate)))
    kept_up = float(report["records"]) >= KEPT_UP * rate * seconds
    return report if kept_up and float(report["latency_ns"]["p99"]) <= BOUND_NS else None


def keeps_up(query: str, size: str, rate: float, seconds: float, workers: int) -> bool:
    """Whether two runs in a row keep up: one may be lucky."""
    return all(on_schedule(query, size, rate, seconds, workers) for _ in range(2))


def search(query: str, size: str, seconds: float, workers: int) -> Found:
    """Find the highest rate of a query and the latency at half of it."""
    closed = float(run(query, size, seconds, workers, "--rate", "max")["records_per_s"])
    rate, tries, kept = closed, 1, False
    while not kept and tries <= TRIES:
        rate *= DOWN
        kept = keeps_up(query, size, rate, seconds, workers)
        tries += 1
    if not kept:
        return Found(query, size, closed / 1e6, 0.0, 0.0, 0.0, 0.0, tries)
    latency = run(query, size, seconds, workers, "--total-rate", str(int(rate / 2)))["latency_ns"]
    half = {name: float(latency[name]) / 1e6 for name in ("p50", "p99", "max")}
    return Found(query, size, closed / 1e6, rate / 1e6, half["p50"], half["p99"], half["max"], tries + 1)


def line(found: Found, plain: Found | None) -> str:
    """Return one row of the table."""
    of_plain = f"{found.highest / plain.highest:8.2f}" if plain is not None and plain.highest else " " * 8
    of_original = f"{found.highest / ORIGINAL[found.query]:8.1f}" if found.size == "12 h" else " " * 8
    return (
        f"{found.query:9} {found.size:8}{found.closed:9.2f}{found.highest:9.2f}{of_plain}{of_original}"
        f"{found.half_p50_ms:9.2f}{found.half_p99_ms:9.2f}{found.half_max_ms:9.2f}{found.tries:6}"
    )


HEAD: Final = f"{'query':9} {'size':8}" + "".join(
    f"{name:>{width}}"
    for name, width in (("closed", 9), ("highest", 9), ("/plain", 8), ("/orig.", 8), ("p50", 9), ("p99", 9), ("max", 9),
                        ("tries", 6))
)  # fmt: skip


def measure(queries: list[str], sizes: list[str], seconds: float, workers: int) -> list[Found]:
    """Search for all of them and print a line for each as it comes."""
    out = sys.stdout
    out.write(f"million events/s over {workers} workers; latency in ms at half of the highest rate with p99 < 100 ms\n")
    out.write(f"{HEAD}\n")
    results: list[Found] = []
    for size in sizes:
        for query in queries:
            plain: Found | None = None
            for style in STYLES:
                found = search(query + style, size, seconds, workers)
                out.write(f"{line(found, plain)}\n")
                out.flush()
                results.append(found)
                plain = found
    return results


def measure_held(rate: int, workers: int) -> None:
    """Run q8 on schedule with event time 79 times as fast as the clock, migrate, and print what that cost."""
    flags = ("--queries", "q8-flex", "-w", str(workers), "--total-rate", str(rate), "--duration", "30")
    report = report_of(*flags, "--time-dilation", "79", "--migration", "sudden", job="nexmark")
    out = sys.stdout
    latency = {name: report["latency_ns"][name] / 1e6 for name in ("p50", "p99", "max")}
    out.write("latency of the run: " + ", ".join(f"{name} {value:.2f} ms" for name, value in latency.items()) + "\n")
    for number, migration in enumerate(report["migrations"], 1):
        out.write(
            f"migration {number}: {migration['keys']:,} keys, {migration['bytes_moved'] / 2**20:,.0f} MiB moved, "
            f"{migration['bytes_copied']:,} bytes copied, took {migration['duration_ns'] / 1e6:.2f} ms; "
            f"of what was due then p99.9 {migration['latency_ns_p999'] / 1e6:.2f}, "
            f"max {migration['latency_ns_max'] / 1e6:.2f} ms\n"
        )


def main() -> int:
    """Measure, print, and with --output write all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", default=" ".join(QUERIES), help="such as 'q3 q5' (default all)")
    parser.add_argument("--sizes", default=",".join(SIZES), help=f"of {', '.join(SIZES)}, with commas (default all)")
    parser.add_argument("--seconds", type=float, default=5.0, help="each run's (default 5)")
    parser.add_argument("-w", "--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, help="a file for all figures as JSON")
    parser.add_argument("--held", type=int, metavar="RATE", help="instead: q8 with millions of keys that move")
    arguments = parser.parse_args()
    if arguments.held:
        measure_held(arguments.held, arguments.workers)
        return 0
    queries, sizes = arguments.queries.split(), arguments.sizes.split(",")
    if unknown := [*(q for q in queries if q not in QUERIES), *(s for s in sizes if s not in SIZES)]:
        parser.error(f"{unknown[0]!r} is none: use queries of {' '.join(QUERIES)} and sizes of {', '.join(SIZES)}")
    try:
        results = measure(queries, sizes, arguments.seconds, arguments.workers)
    except MegaphoneError as error:
        sys.stderr.write(f"nexmark: {error}\n")
        return error.exit_code
    if arguments.output:
        arguments.output.write_text(json.dumps([vars(found) for found in results], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
