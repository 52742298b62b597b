"""What this machine gives at this minute, without the engine: plain C loops over shared memory, by one process or two.

    python -m megaphone.bench.yardstick                                     # a table, in about 6 s
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
import errno
import json
import math
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi, lib
from megaphone.errors import InternalError, MegaphoneError, SharedMemoryError, UsageError
from megaphone.observe.files import check_writable, write_whole
from megaphone.observe.machine import describe_machine
from megaphone.shm.limits import MIB, format_size, memory_available_bytes

SECONDS: Final = 0.25
"""Length of one loop unless told otherwise: the whole then takes about 6 s."""
PATIENCE_SECONDS = 5.0
"""A process that lets the other wait for longer is ended."""
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
    "futex_wake_us_p50": ("us", "from a wake-up until the sleeper runs, median"),
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
        "futex_wake_us_p50",
    )
}
"""What accompanies an experiment."""


@dataclass(frozen=True)
class Loop:
    """One loop to run; several figures may come from one.

    Attributes:
        kind: of the loop, as in ``yardstick.h``.
        processes: that take part.
        part_bytes: of shared memory for each.
        is_prefetched: increments with a rolling window of prefetches.
    """

    kind: int
    processes: int
    part_bytes: int
    is_prefetched: bool = False


_PART_BYTES_LEAST: Final = 1 * MIB
LOOPS: Final[dict[str, Loop]] = {
    **{f"copy_1m_gb_s_{n}": Loop(lib.MP_YARD_COPY, n, MIB) for n in (1, 2)},
    **{f"copy_256m_gb_s_{n}": Loop(lib.MP_YARD_COPY, n, 256 * MIB) for n in (1, 2)},
    **{f"increments_8mb_m_s_{n}": Loop(lib.MP_YARD_INCREMENTS, n, 8 * MIB) for n in (1, 2)},
    **{f"increments_80mb_m_s_{n}": Loop(lib.MP_YARD_INCREMENTS, n, 80 * MIB) for n in (1, 2)},
    **{f"increments_80mb_prefetch_m_s_{n}": Loop(lib.MP_YARD_INCREMENTS, n, 80 * MIB, True) for n in (1, 2)},
    "ring_m_records_s": Loop(lib.MP_YARD_RING, 2, lib.MP_YARD_RING_BYTES),
    "hop_ns": Loop(lib.MP_YARD_HOP, 2, _PART_BYTES_LEAST),
    "futex_wake_us_p50": Loop(lib.MP_YARD_WAKE, 2, _PART_BYTES_LEAST),
    "futex_wake_us_p99": Loop(lib.MP_YARD_WAKE, 2, _PART_BYTES_LEAST),
    **{f"first_touch_us_per_page_{n}": Loop(lib.MP_YARD_TOUCH, n, 256 * MIB) for n in (1, 2)},
}


@dataclass(frozen=True)
class Outcome:
    """What one process left of a loop; the fields are those of ``mp_yard_outcome``."""

    start_ns: int
    end_ns: int
    count: int
    sums: tuple[int, int]
    bytes: int


@dataclass(frozen=True)
class Run:
    """A loop that has run: its processes' outcomes, and the samples of those that take some, uint32[n] in ns."""

    loop: Loop
    outcomes: tuple[Outcome, ...]
    samples: npt.NDArray[np.uint32]

    @property
    def count(self) -> int:
        """Return what all processes did together."""
        return sum(outcome.count for outcome in self.outcomes)

    @property
    def elapsed_ns(self) -> int:
        """Return the time from the first start to the last end."""
        ends = max(outcome.end_ns for outcome in self.outcomes)
        return max(1, ends - min(outcome.start_ns for outcome in self.outcomes))


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
    memory = _shared_memory(max(int(lib.mp_yard_area_bytes(_task(loop, seconds))) for loop in wanted))
    area = ffi.from_buffer(memory, require_writable=True)
    try:
        for loop, loop_names in wanted.items():
            run = _run(area, loop, seconds, loop_names[0])
            check = _check(run, loop_names[0])
            for name in loop_names:
                figures[name] = _figure(run, name)
                checks[name] = check
    finally:
        ffi.release(area)
        memory.close()
    return figures, checks


