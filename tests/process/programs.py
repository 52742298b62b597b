"""Dataflows that the tests of worker processes run; a module of its own, because workers import it by name."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from megaphone._core import lib
from megaphone.dataflow.execute import execute
from megaphone.dataflow.graph import Operator
from megaphone.dataflow.operators.input import Input
from megaphone.dataflow.operators.probe import Probe
from megaphone.dataflow.stream import Stream
from megaphone.dataflow.worker import Worker
from megaphone.errors import MegaphoneError

Handles = tuple[Input, Probe]

# -- builds ------------------------------------------------------------------------------------------------------------


def exchange(graph: Any, columns: int = 1, name: str = "numbers") -> Handles:
    """One input, an exchange, a probe."""
    numbers, stream = graph.input(name, {f"n{i}": "u8" for i in range(columns)})
    return numbers, stream.exchange("n0").probe()


def raising_operator(graph: Any) -> Handles:
    """The operator raises at time 3."""
    numbers, stream = graph.input("numbers", {"n0": "u8"})
    return numbers, stream.exchange("n0").unary(raise_at_three, name="picky").probe()


def raise_at_three(batch: Any, output: Any) -> None:
    """Forward what comes before time 3."""
    if batch.time == 3:
        message = "three is too many"
        raise ValueError(message)
    output.forward(batch)


class TooOddError(Exception):
    """An exception that cannot be made from its message alone, and so does not survive pickle."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")


def raising_build(graph: Any, parent_pid: int) -> Handles:
    """Build in the caller, raise on the workers."""
    if os.getpid() != parent_pid:
        message = "the worker's build"
        raise KeyError(message)
    return exchange(graph)


def depending_on_the_process(graph: Any) -> Handles:
    """A different dataflow in each process."""
    return exchange(graph, name=f"numbers-{os.getpid()}")


class Sum(Operator):
    """Collects the sum of what arrives on each worker."""

    collects = True

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream.graph, "sum")
        self.port = self.add_input(stream)
        self.total = 0

    def setup(self, worker: Worker) -> None:
        """Remember the worker."""
        self._worker = worker

    def activate(self) -> None:
        """Let go of what has arrived."""
        self.total += int(lib.mp_drain(self._worker.slot, self.port.location))

    def result(self) -> tuple[int, int]:
        """Return (worker, messages)."""
        return self._worker.index, self.total


class MergedSum(Sum):
    """The same, merged over the workers."""

    @staticmethod
    def merge(results: list[tuple[int, int]]) -> int:
        """Add up."""
        return sum(total for _, total in results)


def collecting(graph: Any, *, merged: bool) -> Input:
    """One input whose messages are counted."""
    numbers: Input
    numbers, stream = graph.input("numbers", {"n0": "u8"})
    (MergedSum if merged else Sum)(stream)
    return numbers


class Miser(Operator):
    """Takes everything, and never lets go of its capability at time 0."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream.graph, "miser")
        self.port = self.add_input(stream)
        self.out = self.add_output(stream.schema, frozenset({0}))

    def setup(self, worker: Worker) -> None:
        """Remember the worker."""
        self._worker = worker

    def activate(self) -> None:
        """Let go of what has arrived, but of nothing else."""
        self._worker.check(lib.mp_drain(self._worker.slot, self.port.location))


def miserly(graph: Any) -> Handles:
    """A dataflow that can never be empty."""
    numbers, stream = graph.input("numbers", {"n0": "u8"})
    miser = Miser(stream.exchange("n0"))
    out: Any = Stream(graph, miser.out)
    return numbers, out.probe()


def nothing(graph: Any) -> None:
    """A dataflow without operators."""


# -- drives ------------------------------------------------------------------------------------------------------------


def ten_rounds(worker: Worker, handles: Handles) -> int:
    """Send ten batches of a hundred records; returns the worker's index."""
    numbers, probe = handles
    for time_now in range(10):
        numbers.send({name: np.arange(100, dtype=np.uint64) for name in numbers.schema.names})
        numbers.advance_to(time_now + 1)
        worker.step_until(partial(probe.done, time_now))
    numbers.close()
    return worker.index


def leave_open(worker: Worker, handles: Handles) -> None:
    """Send and return, without closing anything."""
    numbers, _ = handles
    numbers.send({"n0": np.arange(100 * (1 + worker.index), dtype=np.uint64)})


def send_three(_: Worker, numbers: Input) -> None:
    """Send three batches to one worker each."""
    with numbers:
        for value in range(3):
            numbers.send({"n0": np.array([value], np.uint64)})


def large_array(worker: Worker, handles: Handles) -> dict[str, Any]:
    """Return more bytes than one look of the parent takes."""
    handles[0].close()
    return {"worker": worker.index, "numbers": np.arange(3_000_000, dtype=np.uint64) + worker.index}


