"""The parent's side of a run: start the workers, watch them, and end them, whatever happens.

::

              one poll loop
    sockets ------ ready, done, result, error -----> go / stop word
    pidfds ------- a worker has ended -------------> reaped; lost, if it had not said why
    pipes -------- what workers print -------------> standard error, line by line, with [w1]
    eventfd ------ a signal has come --------------> handle it
    tick --------- 4 times a second ---------------> is it stuck? what does it occupy? the caller's own

Memory grows ahead of need in a thread of its own (grower.py).  Nothing here is on a data path.  ``watch`` raises as
soon as the run has failed, and ``end`` leaves no process, no zombie and no descriptor behind: workers see the stop word
and get a short grace, then the kernel ends them.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from megaphone._core import lib
from megaphone.dataflow import failures, wire
from megaphone.dataflow.functions import MAIN_NAME, Program
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.grower import Grower
from megaphone.dataflow.host import ENTRY, STOP_FAILED, STOP_OVER
from megaphone.dataflow.memory import RunMemory
from megaphone.dataflow.output import LineForwarder
from megaphone.dataflow.result import SAMPLE_NS, MemoryHistory, MemorySample
from megaphone.dataflow.signals import DeferredSignals
from megaphone.dataflow.stuck import StuckWatch
from megaphone.errors import GraphError, InternalError, UsageError, WorkerLostError
from megaphone.shm.counters import COUNTER_INDEX, read_counters

TICK_SECONDS: Final = SAMPLE_NS / 1e9
SAMPLE_SHARE: Final = 1000
_ACCOUNTS: Final = (COUNTER_INDEX["block_live_bytes"], COUNTER_INDEX["pinned_bytes"])
GRACE_SECONDS: Final = 0.3
"""For workers to leave a run that has failed: enough for a step, short enough for an end within a second."""
EXIT_SECONDS: Final = 2.0
"""For interpreters to end after everything is in: threads of the user's may hold them."""
REAP_SECONDS: Final = 10.0


@dataclass(eq=False)
class Child:
    """One worker process as its parent sees it."""

    index: int
    process: subprocess.Popen[bytes]
    pidfd: int
    socket: socket.socket
    reader: wire.FrameReader
    streams: list[tuple[IO[bytes], LineForwarder]]
    said: set[str] = field(default_factory=set)
    result: Any = None
    result_at: float = 0.0
    killed: bool = False

    @property
    def ended(self) -> bool:
        """Whether the process has been reaped."""
        return self.process.returncode is not None


class Running:
    """A run that is under way, for a callback of the caller's.

    Attributes:
        pids: of the workers, by index.
    """

    def __init__(self, memory: RunMemory, pids: list[int], started: float) -> None:
        self.pids = pids
        self._memory = memory
        self._started = started

    @property
    def seconds(self) -> float:
        """Since all workers were ready."""
        return time.monotonic() - self._started

    @property
    def committed_bytes(self) -> int:
        """Of the data region."""
        return int(lib.mp_committed_bytes(self._memory.control))

    def counters(self) -> list[dict[str, int]]:
        """Return the counters of each worker by name."""
        return [read_counters(self._memory.control, slot) for slot in range(len(self.pids))]


