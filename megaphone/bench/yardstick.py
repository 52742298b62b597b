"""What this machine gives at this minute, without the engine: plain C loops over shared memory, by one process or two.

    python -m megaphone.bench.yardstick                                     # a table, in about 5 s
    python -m megaphone.bench.yardstick --quick --report yardstick.json     # what stands beside an experiment

A figure of the engine means something only beside one of these, taken in the same minute: a shared machine gives half
as much an hour later.  The loops are in ``yardstick.c``::

    this process --mmap, anonymous and shared--> control | part 0 | part 1
         |  mp_yard_start: fork                     |
         |                child: part 1  -- barrier, loop until the time is over, outcome --> _exit
         +-- mp_yard_work: part 0        -- barrier, loop until the time is over, outcome --> compare, divide

A rate over two processes is the sum of their counts over the time from the first start to the last end.  What a loop
leaves in memory must agree with what it counted; otherwise there is no figure, but an error.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi, lib
from megaphone.bench.yardstick_run import Loop, Run, refuse_wrong, run_loop, shared_memory, task_of
from megaphone.errors import MegaphoneError, UsageError
from megaphone.observe.files import check_writable, write_whole
from megaphone.observe.machine import describe_machine
from megaphone.shm.limits import MIB

SECONDS: Final = 0.25
"""Length of one loop unless told otherwise: the whole then takes about 5 s."""
QUICK_SECONDS: Final = 0.2
"""The same for what stands beside an experiment: about 2 s."""
MASK: Final = 2**64 - 1

NAMES: Final[dict[str, tuple[str, str]]] = {
    "copy_1m_gb_s_1": ("GB/s", "memcpy inside 1 MB of shared memory, bytes copied, 1 process"),
    "copy_1m_gb_s_2": ("GB/s", "the same by 2 processes, 1 MB each, together"),
    "copy_256m_gb_s_1": ("GB/s", "memcpy inside 256 MB of shared memory, 1 process"),
    "copy_256m_gb_s_2": ("GB/s", "the same by 2 processes, 256 MB each, together"),
    "increments_8mb_m_s_1": ("M/s", "random increments of 64-bit cells, 8 MB, 1 process"),
    "increments_8mb_m_s_2": ("M/s", "the same by 2 processes, 8 MB each, together"),
    "increments_80mb_m_s_1": ("M/s", "random increments, 80 MB, 1 process"),
    "increments_80mb_m_s_2": ("M/s", "the same by 2 processes, 80 MB each, together"),
    "increments_80mb_prefetch_m_s_1": ("M/s", "random increments, 80 MB, prefetched 32 ahead, 1 process"),
    "increments_80mb_prefetch_m_s_2": ("M/s", "the same by 2 processes, 80 MB each, together"),
    "ring_m_records_s": ("M/s", "records of 16 bytes written by one process, summed by the other"),
    "hop_ns": ("ns", "a cache line one way between 2 processes, median"),
    "held_up_ms_p99": ("ms", "work that comes at any moment, until 2 processes that never sleep have both run, p99"),
    "held_up_ms_p999": ("ms", "the same, 99.9th percentile"),
    "futex_wake_us_p50": ("us", "from a wake-up until the sleeper on another core runs, median"),
    "futex_wake_us_p99": ("us", "the same, 99th percentile"),
    "first_touch_us_per_page_1": ("us", "first touch of a page of shared memory, 1 process"),
    "first_touch_us_per_page_2": ("us", "the same in each of 2 processes that do so at once"),
}
"""Unit and meaning of each figure. More is better, unless it is a time."""

QUICK: Final[dict[str, tuple[str, str]]] = {
    name: NAMES[name]
    for name in (
        "copy_256m_gb_s_2",
        "increments_8mb_m_s_2",
        "increments_80mb_prefetch_m_s_2",
        "ring_m_records_s",
        "hop_ns",
        "held_up_ms_p99",
        "held_up_ms_p999",
        "futex_wake_us_p50",
    )
}
"""What accompanies an experiment."""


_PART_BYTES_LEAST: Final = 1 * MIB
LOOPS: Final[dict[str, Loop]] = {
    **{f"copy_1m_gb_s_{n}": Loop(lib.MP_YARD_COPY, n, MIB) for n in (1, 2)},
    **{f"copy_256m_gb_s_{n}": Loop(lib.MP_YARD_COPY, n, 256 * MIB) for n in (1, 2)},
    **{f"increments_8mb_m_s_{n}": Loop(lib.MP_YARD_INCREMENTS, n, 8 * MIB) for n in (1, 2)},
    **{f"increments_80mb_m_s_{n}": Loop(lib.MP_YARD_INCREMENTS, n, 80 * MIB) for n in (1, 2)},
    **{f"increments_80mb_prefetch_m_s_{n}": Loop(lib.MP_YARD_INCREMENTS, n, 80 * MIB, True) for n in (1, 2)},
    "ring_m_records_s": Loop(lib.MP_YARD_RING, 2, lib.MP_YARD_RING_BYTES),
    "hop_ns": Loop(lib.MP_YARD_HOP, 2, _PART_BYTES_LEAST),
    # What else the machine does comes by some times a second: a quarter of one does not show it.
    "held_up_ms_p99": Loop(lib.MP_YARD_HOP, 2, _PART_BYTES_LEAST, longer=4),
    "held_up_ms_p999": Loop(lib.MP_YARD_HOP, 2, _PART_BYTES_LEAST, longer=4),
    "futex_wake_us_p50": Loop(lib.MP_YARD_WAKE, 2, _PART_BYTES_LEAST),
    "futex_wake_us_p99": Loop(lib.MP_YARD_WAKE, 2, _PART_BYTES_LEAST),
    **{f"first_touch_us_per_page_{n}": Loop(lib.MP_YARD_TOUCH, n, 256 * MIB) for n in (1, 2)},
}


def measure(names: Sequence[str], seconds: float) -> dict[str, float]:
    """Measure some figures, each loop for some seconds.

    Args:
        names: of `NAMES`.
        seconds: length of one loop; its memory is made ready before.

    Returns:
        The figures by name, in the order of `NAMES` and in the units given there.

    Raises:
        UsageError: there is no figure of that name, or the length is none.
        SharedMemoryError: the machine has less memory than the loops need.
        MegaphoneError: the second process was killed or hangs.
        InternalError: what a loop left in memory is not what it counted.
    """
    return _measure(names, seconds)[0]


def _measure(names: Sequence[str], seconds: float) -> tuple[dict[str, float], dict[str, int]]:
    """Return figures, and the checksums that were compared, both by name."""
    if unknown := [name for name in names if name not in NAMES]:
        message = f"no figure is called {unknown[0]!r}: choose from {', '.join(NAMES)}"
        raise UsageError(message)
    if not 0 < seconds < math.inf:
        message = f"{seconds:g} s is no length of a loop: give a number above 0"
        raise UsageError(message)
    wanted: dict[Loop, list[str]] = {}
    for name in NAMES:
        if name in names:
            wanted.setdefault(LOOPS[name], []).append(name)
    if not wanted:
        return {}, {}
    figures: dict[str, float] = {}
    checks: dict[str, int] = {}
    memory = shared_memory(max(int(lib.mp_yard_area_bytes(task_of(loop, seconds))) for loop in wanted))
    area = ffi.from_buffer(memory, require_writable=True)
    try:
        for loop, loop_names in wanted.items():
            run = run_loop(area, loop, seconds, loop_names[0])
            check = _check(run, loop_names[0])
            for name in loop_names:
                figures[name] = _figure(run, name)
                checks[name] = check
    finally:
        ffi.release(area)
        memory.close()
    return figures, checks


# ---- what a run must have left, and its figures ------------------------------------------------------------------


def _check(run: Run, name: str) -> int:
    """Compare what a run left in memory with what it counted, and return its checksum.

    Raises:
        InternalError: they differ, or nothing was done; the message has both numbers.
    """
    pairs = _CHECKS[run.loop.kind](run)
    for what, found, expected in pairs:
        if found != expected & MASK:
            refuse_wrong(name, f"{what} {found}, expected {expected & MASK}")
    for process, outcome in enumerate(run.outcomes):
        if outcome.count == 0 or outcome.end_ns < outcome.start_ns:
            refuse_wrong(name, f"process {process} counted {outcome.count} in {outcome.end_ns - outcome.start_ns} ns")
    return sum(found for _, found, _ in pairs) & MASK


def triangle(n: int) -> int:
    """Return 1 + 2 + ... + n."""
    return n * (n + 1) // 2


Pairs = list[tuple[str, int, int]]
"""What is compared, what was found, what it must be modulo 2**64."""


def _check_copy(run: Run) -> Pairs:
    """The pieces hold the numbers of the newest copies, one each."""
    pairs = []
    for outcome in run.outcomes:
        pieces = run.loop.part_bytes // 2 // outcome.bytes
        newest = triangle(outcome.count) - triangle(max(0, outcome.count - pieces))
        pairs.append(("numbers of the copies that arrived:", outcome.sums[0], newest))
    return pairs


def _check_increments(run: Run) -> Pairs:
    """Cells add up to the increments, lie where they were drawn, and were drawn all over the part."""
    pairs = []
    for outcome in run.outcomes:
        cells = run.loop.part_bytes // 8
        pairs.append(("sum of the cells:", outcome.sums[0], outcome.count))
        pairs.append(("sum of cell times index, less the indices drawn:", outcome.sums[1], 0))
        # Throwing n balls into as many boxes as there are cells leaves this many not empty, give or take a percent.
        expected = cells * -math.expm1(-outcome.count / cells)
        spread = abs(outcome.bytes - expected) <= 0.05 * expected + 10
        pairs.append((f"{outcome.bytes} cells reached of about {expected:.0f}, spread:", int(spread), 1))
    return pairs


def _check_ring(run: Run) -> Pairs:
    """Keys are 0, 1, 2, ... and values 2 * key + 1; nothing is lost on the way."""
    consumer, producer = run.outcomes
    keys = triangle(producer.count - 1)
    return [
        ("records taken:", consumer.count, producer.count),
        ("sum of the keys:", consumer.sums[0], keys),
        ("sum of the values:", consumer.sums[1], 2 * keys + producer.count),
    ]


def _check_hop(run: Run) -> Pairs:
    """The word has gone up twice for each round trip, and both saw it."""
    caller, answerer = run.outcomes
    return [
        ("answers:", answerer.count, caller.count),
        ("the word at the caller:", caller.sums[0], 2 * caller.count),
        ("the word at the answerer:", answerer.sums[0], 2 * caller.count),
        ("groups of round trips:", len(run.samples), min(caller.count // lib.MP_YARD_HOP_TRIPS, lib.MP_YARD_SAMPLES)),
    ]


def _check_wake(run: Run) -> Pairs:
    """Each round was seen, and who slept is who was woken."""
    waker, sleeper = run.outcomes
    return [
        ("rounds:", sleeper.count, waker.count),
        ("numbers of the rounds:", sleeper.sums[0], triangle(waker.count)),
        ("the same at the waker:", waker.sums[0], triangle(waker.count)),
        ("rounds slept:", sleeper.sums[1], waker.sums[1]),
        ("samples:", len(run.samples), min(sleeper.sums[1], lib.MP_YARD_SAMPLES)),
        ("somebody slept:", int(sleeper.sums[1] > 0), 1),
    ]


def _check_touch(run: Run) -> Pairs:
    """Each page holds its number, and the kernel had to give it: one fault for each, or for each huge page."""
    pairs = []
    for outcome in run.outcomes:
        pairs.append(("numbers of the pages:", outcome.sums[0], triangle(outcome.count)))
        is_fresh = outcome.bytes * 512 >= outcome.count
        pairs.append((f"{outcome.bytes} faults for {outcome.count} pages, enough of them:", int(is_fresh), 1))
    return pairs


_CHECKS: Final[dict[int, Callable[[Run], Pairs]]] = {
    lib.MP_YARD_COPY: _check_copy,
    lib.MP_YARD_INCREMENTS: _check_increments,
    lib.MP_YARD_RING: _check_ring,
    lib.MP_YARD_HOP: _check_hop,
    lib.MP_YARD_WAKE: _check_wake,
    lib.MP_YARD_TOUCH: _check_touch,
}


def _figure(run: Run, name: str) -> float:
    """Return a figure of a run in the unit of its name."""
    kind = run.loop.kind
    if kind == lib.MP_YARD_COPY:
        return run.count * run.outcomes[0].bytes / run.elapsed_ns
    if kind == lib.MP_YARD_INCREMENTS:
        return run.count / run.elapsed_ns * 1e3
    if kind == lib.MP_YARD_RING:
        return run.outcomes[0].count / run.elapsed_ns * 1e3
    if kind == lib.MP_YARD_HOP and name.startswith("held_up"):
        return waited_ns(run.samples, 0.999 if name.endswith("p999") else 0.99) / 1e6
    if kind == lib.MP_YARD_HOP:
        return float(np.median(run.samples)) / (2 * int(lib.MP_YARD_HOP_TRIPS))
    if kind == lib.MP_YARD_WAKE:
        return float(np.percentile(run.samples, 99 if name.endswith("p99") else 50)) / 1e3
    # Of each process for itself: that another does the same at once shows in its own time.
    return sum(outcome.end_ns - outcome.start_ns for outcome in run.outcomes) / run.count / 1e3


def waited_ns(lengths: npt.NDArray[np.uint32], share: float) -> float:
    """Return how long what comes at any moment waits at most for the end of the interval that it comes into.

    In an interval of length s the wait is anything between 0 and s, so more than w is waited in max(0, s - w) of each.

    Args:
        lengths: uint32[n], ns, of intervals that follow each other.
        share: of all moments, below 1.
    """
    longest = np.sort(lengths.astype(np.float64))[::-1]
    beyond, count = (1 - share) * longest.sum(), np.arange(1, len(longest) + 1)
    waits = (np.cumsum(longest) - beyond) / count
    # With the k longest beyond w, w lies between the k-th and the one after it.
    after = np.append(longest[1:], 0.0)
    return float(waits[np.argmax(waits >= after)])


# ---- the command -------------------------------------------------------------------------------------------------


def report_of(names: Sequence[str], seconds: float) -> dict[str, Any]:
    """Measure and return the JSON object: figures and checksums by name, length of a loop, the machine."""
    figures, checks = _measure(names, seconds)
    return {"figures": figures, "checks": checks, "seconds": seconds, "machine": describe_machine()}


def main() -> int:
    """Measure and print a table, or write the JSON object to a file."""
    parser = argparse.ArgumentParser(prog="yardstick", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help=f"length of a loop (default {SECONDS}, quick {QUICK_SECONDS})")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", metavar="NAME[,NAME...]", help=f"these figures alone: {', '.join(NAMES)}")
    which.add_argument("--quick", action="store_true", help=f"what stands beside an experiment: {', '.join(QUICK)}")
    parser.add_argument(
        "--report", metavar="PATH", help="one JSON object to PATH instead of the table; - is standard output"
    )
    arguments = parser.parse_args()
    names = list(QUICK if arguments.quick else NAMES)
    if arguments.only is not None:
        names = [name for name in arguments.only.split(",") if name] or [arguments.only]
    try:
        if arguments.report not in (None, "-"):
            check_writable(arguments.report)
        seconds = arguments.seconds if arguments.seconds is not None else QUICK_SECONDS if arguments.quick else SECONDS
        report = report_of(names, seconds)
        if arguments.report is None:
            sys.stdout.write("\n".join(_lines(report)) + "\n")
        elif arguments.report == "-":
            sys.stdout.write(json.dumps(report) + "\n")
        else:
            write_whole(arguments.report, json.dumps(report) + "\n")
    except MegaphoneError as error:
        sys.stderr.write(f"yardstick: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _lines(report: dict[str, Any]) -> list[str]:
    """Return the table for people, and what it was measured on."""
    machine = report["machine"]
    rows = [[name, f"{value:,.2f}", *NAMES[name]] for name, value in report["figures"].items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{name:{widths[0]}}  {value:>{widths[1]}}  {unit:{widths[2]}}  {meaning}"
        for name, value, unit, meaning in rows
    ]
    cores = f"{machine['cores_usable']} usable cores"
    about = f"{machine['cpu']}, {cores}, {machine['kernel']}: {report['seconds']:g} s each"
    return [about, *lines]


if __name__ == "__main__":
    sys.exit(main())
