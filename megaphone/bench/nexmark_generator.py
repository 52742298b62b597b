"""How fast NEXMark's events are made on one core: the C generators in turns with the same events made by numpy.

    python -m megaphone.bench.nexmark_generator --repeat 5

Each run is a process of its own and makes piece after piece into the same arrays, as a source does that fills batches.
Quoted are events per second of processor time, so that a neighbour on the machine takes little away; medians, and the
median of the ratios to the numpy run just before.  The checksum is of the same first events: C and numpy must agree.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from megaphone.workloads.nexmark.events import Events, Generator
from megaphone.workloads.nexmark.numpy_events import fast_events

RATE: Final = 1e6
MARK: Final = 40.0
"""Million events per second and core that the fast generator must make."""
PIECE_EVENTS: Final = 1 << 16
BID_COLUMNS: Final = ("auction", "bidder", "price")
RIVAL: Final = "numpy, all columns"
# Name of each job: kind of generator, and whether only what q5 and q7 read of a bid is made.
JOBS: Final[dict[str, tuple[str, bool]]] = {
    RIVAL: ("numpy", False),
    "fast, all columns": ("fast", False),
    "fast, three columns of bids": ("fast", True),
    "exact, all columns": ("exact", False),
}


def checksum(events: Events) -> int:
    """Return a number that changes with any value of any column."""
    total = 0
    for stream in events:
        for place, array in enumerate(stream.values()):
            weights = np.arange(1, len(array) + 1, dtype=np.uint64) * np.uint64(2 * place + 1)
            total += int((array.astype(np.uint64) * weights).sum(dtype=np.uint64))
    return total % 2**64


def measure(job: str, seconds: float) -> dict[str, Any]:
    """Make events for some seconds of processor time and return the rate and the checksum of the first piece."""
    kind, bids_only = JOBS[job]
    make: Callable[[int], object]
    if kind == "numpy":
        first = fast_events(np.arange(PIECE_EVENTS, dtype=np.uint64), RATE)

        def make(piece: int, /) -> object:
            start = piece * PIECE_EVENTS
            return fast_events(np.arange(start, start + PIECE_EVENTS, dtype=np.uint64), RATE)

    else:
        generator = Generator("exact" if kind == "exact" else "fast", 0, 1, RATE)
        first = generator.take(PIECE_EVENTS)
        room = Events(*({name: np.empty(PIECE_EVENTS, a.dtype) for name, a in stream.items()} for stream in first))
        bid = {name: room.bid[name] for name in BID_COLUMNS} if bids_only else room.bid
        targets = (None, None, bid) if bids_only else (room.person, room.auction, bid)

        def make(_: int, /) -> object:
            return generator.fill(PIECE_EVENTS, *targets)

    pieces, start = 0, time.process_time()
    while (took := time.process_time() - start) < seconds or pieces == 0:
        pieces += 1
        make(pieces)
    return {"million_per_s": pieces * PIECE_EVENTS / max(took, 1e-9) / 1e6, "checksum": checksum(first)}


def measure_apart(job: str, seconds: float) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "megaphone.bench.nexmark_generator", "--job", job, "--seconds", str(seconds)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = json.loads(out)
    return result


def main() -> int:
    """Measure all jobs in turns and print a table; 1 if C and numpy make other events."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="processor time of a run (default 2)")
    parser.add_argument("--job", choices=JOBS, help="run one once, and print one JSON object")
    arguments = parser.parse_args()
    out = sys.stdout
    if arguments.job:
        out.write(json.dumps(measure(arguments.job, arguments.seconds)) + "\n")
        return 0
    rates: dict[str, list[float]] = {job: [] for job in JOBS}
    checksums: dict[str, int] = {}
    for _ in range(arguments.repeat):
        for job in JOBS:
            result = measure_apart(job, arguments.seconds)
            rates[job].append(result["million_per_s"])
            checksums[job] = result["checksum"]
    out.write(f"{'million events/s of one core':32}{'median':>9}{'least':>9}{'most':>9}{'mark':>7}{'ratio':>8}")
    out.write("  checksum\n")
    for job, mine in rates.items():
        ratio = statistics.median(a / b for a, b in zip(mine, rates[RIVAL], strict=True))
        mark = f"{MARK:.0f}" if JOBS[job][0] == "fast" else "-"
        out.write(
            f"{job:32}{statistics.median(mine):9.2f}{min(mine):9.2f}{max(mine):9.2f}{mark:>7}{ratio:8.1f}"
            f"  {checksums[job]:016x}\n"
        )
    if len({checksums[job] for job in JOBS if JOBS[job][0] != "exact"}) != 1:
        sys.stderr.write("nexmark_generator: C and numpy make other events\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