class Supervisor:
    """Everything that the parent holds of one run besides its memory.

    Args:
        program: what workers load.
        graph: the caller's own, finished.
        memory: both regions.
        signals: that are held back.
        measure_memory: whether to sample what all processes occupy together.
        pss_seconds: from one reading of PSS to the next; None: so seldom that it takes a thousandth of the time.
        on_tick: called about four times a second; what it raises ends the run.

    Attributes:
        children: one per worker.
        seconds: how long the dataflow ran.
        memory_history: what the processes and the region occupied, about four times a second.
        pss_bytes_max: peak of the samples, 0 without any.
    """

    def __init__(
        self,
        program: Program,
        graph: Graph,
        memory: RunMemory,
        signals: DeferredSignals,
        *,
        measure_memory: bool = False,
        pss_seconds: float | None = None,
        on_tick: Callable[[Running], None] | None = None,
    ) -> None:
        self.children: list[Child] = []
        self.seconds = 0.0
        self.memory_history = MemoryHistory()
        self.pss_bytes_max = 0
        self._next_sample = 0.0
        self._program, self._graph, self._memory, self._signals = program, graph, memory, signals
        self._measure_memory, self._pss_seconds, self._on_tick = measure_memory, pss_seconds, on_tick
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._grower: Grower | None = None
        self._ending = False
        self._started = self._next_tick = time.monotonic()
        self._over = False
        self._stuck = StuckWatch(graph, memory)
        self._watch_fd(signals.wake_fd, self._on_signal)

    # -- start ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all workers; raises WorkerLostError when the system refuses one."""
        start = pickle.dumps(self._start_data(), pickle.HIGHEST_PROTOCOL)
        start_fd = os.memfd_create("megaphone-start")
        # Workers inherit the mask, so that Ctrl-C finds none of them in the time before they can ignore it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            view = memoryview(start)
            while view.nbytes:
                view = view[os.write(start_fd, view) :]
            for index in range(self._graph.workers):
                self._spawn(index, start_fd, len(start))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(start_fd)
        self._grower = Grower(self._memory)

    def _start_data(self) -> Mapping[str, Any]:
        memory, program = self._memory, self._program
        return {
            "parent_pid": os.getpid(),
            "sys_path": list(sys.path),
            "argv": list(sys.argv),
            "workers": self._graph.workers,
            "control_fd": memory.control_region.fd,
            "control_bytes": memory.control_region.size_bytes,
            "data_fd": memory.data_region.fd,
            "data_bytes": memory.data_region.size_bytes,
            "wake_fd": memory.wake_fd,
            "measure_memory": self._measure_memory,
            "program": (program.payload, program.main_module, program.main_path),
        }

    def _spawn(self, index: int, start_fd: int, start_bytes: int) -> None:
        memory = self._memory
        mine, theirs = socket.socketpair()
        try:
            command = [sys.executable, *_interpreter_flags(), "-P", "-c", ENTRY]
            command += [str(start_fd), str(start_bytes), str(index), str(theirs.fileno()), f"megaphone-worker-{index}"]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                # Workers are processes; threads of numpy's own would fight them for the cores.
                env={"OPENBLAS_NUM_THREADS": "1", **os.environ},
                pass_fds=(start_fd, theirs.fileno(), memory.control_region.fd, memory.data_region.fd, memory.wake_fd),
            )
        except OSError as error:
            mine.close()
            message = (
                f"worker {index} of {self._graph.workers} cannot be started ({error.strerror}): use fewer workers, or "
                "raise the limits of processes and descriptors (ulimit -u, ulimit -n)"
            )
            raise WorkerLostError(message) from error
        finally:
            theirs.close()
        mine.setblocking(False)
        streams = [
            (stream, LineForwarder(stream.fileno(), f"[w{index}] "))
            for stream in (process.stdout, process.stderr)
            if stream is not None
        ]
        child = Child(index, process, os.pidfd_open(process.pid), mine, wire.FrameReader(mine.fileno()), streams)
        self.children.append(child)
        lib.mp_pid_set(memory.control, index, process.pid)
        self._watch_fd(child.pidfd, partial(self._on_exit, child))
        self._watch_fd(child.reader.fd, partial(self._on_socket, child))
        for _, forwarder in streams:
            self._watch_fd(forwarder.fd, partial(self._on_output, forwarder))

    # -- watch ---------------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Serve the workers until the last has ended.

        Raises:
            MegaphoneError: the run has failed; what the workers were doing meanwhile is for ``end``.
        """
        while not all(child.ended for child in self.children):
            self._serve(max(0.0, self._next_tick - time.monotonic()))
            self._signals.handle()
            if time.monotonic() >= self._next_tick:
                self._tick()
        self._raise_if_growing_failed()

    def _serve(self, seconds: float) -> None:
        for fd, _ in self._poll.poll(seconds * 1000):
            handler = self._handlers.get(fd)  # a handler before it may have closed it
            if handler is not None:
                handler()

    def _on_signal(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._signals.wake_fd)

    def _on_output(self, forwarder: LineForwarder) -> None:
        if not forwarder.read():
            self._forget_fd(forwarder.fd)  # poll had said that something is there: it was the end

    def _on_socket(self, child: Child) -> None:
        for kind, details, parts in child.reader.read():
            if not self._ending:
                self._on_message(child, kind, details, parts)
        if child.reader.closed:
            self._forget_fd(child.reader.fd)

    def _on_message(self, child: Child, kind: str, details: dict[str, Any], parts: list[bytearray]) -> None:
        if kind == "error":
            raise failures.error_of(child.index, details, _original(parts))
        child.said.add(kind)
        if kind == "result":
            child.result = _unpacked_result(child.index, parts)
            child.result_at = time.monotonic()
            return
        if kind == "ready" and details["hash"] != self._graph.hash():
            message = (
                f"build made another dataflow on worker {child.index} than in the caller: it must be the same every "
                "time, so let it depend on its arguments alone"
            )
            raise GraphError(message)
        if not all(kind in other.said for other in self.children):
            return
        if kind == "ready":
            for other in self.children:
                # One that has ended already is told by its pidfd.
                with contextlib.suppress(OSError):
                    other.socket.send(b"g")
            self._started = time.monotonic()
            if self._grower is not None:
                self._grower.wake()
        else:
            self.seconds = time.monotonic() - self._started
            self._sample_memory()
            self._stop(STOP_OVER)

    def _on_exit(self, child: Child) -> None:
        returncode = child.process.wait()
        self._forget_fd(child.pidfd)
        os.close(child.pidfd)
        child.pidfd = -1
        # What it wrote last lies in the socket: its result, or why it ended.  Both ends may be told by one look of
        # poll's, this one first, so the socket is read here whatever the look before it had found.
        while child.reader.fd in self._handlers:
            self._on_socket(child)
            if child.reader.waiting:  # an heir of the descriptor keeps it open
                break
        for _, forwarder in child.streams:
            forwarder.drain()
            self._forget_fd(forwarder.fd)
        if self._ending or child.killed or (child.result is not None and returncode >= 0):
            return
        where = failures.Look(self._memory.control, child.index).where(self._graph)
        raise failures.lost(child.index, child.process.pid, returncode, where, child.streams[-1][1].last_line)

    def _tick(self) -> None:
        self._next_tick = time.monotonic() + TICK_SECONDS
        self._raise_if_growing_failed()
        started = all("ready" in child.said for child in self.children)
        if started and not self._over:
            self._sample_memory()
            self._stuck.look()
            if self._on_tick is not None:
                self._on_tick(Running(self._memory, [c.process.pid for c in self.children], self._started))
        for child in self.children:
            # A thread of the user's may keep an interpreter alive after its result is in.
            if child.result is not None and not child.ended and time.monotonic() > child.result_at + EXIT_SECONDS:
                child.killed = True
                _kill(child)

    def _raise_if_growing_failed(self) -> None:
        error = None if self._grower is None else self._grower.error
        if error is not None:
            message = f"the thread that grows memory has ended ({error!r}): a rule of the engine is broken"
            raise InternalError(message) from error

    def _sample_memory(self) -> None:
        if not self._measure_memory:
            return
        started, pss_bytes = time.monotonic(), None
        if started >= self._next_sample:
            pids = [os.getpid(), *(child.process.pid for child in self.children)]
            pss_bytes = sum(_pss_bytes(pid) for pid in pids)
            self.pss_bytes_max = max(self.pss_bytes_max, pss_bytes)
            ended = time.monotonic()
            if self._pss_seconds is not None:
                self._next_sample = started + self._pss_seconds
            else:
                # The kernel walks page tables for it, on a core that a worker wants: at most a thousandth of the time.
                self._next_sample = ended + max(1.0, SAMPLE_SHARE * (ended - started))
        control, slots = self._memory.control, range(len(self.children))
        self.memory_history.add(
            MemorySample(
                int(started * 1e9), pss_bytes, int(lib.mp_committed_bytes(control)),
                *(sum(int(lib.mp_counter_read(control, slot, counter)) for slot in slots) for counter in _ACCOUNTS),
            )
        )  # fmt: skip

    def _stop(self, why: int) -> None:
        self._over = True
        lib.mp_stop_set(self._memory.control, why)
        lib.mp_wake_all(self._memory.control)

    # -- end -----------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """End what is still alive, reap it, show what it printed last, and close every descriptor."""
        self._ending = True
        if self._grower is not None:
            self._grower.end()
        if not all(child.ended for child in self.children):
            self._stop(STOP_FAILED)
            for child in self.children:
                # Who waits for the start, or for a result to be taken, sees this.
                self._forget_fd(child.reader.fd)
                child.socket.close()
            self._wait(GRACE_SECONDS)
            for child in self.children:
                if not child.ended:
                    _kill(child)
            self._wait(REAP_SECONDS)
        for child in self.children:
            child.socket.close()
            if child.pidfd >= 0:
                os.close(child.pidfd)
            for stream, forwarder in child.streams:
                forwarder.drain()
                stream.close()
        self._handlers.clear()

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not all(child.ended for child in self.children) and (left := deadline - time.monotonic()) > 0:
            self._serve(left)

    # -- descriptors ---------------------------------------------------------------------------------------------------

    def _watch_fd(self, fd: int, handler: Callable[[], None]) -> None:
        self._handlers[fd] = handler
        self._poll.register(fd, select.POLLIN)

    def _forget_fd(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)


def _kill(child: Child) -> None:
    # Through the descriptor, so that it can never be another process that has got the same number.
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)


def _interpreter_flags() -> list[str]:
    """Return the options that this interpreter was started with, such as -O and -X dev, for one that shall be alike."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


def _original(parts: list[bytearray]) -> BaseException | None:
    """Return a worker's exception itself; None where it cannot be pickled or loaded again."""
    if not parts:
        return None
    try:
        loaded = wire.unpack(parts, {MAIN_NAME: "__main__"})
    except Exception:  # noqa: BLE001 - a class may raise anything when it is made from its arguments
        return None
    return loaded if isinstance(loaded, BaseException) else None


def _unpacked_result(index: int, parts: list[bytearray]) -> Any:  # noqa: ANN401 - what the user's drive returned
    try:
        return wire.unpack(parts, {MAIN_NAME: "__main__"})
    except Exception as error:
        message = f"what worker {index} returned cannot be loaded here ({error}): return plain data and arrays"
        raise UsageError(message) from error


def _pss_bytes(pid: int) -> int:
    """Return the proportional set size of a process; 0 once it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith(b"Pss:")), 0)
