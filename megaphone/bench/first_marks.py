"""The first marks: word count in closed loop and at 100 k records/s, in turns with a plain numpy ring.

Each run is a process of its own; the rival and the engine alternate, so that a slow minute of the machine slows both.
Quoted are medians, and the ratio of each engine run to the rival's run just before it.

    python -m megaphone.bench.first_marks --repeat 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import Final

from megaphone.bench.runs import report_of

CLOSED: Final = ("--rate", "max")


@dataclass(frozen=True)
class Mark:
    """One line of the table.

    Attributes:
        name: what is measured.
        flags: of ``megaphone word-count``.
        rival_domain: keys of the rival's run that it is put beside; None: latency, which the ring has none of.
        to_reach: million records/s at least, or p99 in ms at most.
    """

    name: str
    flags: tuple[str, ...]
    rival_domain: int | None
    to_reach: float


MARKS: Final = (
    Mark("vec, 10 M keys", (*CLOSED, "--backend", "vec", "--domain", "10000000"), 10_000_000, 40.0),
    Mark("hashmap (mix), 10 M keys", (*CLOSED, "--backend", "hashmap", "--hash", "mix", "--domain", "10000000"),
         10_000_000, 20.0),
    Mark("100 k records/s in total: p99 ms", ("--total-rate", "100000", "--backend", "vec"), None, 2.0),
)  # fmt: skip


def measure(mark: Mark, seconds: float) -> float:
    """Return one run's figure: million records/s, or p99 in ms."""
    result = report_of("-w", "2", "--duration", str(seconds), *mark.flags)
    if mark.rival_domain is None:
        return float(result["latency_ns"]["p99"]) / 1e6
    return float(result["records_per_s"]) / 1e6


def measure_rival(domain: int, seconds: float) -> float:
    """Return the plain ring's million records/s."""
    module = "megaphone.bench.rivals.numpy_ring"
    command = [sys.executable, "-m", module, "--domain", str(domain), "--seconds", str(seconds)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(json.loads(out)["records_per_s"]) / 1e6


def main() -> int:
    """Measure all marks in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a run (default 5)")
    arguments = parser.parse_args()
    ours: dict[str, list[float]] = {mark.name: [] for mark in MARKS}
    rivals: dict[str, list[float]] = {mark.name: [] for mark in MARKS}
    for _ in range(arguments.repeat):
        for mark in MARKS:
            if mark.rival_domain is not None:
                rivals[mark.name].append(measure_rival(mark.rival_domain, arguments.seconds))
            ours[mark.name].append(measure(mark, arguments.seconds))
    out = sys.stdout
    out.write(f"{'':36}{'median':>9}{'least':>9}{'most':>9}{'mark':>8}{'numpy ring':>12}{'ratio':>8}\n")
    for mark in MARKS:
        mine, theirs = ours[mark.name], rivals[mark.name]
        rival = f"{statistics.median(theirs):.1f}" if theirs else "-"
        ratio = f"{statistics.median(a / b for a, b in zip(mine, theirs, strict=True)):.2f}" if theirs else "-"
        out.write(
            f"{mark.name:36}{statistics.median(mine):9.2f}{min(mine):9.2f}{max(mine):9.2f}{mark.to_reach:8.1f}"
            f"{rival:>12}{ratio:>8}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