def _task(loop: Loop, seconds: float) -> Any:
    """Return a loop as the C core takes it."""
    return ffi.new(
        "mp_yard_task *",
        {
            "kind": loop.kind,
            "processes": loop.processes,
            "is_prefetched": loop.is_prefetched,
            "part_bytes": loop.part_bytes,
            "duration_ns": max(1, min(int(seconds * 1e9), 2**62)),
            "patience_ns": int(PATIENCE_SECONDS * 1e9),
        },
    )


def _shared_memory(size_bytes: int) -> mmap.mmap:
    """Map shared memory without a name: the kernel keeps it as it keeps /dev/shm, and it ends with its processes.

    Not a segment in /dev/shm, because that may be as small as 64 MB.
    """
    available = memory_available_bytes()
    if size_bytes > available:
        message = (
            f"the yardstick needs {format_size(size_bytes)} and the machine has {format_size(available)} left: "
            "leave the figures over 256 MB out with --only"
        )
        raise SharedMemoryError(message)
    try:
        return mmap.mmap(-1, size_bytes)
    except OSError as error:
        message = f"{format_size(size_bytes)} of shared memory cannot be mapped: {error.strerror}"
        raise SharedMemoryError(message) from error


# ---- one run -----------------------------------------------------------------------------------------------------


def _run(area: Any, loop: Loop, seconds: float, name: str) -> Run:
    """Run a loop with as many processes as it says; nothing of it is left when this returns or raises."""
    task = _task(loop, seconds)
    lib.mp_yard_clear(area)
    rc = 0
    if loop.processes == 1:
        rc = lib.mp_yard_work(area, task, 0)
    else:
        pid = _start(area, task)
        is_patient = False
        try:
            with _apart(pid):
                rc = lib.mp_yard_work(area, task, pid)
            # A child that kept this process waiting has had its time; one that failed is about to end.
            is_patient = rc != -errno.ETIMEDOUT
        finally:
            code = _reap(pid, PATIENCE_SECONDS if is_patient else 0.0)
        child = lib.mp_yard_outcome_of(area, 1)
        _refuse_failed_child(name, rc, code, child.rc)
    if rc == -errno.EBADMSG:
        _refuse_wrong(name, "what arrived is not what was sent")
    if rc:
        message = f"{name}: {os.strerror(-rc)}"
        raise MegaphoneError(message)
    outcomes = [lib.mp_yard_outcome_of(area, process) for process in range(loop.processes)]
    taken = min(max(int(outcome.samples) for outcome in outcomes), lib.MP_YARD_SAMPLES)
    samples = np.frombuffer(ffi.buffer(lib.mp_yard_samples(area), 4 * taken), np.uint32).copy() if taken else _NONE
    return Run(loop, tuple(map(_outcome, outcomes)), samples)


_NONE: Final = np.empty(0, np.uint32)


def _start(area: Any, task: Any) -> int:
    """Fork the second process, in C: it never runs Python, so that the threads of numpy do not matter."""
    pid = int(lib.mp_yard_start(area, task))
    if pid < 0:
        message = f"no second process can be started: {os.strerror(-pid)}"
        raise MegaphoneError(message)
    return pid


@contextmanager
def _apart(pid: int) -> Iterator[None]:
    """Keep this thread and a child on different cores meanwhile, where there are two.

    Otherwise the kernel may leave both on one for the length of a loop: a hop then takes microseconds, and a ring whose
    slabs never leave that core's cache looks twice as fast.
    """
    usable = os.sched_getaffinity(0)
    here = lib.mp_yard_processor()
    others = usable - _siblings(here) or usable - {here}
    if here not in usable or not others:
        yield
        return
    # A child that has ended already is found out by whoever waits for it.
    with suppress(ProcessLookupError):
        os.sched_setaffinity(pid, others)
    os.sched_setaffinity(0, {here})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def _siblings(processor: int) -> set[int]:
    """Return the hardware threads of a processor's core, itself included."""
    path = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
    try:
        ranges = [part.partition("-") for part in path.read_text().strip().split(",")]
        return {n for first, _, last in ranges for n in range(int(first), int(last or first) + 1)} | {processor}
    except (OSError, ValueError):
        return {processor}


def _reap(pid: int, patience_seconds: float) -> int | None:
    """Wait for a child to end and return its exit code, negative for a signal; None if it had to be killed."""
    deadline = time.monotonic() + patience_seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.0005)


