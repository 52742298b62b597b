"""One loop of the yardstick, run by this process and a child: started together, watched, and gone when it is over.

The child is forked in C and runs the loop alone, never Python, so that it does not matter which threads numpy has.  It
stays on other cores than this process.  If it dies or hangs, that is said in one line; nothing waits without an end.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi, lib
from megaphone.errors import InternalError, MegaphoneError, SharedMemoryError
from megaphone.shm.limits import format_size, memory_available_bytes

PATIENCE_SECONDS = 5.0
"""A process that lets the other wait for longer is ended."""

_NONE: Final = np.empty(0, np.uint32)


@dataclass(frozen=True)
class Loop:
    """One loop to run; several figures may come from one.

    Attributes:
        kind: of the loop, as in ``yardstick.h``.
        processes: that take part.
        part_bytes: of shared memory for each.
        is_prefetched: increments with a rolling window of prefetches.
        longer: times the length that loops have.
    """

    kind: int
    processes: int
    part_bytes: int
    is_prefetched: bool = False
    longer: int = 1


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


def task_of(loop: Loop, seconds: float) -> Any:
    """Return a loop as the C core takes it."""
    return ffi.new(
        "mp_yard_task *",
        {
            "kind": loop.kind,
            "processes": loop.processes,
            "is_prefetched": loop.is_prefetched,
            "part_bytes": loop.part_bytes,
            "duration_ns": max(1, min(int(seconds * loop.longer * 1e9), 2**62)),
            "patience_ns": int(PATIENCE_SECONDS * 1e9),
        },
    )


def shared_memory(size_bytes: int) -> mmap.mmap:
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


def run_loop(area: Any, loop: Loop, seconds: float, name: str) -> Run:
    """Run a loop with as many processes as it says; nothing of it is left when this returns or raises."""
    task = task_of(loop, seconds)
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
            # A child that kept this process waiting has had its time, and after a wrong message it may wait for us.
            is_patient = rc not in (-errno.ETIMEDOUT, -errno.EBADMSG)
        finally:
            code = _reap(pid, PATIENCE_SECONDS if is_patient else 0.0)
        _refuse_failed_child(name, rc, code, lib.mp_yard_outcome_of(area, 1).rc)
    if rc == -errno.EBADMSG:
        refuse_wrong(name, "what arrived is not what was sent")
    if rc:
        message = f"{name}: {os.strerror(-rc)}"
        raise MegaphoneError(message)
    outcomes = [lib.mp_yard_outcome_of(area, process) for process in range(loop.processes)]
    taken = min(max(int(outcome.samples) for outcome in outcomes), lib.MP_YARD_SAMPLES)
    samples = np.frombuffer(ffi.buffer(lib.mp_yard_samples(area), 4 * taken), np.uint32).copy() if taken else _NONE
    return Run(loop, tuple(map(_outcome, outcomes)), samples)


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
    # A child that has ended already is found out by whoever waits for it. Where this is forbidden, the kernel chooses.
    with suppress(OSError):
        os.sched_setaffinity(pid, others)
        os.sched_setaffinity(0, {here})
    try:
        yield
    finally:
        with suppress(OSError):
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
    try:
        while time.monotonic() < deadline and not _has_ended(pid):
            time.sleep(0.0005)
    finally:
        # Ctrl-C may come while this waits.
        is_killed = not _has_ended(pid)
        if is_killed:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return None if is_killed else os.waitstatus_to_exitcode(status)


def _has_ended(pid: int) -> bool:
    """Tell whether a child waits to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _refuse_failed_child(name: str, rc: int, code: int | None, child_rc: int) -> None:
    """Raise what tells best why two processes did not both come to their end."""
    if -errno.EBADMSG in (rc, child_rc):
        refuse_wrong(name, "what arrived is not what was sent")
    if code is None:
        message = f"{name}: the second process hung for more than {PATIENCE_SECONDS:g} s and was ended: measure again"
        raise MegaphoneError(message)
    if code < 0:
        message = f"{name}: the second process was ended by {signal.Signals(-code).name}: measure again"
        raise MegaphoneError(message)
    if code or child_rc:
        message = f"{name}: the second process failed: {os.strerror(-child_rc) if child_rc else f'exit code {code}'}"
        raise MegaphoneError(message)
    if rc == -errno.ECHILD:
        refuse_wrong(name, "the second process ended too early")


def refuse_wrong(name: str, what: str) -> NoReturn:
    """Raise the error about a loop that did something else than it should."""
    message = f"{name}: a loop of the yardstick is wrong: {what}"
    raise InternalError(message)


def _outcome(c: Any) -> Outcome:
    """Return an outcome of the C core as plain numbers."""
    return Outcome(int(c.start_ns), int(c.end_ns), int(c.count), (int(c.sums[0]), int(c.sums[1])), int(c.bytes))