def unpicklable(_: Worker, handles: Handles) -> Any:
    """Return what cannot travel."""
    handles[0].close()
    return threading.Lock()


def printing(worker: Worker, handles: Handles) -> None:
    """Print lines, part of a line, and something that is not UTF-8."""
    print("out", worker.index)
    print("err", worker.index, file=sys.stderr)
    sys.stdout.buffer.write(b"\xff no newline")
    handles[0].close()


def forever(worker: Worker, handles: Handles) -> None:
    """Send until the run is ended from outside."""
    numbers, probe = handles
    time_now = 0
    while True:
        numbers.send({"n0": np.arange(1000, dtype=np.uint64)})
        time_now += 1
        numbers.advance_to(time_now)
        worker.step_until(partial(probe.done, time_now - 1))


def mark_and_forever(path: str, worker: Worker, handles: Handles) -> None:
    """Write this worker's pid to a file, for somebody who waits for it, and go on."""
    Path(f"{path}-{worker.index}").write_text(str(os.getpid()))
    forever(worker, handles)


def wait_for_the_clock(seconds: float, worker: Worker, handles: Handles) -> str:
    """Do nothing for a while, with the input open."""
    end = time.monotonic() + seconds
    worker.step_until(lambda: time.monotonic() > end)
    handles[0].close()
    return "waited"


def hold_loans_for_a_while(seconds: float, worker: Worker, handles: Handles) -> int:
    """Keep room in slabs for a while, and then none for as long; returns how many bytes it was."""
    numbers, _ = handles
    count, kept = 10_000, 3
    loans = [numbers.loan(count) for _ in range(kept)]
    end = time.monotonic() + seconds
    worker.step_until(lambda: time.monotonic() > end)
    loans.clear()
    gc.collect()
    wait_for_the_clock(seconds, worker, handles)
    return 8 * count * kept


def close_and_step(worker: Worker, handles: Handles) -> None:
    """Close the input and step without ever sleeping until a time that will not come."""
    numbers, probe = handles
    numbers.close()
    while not probe.done(10):
        worker.step()


def end_on_one(how: str, worker: Worker, handles: Handles) -> None:
    """On worker 1 end the process in one of many ways, after one round; the others go on."""
    numbers, _ = handles
    numbers.send({"n0": np.arange(100, dtype=np.uint64)})
    worker.step()
    if worker.index == 1:
        print("famous last words", file=sys.stderr, flush=True)
        if how == "sys.exit":
            sys.exit(7)
        if how == "os._exit":
            os._exit(7)
        if how == "zero":
            sys.exit(0)
        os.kill(os.getpid(), getattr(signal, how))
    forever(worker, handles)


def raise_on_one(what: str, worker: Worker, handles: Handles) -> None:
    """On worker 1 raise; the others are busy with something that sees no stop word."""
    numbers, _ = handles
    if worker.index == 1:
        if what == "value":
            message = "drive went wrong"
            raise ValueError(message)
        if what == "odd":
            raise TooOddError(3, 4)
        if what == "time":
            numbers.advance_to(5)
            numbers.advance_to(4)
        if what == "own":
            message = "my own"
            raise OwnError(message)
        if what == "interrupt":
            raise KeyboardInterrupt
        np.zeros(3).reshape(2)
    time.sleep(60)


class OwnError(MegaphoneError):
    """A user's error below the engine's base."""

    exit_code = 9


def swallow_everything(worker: Worker, handles: Handles) -> None:
    """Never let go: catch whatever is raised; worker 1 fails at once."""
    if worker.index == 1:
        message = "worker 1 fails"
        raise ValueError(message)
    while True:
        with contextlib.suppress(Exception):
            forever(worker, handles)


def hoard(_: Worker, handles: Handles) -> list[Any]:
    """Keep loans until memory is exhausted."""
    numbers = handles[0]
    kept: list[Any] = []
    while True:
        kept.append(numbers.loan(10_000))


def execute_again(_: Worker, __: Handles) -> None:
    """Start a run inside a run."""
    execute(nothing, workers=1)


def leave_a_thread(worker: Worker, handles: Handles) -> int:
    """Leave a thread behind that keeps the interpreter alive."""
    threading.Thread(target=time.sleep, args=(60,)).start()
    handles[0].close()
    return worker.index


def arguments(worker: Worker, handles: Handles) -> tuple[int, list[str], int, list[str]]:
    """Return what the process sees of itself: index, argv, parent, and the kinds of its open sockets and pipes."""
    handles[0].close()
    kinds: list[str] = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            kinds.append(str(path.readlink()).partition(":")[0])
    return worker.index, sys.argv, os.getppid(), sorted(kind for kind in kinds if kind in ("socket", "pipe"))
