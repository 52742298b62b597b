"""NEXMark: the highest rate at which a query's p99 latency stays under 100 ms, and its latency at half of that.

Each run is a process of its own.  The search begins at what a closed loop takes and goes up or down in steps of 12 %
until runs on schedule keep up, twice: all events sent when they were due, and 99 of 100 done within the bound.  One
query at a time: `megaphone bench run nexmark` takes all of them in turns.  Two sizes of windows: the benchmark's own,
in which none closes and few auctions expire within seconds, and one in which they do, all the time.

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
from typing import TYPE_CHECKING, Any, Final

from megaphone.bench.runs import report_of
from megaphone.errors import MegaphoneError

if TYPE_CHECKING:
    from collections.abc import Callable

QUERIES: Final = tuple(f"q{number}" for number in range(9))
BOUND_NS: Final = 100_000_000
KEPT_UP: Final = 0.98
"""Share of the events that were due in a run that must have been sent in it. All that are sent are waited for, and each
is a sample; the time that windows and auctions take that are still open at the end belongs to no event."""
DOWN: Final = 0.88
"""From one rate to the next, lower one."""
RUNGS_UP: Final = 12
RUNGS_DOWN: Final = 24
"""How far it looks: from 4.6 times what the closed loop took to a twentieth of it.  The closed loop's rate has the
closing of all windows at its end in it, so that on schedule there may be more to be had."""

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
        tries: runs that it took.
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
    """Whether a run keeps up with a rate within the bound."""
    report = job.run("--total-rate", str(int(rate)))
    kept_up = float(report["records"]) >= KEPT_UP * rate * job.seconds
    return kept_up and float(report["latency_ns"]["p99"]) <= BOUND_NS


def highest_rung(holds: Callable[[int], bool]) -> int | None:
    """Return the first rung of a ladder that leads down which holds, or None where none does.

    From rung 0 on by 1, 2, 4 ... rungs up or down until one does what its neighbour did not, then by halves.

    Args:
        holds: whether a rung does, from ``-RUNGS_UP`` to ``RUNGS_DOWN``; those below one that holds do as well.  Asked
            once for each rung, about twice log2 of the way times.
    """
    way = -1 if holds(0) else 1
    last, at, end = 0, way, RUNGS_DOWN if way > 0 else -RUNGS_UP
    while holds(at) == (way < 0):
        if at == end:
            return None if way > 0 else at
        last, at = at, max(min(at + 2 * (at - last), RUNGS_DOWN), -RUNGS_UP)
    above, below = sorted((last, at))
    while below - above > 1:
        middle = (above + below) // 2
        above, below = (above, middle) if holds(middle) else (middle, below)
    return below


def search(job: Job, once: bool = False) -> Found:
    """Find the highest rate of a query and the latency at half of it; once: take the closed loop's for it."""
    closed = float(job.run("--rate", "max")["records_per_s"])
    tries = 1

    def holds(rung: int) -> bool:
        nonlocal tries
        tries += 1
        return keeps_up(job, closed * DOWN**rung)

    rung = 0 if once else highest_rung(holds)
    # One run may be lucky: the rate that counts has held twice.
    while not once and rung is not None and not holds(rung):
        rung = next((lower for lower in range(rung + 1, RUNGS_DOWN + 1) if holds(lower)), None)
    if rung is None:
        return Found(job.query, job.windows, closed / 1e6, 0.0, 0.0, 0.0, 0.0, tries)
    rate = closed * DOWN**rung
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
