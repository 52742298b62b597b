"""NEXMark: the highest rate at which a query's p99 latency stays under 100 ms, and its latency at half of that.

Each run is a process of its own.  The search begins at what a closed loop takes and goes down until a run on schedule
keeps up twice: all events sent when they were due, and 99 of 100 done within the bound.  One query at a time:
`megaphone bench run nexmark` takes all of them in turns.  Two sizes of windows: the benchmark's own, in which none
closes and few auctions expire within seconds, and one in which they do, all the time.

    python -m megaphone.bench.nexmark --query q3-flex --seconds 4
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
BOUND_NS: Final = 100_000_000
KEPT_UP: Final = 0.98
"""Share of the events that were due in a run that must have been sent in it. All that are sent are waited for, and each
is a sample; the time that windows and auctions take that are still open at the end belongs to no event."""
DOWN: Final = 0.88
"""From one rate to the next, lower one."""
TRIES: Final = 16

SIZES: Final[dict[str, tuple[str, ...]]] = {
    "12h": (),
    # Windows of half a second and auctions that live for about as long, at any rate that a machine can reach.
    "closing": ("--time-dilation", "1", "--in-flight", "20000", "--q5-window", "1", "--q5-slide", "0.1",
                "--q7-window", "0.5", "--q8-window", "1"),
}  # fmt: skip
"""Flags of each size: the benchmark's own windows, and short ones."""


@dataclass(frozen=True)
class Job:
    """What is measured.

    Attributes:
        query: with -flex or without.
        windows: key of SIZES.
        seconds: of a run.
        workers: processes.
        seed: of the events.
    """

    query: str
    windows: str
    seconds: float
    workers: int
    seed: int

    def run(self, *more: str) -> dict[str, Any]:
        """Run it once in a process of its own and return the report."""
        flags = ("--queries", self.query, "-w", str(self.workers), "--duration", str(self.seconds),
                 "--seed", str(self.seed), *SIZES[self.windows])  # fmt: skip
        return report_of(*flags, *more, job="nexmark")


@dataclass(frozen=True)
class Found:
    """What the search for one query gave.

    Attributes:
        query: with -flex or without.
        windows: key of SIZES.
        closed_m_s: million events/s of a closed loop.
        highest_m_s: million events/s on schedule with p99 under the bound; 0 where no try kept up.
        half_p50_ms: latency at half of that.
        half_p99_ms: the same, 99 of 100.
        half_max_ms: the same, all.
        tries: rates that it took.
    """

    query: str
    windows: str
    closed_m_s: float
    highest_m_s: float
    half_p50_ms: float
    half_p99_ms: float
    half_max_ms: float
    tries: int


def keeps_up(job: Job, rate: float) -> bool:
    """Whether two runs in a row keep up with a rate within the bound: one may be lucky."""
    for _ in range(2):
        report = job.run("--total-rate", str(int(rate)))
        kept_up = float(report["records"]) >= KEPT_UP * rate * job.seconds
        if not kept_up or float(report["latency_ns"]["p99"]) > BOUND_NS:
            return False
    return True


def search(job: Job, once: bool = False) -> Found:
    """Find the highest rate of a query and the latency at half of it; once: take the closed loop's for it."""
    closed = float(job.run("--rate", "max")["records_per_s"])
    rate, tries, kept = closed, 1, once
    while not kept and tries <= TRIES:
        rate *= DOWN
        kept = keeps_up(job, rate)
        tries += 1
    # The closed loop's rate has the closing of all windows at its end in it: on schedule there may be more to be had.
    while kept and not once and tries <= TRIES and keeps_up(job, rate / DOWN):
        rate /= DOWN
        tries += 1
    if not kept:
        return Found(job.query, job.windows, closed / 1e6, 0.0, 0.0, 0.0, 0.0, tries)
    latency = job.run("--total-rate", str(int(rate / 2)))["latency_ns"]
    p50, p99, most = (float(latency[name]) / 1e6 for name in ("p50", "p99", "max"))
    return Found(job.query, job.windows, closed / 1e6, rate / 1e6, p50, p99, most, tries + 1)


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
    """Search for one query, or move what is held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--query", default="q3", help="such as q3 or q3-flex (default q3)")
    parser.add_argument("--windows", default="12h", choices=list(SIZES), help="12h, the benchmark's, or closing")
    parser.add_argument("--seconds", type=float, default=5.0, help="each run's (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the events (default 0)")
    parser.add_argument("-w", "--workers", type=int, default=2)
    parser.add_argument("--once", action="store_true", help="the closed loop and its half alone, without a search")
    parser.add_argument("--report", type=Path, help="a file for the figures, as JSON")
    parser.add_argument("--held", type=int, metavar="RATE", help="instead: q8 with millions of keys that move")
    arguments = parser.parse_args()
    if arguments.query.removesuffix("-flex") not in QUERIES:
        parser.error(f"argument --query: {arguments.query!r} is none: use {', '.join(QUERIES)}, or one with -flex")
    job = Job(arguments.query, arguments.windows, arguments.seconds, arguments.workers, arguments.seed)
    try:
        if arguments.held:
            measure_held(arguments.held, arguments.workers)
            return 0
        found = search(job, arguments.once)
    except MegaphoneError as error:
        sys.stderr.write(f"nexmark: {error}\n")
        return error.exit_code
    for name, value in vars(found).items():
        sys.stdout.write(f"{name:14}{value:>12.3f}\n" if isinstance(value, float) else f"{name:14}{value:>12}\n")
    if arguments.report:
        arguments.report.write_text(json.dumps(vars(found)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
