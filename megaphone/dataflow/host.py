"""A worker process, from its first instruction to its last.

::

    parent                                          worker
      spawn ------------------------------------->  bind to the parent, attach memory, load functions, build, set up
            <------------------------------ ready   (with the hash of the graph)
      all are ready: go ------------------------->  drive, close inputs, step until the dataflow is empty
            <------------------------------- done   keep stepping: peers may still need what this slot holds
      all are done: stop word = STOP_OVER ------->  collect
            <----------------------------- result   exit

The stop word in shared memory ends a worker at any point of this; if the parent ends, the kernel kills it.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, Final

import megaphone.dataflow.operators  # noqa: F401 - registers the operators on Graph and Stream
from megaphone._core import lib
from megaphone.dataflow import failures, wire
from megaphone.dataflow.functions import Program, enter_worker, load_program
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.memory import RunMemory
from megaphone.dataflow.operators.input import InputOperator
from megaphone.dataflow.recounting import worker_of
from megaphone.dataflow.result import SAMPLE_NS, collect
from megaphone.dataflow.worker import StoppedError, Worker
from megaphone.errors import UsageError

STOP_FAILED: Final = 1
STOP_OVER: Final = 2
STATE_RUNNING: Final = 1
STATE_DONE: Final = 2
PARK_NS: Final = 50_000_000

ENTRY: Final = (
    "import os, pickle, sys\n"
    "start = pickle.loads(os.pread(int(sys.argv[1]), int(sys.argv[2]), 0))\n"
    "os.close(int(sys.argv[1]))\n"
    "sys.path[:] = start['sys_path']\n"
    "from megaphone.dataflow.host import main\n"
    "sys.exit(main(start, int(sys.argv[3]), int(sys.argv[4])))\n"
)
"""What the interpreter of a worker is told to run; nothing of the package can be found before its path is set.

Arguments: descriptor and size of the start data, worker index, descriptor of the socket.
"""


def main(start: Mapping[str, Any], index: int, fd: int) -> int:
    """Be a worker; returns the exit code.

    Args:
        start: what the parent has written for all workers, plain data.
        index: of this worker.
        fd: its end of the socket to the parent.
    """
    # The parent decides what Ctrl-C means; it was held back until here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if lib.mp_process_die_with(start["parent_pid"]) != 0:
        return 1
    for number in (fd, start["wake_fd"]):
        os.set_inheritable(number, False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    sys.argv[:] = start["argv"]
    enter_worker(index)
    hosted = _Hosted(start, index, fd)
    try:
        hosted.run()
    except StoppedError:
        # The parent knows why, and nobody listens any more.
        return 1
    except SystemExit:
        # Whoever ends the process on purpose gets what he asked for; the parent reports the code.
        raise
    except BaseException as error:
        hosted.tell(error)
        return 1
    return 0


class _Hosted:
    """One slot and the process that hosts it."""

    def __init__(self, start: Mapping[str, Any], index: int, fd: int) -> None:
        self._start, self._index, self._fd = start, index, fd
        self._phase = "build"
        self._worker: Worker | None = None

    def run(self) -> None:
        """Run from the attachment to the result; raises what the user's code raises."""
        start = self._start
        memory = RunMemory.attach(
            start["control_fd"], start["control_bytes"], start["data_fd"], start["data_bytes"], start["wake_fd"]
        )
        build, args, kwargs, drive = load_program(Program(*start["program"]))
        graph = Graph(start["workers"])
        handles = build(graph, *args, **kwargs)
        graph.finish()
        self._phase = "setup"
        worker = self._worker = worker_of(graph, memory, self._index)
        # Modules and the graph live as long as the worker. A walk over them takes the collector 10 ms, between records.
        gc.collect()
        gc.freeze()
        if start["measure_memory"]:
            worker.watch_pinned(SAMPLE_NS)
        wire.send(self._fd, "ready", {"hash": graph.hash()})
        if not os.read(self._fd, 1):
            raise StoppedError
        lib.mp_state_set(worker.slot, STATE_RUNNING)
        self._phase = "drive"
        returned = None if drive is None else drive(worker, handles)
        for operator in graph.operators:
            if isinstance(operator, InputOperator):
                operator.handle.close()
        self._phase = "a step"
        worker.run()
        lib.mp_state_set(worker.slot, STATE_DONE)
        wire.send(self._fd, "done", {})
        # Blocks that peers give back, and progress that found no room, are this slot's to serve until all are done.
        while not (stop := lib.mp_stop_get(memory.control)):
            if not worker.step():
                worker.park(PARK_NS)
        if stop != STOP_OVER:
            raise StoppedError
        self._phase = "the collection of results"
        self._send_result(returned, collect(graph), drive)
        worker.detach()

    def _send_result(self, returned: Any, captures: dict[str, Any], drive: Any) -> None:  # noqa: ANN401 - the user's
        try:
            parts = wire.pack((returned, captures))
        except Exception as error:
            name = getattr(drive.func if isinstance(drive, functools.partial) else drive, "__qualname__", "drive")
            what = f"a {type(returned).__name__} that {name!r} returned"
            try:
                wire.pack(returned)
            except Exception:  # noqa: BLE001 - objects may raise anything while they are pickled
                pass
            else:
                what = "what an operator captured"
            message = f"{what} cannot be sent to the caller ({error}): return plain data and arrays"
            raise UsageError(message) from error
        wire.send(self._fd, "result", {}, parts)

    def tell(self, error: BaseException) -> None:
        """Send an exception to the parent, itself as well if it can travel; the parent may have gone."""
        told = failures.report(error, self._phase, self._worker)
        parts = []
        # Whatever a user's exception does when it is pickled must not hide it.
        with contextlib.suppress(Exception):
            parts = wire.pack(error)
        with contextlib.suppress(OSError):
            wire.send(self._fd, "error", told, parts)
