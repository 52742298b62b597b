"""``execute``: run a dataflow in worker processes and wait for its end.

The graph is built here first, so that a mistake in it is raised before any process exists.  Then both memory regions
are made, which have no name from then on; the workers get their descriptors, build the same graph again, and run it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import megaphone.dataflow.operators  # noqa: F401 - registers the operators on Graph and Stream
from megaphone._core import ffi, lib
from megaphone.dataflow.functions import pack_program, refuse_inside_worker
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.memory import RunMemory
from megaphone.dataflow.operators.input import InputOperator
from megaphone.dataflow.result import Result, merge_captures
from megaphone.dataflow.signals import DeferredSignals
from megaphone.dataflow.supervisor import Running, Supervisor
from megaphone.errors import UsageError
from megaphone.shm.counters import read_counters
from megaphone.shm.limits import (
    CHUNK_BYTES_MIN,
    CHUNKS_PER_SLOT_MIN,
    SLABS_PER_CHUNK_MIN,
    SLOTS_MAX,
    Limits,
    default_memory_bytes,
    format_size,
    parse_size,
)

__all__ = ["Result", "Running", "execute"]

RING_CELLS_MIN, RING_CELLS_MAX = 64, 1 << 16


def execute(
    build: Callable[..., Any],
    workers: int = 2,
    drive: Callable[..., Any] | None = None,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    memory: int | str | None = None,
    ring_cells: int | None = None,
    measure_memory: bool = False,
    pss_seconds: float | None = None,
    on_tick: Callable[[Running], None] | None = None,
) -> Result:
    """Run a dataflow in worker processes, and return when it is empty and they have ended.

    Functions travel by name: those of modules are imported in the workers, and a script is run again there without
    its ``if __name__ == "__main__":`` block, which must be what starts the run.  ``functools.partial`` over such
    functions is fine. What workers print appears on standard error, each line with ``[w1]`` in front.

    Args:
        build: ``build(graph, *args, **kwargs)`` makes the dataflow and returns handles for ``drive``. It is called
            here and once on every worker, and must make the same each time.
        workers: processes, 1 to 64.
        drive: ``drive(worker, handles)`` runs on every worker and sends to its inputs; what it returns is in the
            result. When it returns, inputs that it has left open are closed, and the worker goes on until the dataflow
            is empty everywhere. May be left out where no input has to be fed.
        args: for build; anything that pickle takes.
        kwargs: for build.
        memory: size of the data region, bytes or such as ``"512M"``; memory is taken as it is needed, up to this. By
            default half of what /dev/shm has free, at most half of the machine's memory.
        ring_cells: cells of the ring between two workers, a power of two; 1024 by default.
        measure_memory: sample what all processes occupy together, at most once a second and for a thousandth of
            the time; a sample costs about 1 ms for each 100 MB and process.
        pss_seconds: with measure_memory, seconds from one such sample to the next, at best every tick of on_tick,
            whatever it costs.
        on_tick: called here about four times a second while the workers run; an exception ends the run.

    Raises:
        UsageError: an argument cannot be used; GraphError for the graph.
        WorkerError: the user's code raised in a worker; caused by that exception, and by the worker's traceback.
        WorkerLostError: a worker was killed or has ended its process.
        SharedMemoryError: there is less shared memory than needed, at the start or later.
        StuckError: some time can never be completed.
        KeyboardInterrupt: Ctrl-C; SystemExit(143): TERM. As after every error, all workers have ended then.

    Cost: about 0.3 s to start two workers, most of it for importing numpy.
    """
    _check_platform()
    refuse_inside_worker()
    if not _is_whole(workers) or not 1 <= workers <= SLOTS_MAX:
        message = f"workers is {workers!r}: use a whole number from 1 to {SLOTS_MAX}"
        raise UsageError(message)
    program = pack_program(build, args, kwargs or {}, drive)
    limits = _limits(memory, ring_cells, workers)
    graph = Graph(workers)
    build(graph, *args, **(kwargs or {}))
    graph.finish()
    if drive is None:
        _refuse_unfed_inputs(graph)
    with contextlib.ExitStack() as descriptors:
        # One by which workers ask for memory, one by which a signal wakes the supervisor.
        memory_fd, signal_fd = _eventfd(descriptors), _eventfd(descriptors)
        with DeferredSignals(signal_fd) as signals:
            run_memory = RunMemory.create(graph, limits, memory_fd)
            try:
                supervisor = Supervisor(
                    program, graph, run_memory, signals, measure_memory=measure_memory,
                    pss_seconds=pss_seconds, on_tick=on_tick,
                )  # fmt: skip
                return _supervise(supervisor, graph, run_memory)
            finally:
                run_memory.close()
                # A caller may keep an exception, whose traceback has all of this: it must not keep the mappings, too.
                run_memory.control = run_memory.data = run_memory.view = ffi.NULL


def _eventfd(owner: contextlib.ExitStack) -> int:
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    owner.callback(os.close, fd)
    return fd


def _supervise(supervisor: Supervisor, graph: Graph, memory: RunMemory) -> Result:
    try:
        supervisor.start()
        supervisor.watch()
    finally:
        supervisor.end()
    results = [child.result for child in supervisor.children]
    return Result(
        returned=[returned for returned, _ in results],
        captures=merge_captures(graph, [captures for _, captures in results]),
        counters=[read_counters(memory.control, slot) for slot in range(graph.workers)],
        seconds=supervisor.seconds,
        memory_samples=tuple(supervisor.memory_history.samples),
        origin_ns=int(lib.mp_origin_get(memory.control)),
        pss_bytes_max=supervisor.pss_bytes_max,
        committed_bytes=int(lib.mp_committed_bytes(memory.control)),
        huge_bytes=int(lib.mp_huge_bytes(memory.control)),
        region_bytes=memory.control_region.size_bytes + memory.data_region.size_bytes,
    )


def _check_platform() -> None:
    if sys.platform != "linux":
        message = f"workers need Linux, this is {sys.platform}: use a Linux machine, a container or WSL 2"
        raise UsageError(message)
    if not sys.executable:
        message = "this interpreter does not know its own program (sys.executable): workers cannot be started from it"
        raise UsageError(message)


def _is_whole(number: Any) -> bool:  # noqa: ANN401 - whatever the caller passed
    return isinstance(number, int) and not isinstance(number, bool)


def _limits(memory: int | str | None, ring_cells: int | None, workers: int) -> Limits:
    """Cut the memory so that each worker can have the chunks that it needs, however many workers there are."""
    limits = Limits.for_memory(default_memory_bytes() if memory is None else parse_size(memory, "memory"))
    chunks = CHUNKS_PER_SLOT_MIN * workers
    chunk_bytes = limits.chunk_bytes
    while chunk_bytes > CHUNK_BYTES_MIN and limits.memory_bytes // chunk_bytes < chunks:
        chunk_bytes //= 2
    if limits.memory_bytes // chunk_bytes < chunks:
        message = (
            f"{format_size(limits.memory_bytes)} of memory for {workers} workers, which need "
            f"{format_size(chunks * CHUNK_BYTES_MIN)}: raise memory, or use fewer workers"
        )
        raise UsageError(message)
    slab_bytes = min(limits.slab_bytes, chunk_bytes // SLABS_PER_CHUNK_MIN)
    if ring_cells is None:
        return Limits(limits.memory_bytes, chunk_bytes, slab_bytes)
    if not _is_whole(ring_cells) or not RING_CELLS_MIN <= ring_cells <= RING_CELLS_MAX or ring_cells & (ring_cells - 1):
        message = f"ring_cells is {ring_cells!r}: use a power of two from {RING_CELLS_MIN} to {RING_CELLS_MAX}"
        raise UsageError(message)
    return Limits(limits.memory_bytes, chunk_bytes, slab_bytes, ring_cells)


def _refuse_unfed_inputs(graph: Graph) -> None:
    names = [operator.name for operator in graph.operators if isinstance(operator, InputOperator)]
    if names:
        message = f"the dataflow has input {names[0]!r} and there is no drive to feed or close it: pass drive"
        raise UsageError(message)