def _refuse_failed_child(name: str, rc: int, code: int | None, child_rc: int) -> None:
    """Raise what tells best why two processes did not both come to their end."""
    if code is None:
        message = f"{name}: the second process hung for more than {PATIENCE_SECONDS:g} s and was ended: measure again"
        raise MegaphoneError(message)
    if code < 0:
        message = f"{name}: the second process was ended by {signal.Signals(-code).name}: measure again"
        raise MegaphoneError(message)
    if child_rc == -errno.EBADMSG:
        _refuse_wrong(name, "what arrived is not what was sent")
    if code or child_rc:
        message = f"{name}: the second process failed: {os.strerror(-child_rc) if child_rc else f'exit code {code}'}"
        raise MegaphoneError(message)
    if rc == -errno.ECHILD:
        _refuse_wrong(name, "the second process ended too early")


def _refuse_wrong(name: str, what: str) -> NoReturn:
    """Raise the error about a loop that did something else than it should."""
    message = f"{name}: a loop of the yardstick is wrong: {what}"
    raise InternalError(message)


def _outcome(c: Any) -> Outcome:
    """Return an outcome of the C core as plain numbers."""
    return Outcome(int(c.start_ns), int(c.end_ns), int(c.count), (int(c.sums[0]), int(c.sums[1])), int(c.bytes))


# ---- what a run must have left, and its figures ------------------------------------------------------------------


def _check(run: Run, name: str) -> int:
    """Compare what a run left in memory with what it counted, and return its checksum.

    Raises:
        InternalError: they differ, or nothing was done; the message has both numbers.
    """
    pairs = _CHECKS[run.loop.kind](run)
    for what, found, expected in pairs:
        if found != expected & MASK:
            _refuse_wrong(name, f"{what} {found}, expected {expected & MASK}")
    for process, outcome in enumerate(run.outcomes):
        if outcome.count == 0 or outcome.end_ns < outcome.start_ns:
            _refuse_wrong(name, f"process {process} counted {outcome.count} in {outcome.end_ns - outcome.start_ns} ns")
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
        pairs.append((f"{outcome.bytes} faults for {outcome.count} pages:", int(outcome.bytes * 512 >= outcome.count), 1))
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
    if kind == lib.MP_YARD_HOP:
        return float(np.median(run.samples)) / (2 * lib.MP_YARD_HOP_TRIPS)
    if kind == lib.MP_YARD_WAKE:
        return float(np.percentile(run.samples, 99 if name.endswith("p99") else 50)) / 1e3
    # Of each process for itself: that another does the same at once shows in its own time.
    return sum(outcome.end_ns - outcome.start_ns for outcome in run.outcomes) / run.count / 1e3


# ---- the command -------------------------------------------------------------------------------------------------


def report_of(names: Sequence[str], seconds: float) -> dict[str, Any]:
    """Measure and return the JSON object: figures and checksums by name, length of a loop, the machine."""
    figures, checks = _measure(names, seconds)
    return {"figures": figures, "checks": checks, "seconds": seconds, "machine": describe_machine()}


def main() -> int:
    """Measure and print a table, or write the JSON object to a file."""
    parser = argparse.ArgumentParser(prog="yardstick", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"length of each loop (default {SECONDS})")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", metavar="NAME[,NAME...]", help=f"these figures alone: {', '.join(NAMES)}")
    which.add_argument("--quick", action="store_true", help=f"what stands beside an experiment: {', '.join(QUICK)}")
    parser.add_argument("--report", metavar="PATH", help="write one JSON object to PATH (- is standard output), no table")
    arguments = parser.parse_args()
    names = list(QUICK if arguments.quick else NAMES)
    if arguments.only is not None:
        names = [name for name in arguments.only.split(",") if name] or [arguments.only]
    try:
        if arguments.report not in (None, "-"):
            check_writable(arguments.report)
        report = report_of(names, arguments.seconds)
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
    lines = [f"{name:{widths[0]}}  {value:>{widths[1]}}  {unit:{widths[2]}}  {meaning}" for name, value, unit, meaning in rows]
    about = f"{machine['cpu']}, {machine['cores_usable']} cores usable, {machine['kernel']}, {report['seconds']:g} s each"
    return [about, *lines]


if __name__ == "__main__":
    sys.exit(main())
