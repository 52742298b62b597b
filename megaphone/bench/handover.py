"""Does a hand-over cost anything per byte: the same migration with a thousand keys and with ten million, in turns.

    python -m megaphone.bench.handover --repeat 9

Each run moves a quarter of the bins all at once, there and back, at the same offered rate; quoted is the time from the
control instruction to the completion of its step, and the same with the time spent mapping pages ahead (warming).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Final

from megaphone.bench.runs import report_of

DOMAINS: Final = (1_000, 10_000_000)


def main() -> int:
    """Run the domains in turns and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=9, help="runs of each domain (default 9)")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a run (default 6)")
    parser.add_argument("--total-rate", default="200000", help="records/s over both workers (default 200000)")
    arguments = parser.parse_args()
    took: dict[int, list[float]] = {domain: [] for domain in DOMAINS}
    with_warming: dict[int, list[float]] = {domain: [] for domain in DOMAINS}
    copied = 0
    for _ in range(arguments.repeat):
        for domain in DOMAINS:
            report = report_of(
                "-w", "2", "--backend", "vec", "--domain", str(domain), "--duration", str(arguments.seconds),
                "--total-rate", arguments.total_rate, "--migration", "sudden",
            )  # fmt: skip
            for migration in report["migrations"]:
                took[domain].append(migration["duration_ns"] / 1e6)
                with_warming[domain].append((migration["duration_ns"] + migration["warming_ns"]) / 1e6)
                copied += migration["bytes_copied"]
    out = sys.stdout
    out.write(f"{'keys':>12}{'migrations':>12}{'median ms':>12}{'least':>9}{'most':>9}{'with warming':>14}\n")
    for domain in DOMAINS:
        times = took[domain]
        out.write(
            f"{domain:12,}{len(times):12}{statistics.median(times):12.2f}{min(times):9.2f}{max(times):9.2f}"
            f"{statistics.median(with_warming[domain]):14.2f}\n"
        )
    small, large = (statistics.median(with_warming[domain]) for domain in DOMAINS)
    out.write(f"ratio of medians, warming included: {large / small:.2f}; bytes of state copied: {copied}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
