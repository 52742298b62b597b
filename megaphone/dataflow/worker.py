"""A worker: one slot's operators, and the step that runs them.

::

    step:  receive all rings -> apply progress -> operators that have input or a frontier change, downstream first
           each activation: fix inputs, run, publish data and progress together, then free the inputs

What the main program does to inputs between two steps is one activation, published when the next step begins.  The
worker is the same in a process of its own and in the Simulation; it owns no thread and no lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi, lib
from megaphone.dataflow.graph import EXCHANGE, HASHES, Graph, Operator, OutputPort
from megaphone.dataflow.schedule import Schedule
from megaphone.errors import InternalError, MegaphoneError, SharedMemoryError, UsageError
from megaphone.shm.counters import read_counters
from megaphone.shm.timing import Times

if TYPE_CHECKING:
    from megaphone.dataflow.batch import Batch

NEVER = 2**64 - 1
SPIN_NS = 20_000
RELIEF_SECONDS = 5.0
"""How long a worker waits for memory before the run fails: for peers that are busy, and for views that users keep."""
_ENOMEM, _EFBIG = 12, 27
_ACTIVE, _CALLER = int(lib.MP_STEP_ACTIVE), int(lib.MP_STEP_CALLER)


class Memory(Protocol):
    """The two mapped regions of a run, as a worker needs them."""

    control: Any
    data: Any
    view: Any
    data_fd: int
    wake_fd: int

    def hold(self) -> object:
        """Return what keeps the mappings alive."""


class Worker:
    """One slot of a running dataflow.

    Args:
        graph: finished; its operators are set up here.
        memory: both regions.
        index: which slot.

    Attributes:
        index: this worker's number, from 0.
        peers: how many workers there are.
    """

    def __init__(self, graph: Graph, memory: Memory, index: int) -> None:
        self.graph = graph
        self.index = index
        self.peers = graph.workers
        self.memory = memory
        self.slot = lib.mp_slot_attach(memory.control, memory.data, memory.view, index, memory.data_fd, memory.wake_fd)
        if self.slot == ffi.NULL:
            message = "no memory for a worker's handle: free some memory of this machine"
            raise SharedMemoryError(message)
        self._hold = memory.hold()
        self._released: list[int] = []
        self._dropped: list[tuple[int, int]] = []  # (location, time) of capabilities that are let go
        if memory.wake_fd >= 0:
            # Other processes can give memory back while this one waits; in a Simulation nobody else runs meanwhile.
            self._take_back = ffi.callback("void(void)", self.take_back)
            lib.mp_relief_hook(self.slot, self._take_back)
            lib.mp_relief_patience(self.slot, int(RELIEF_SECONDS * 1e9))
        self._dirty = False
        self._failed: Exception | None = None
        self._inside: Operator | None = None
        self.inputs_open = 0
        self.times = Times(self.slot)
        self.start_hooks: list[Callable[[], None]] = []
        self._keep: list[Any] = []
        self._look_every_ns = 0
        self._look_next_ns = 0
        self._apply_initial_capabilities()
        for operator in graph.operators:
            for output in operator.outputs:
                output.c_edges = self._c_edges(output)
        for operator in graph.operators:
            self._inside = operator
            operator.setup(self)
        self._inside = None
        for hook in self.start_hooks:
            hook()
        self._schedule = Schedule(graph, self.peers)
        self._plan = self._schedule.c

    # -- building blocks for operators ---------------------------------------------------------------------------

    def _apply_initial_capabilities(self) -> None:
        for operator in self.graph.operators:
            for output in operator.outputs:
                if output.holders:
                    # Everybody knows who holds time 0, so no message has to say so.
                    self.check(lib.mp_times_update(self.slot, output.location, 0, len(output.holders)))
                if self.index in output.holders:
                    self.check(lib.mp_held_start(self.slot, output.location))

    def _c_edges(self, output: OutputPort) -> Any:  # noqa: ANN401 - a cffi array
        sent = output.sent_edges
        edges = ffi.new("mp_edge[]", max(1, len(sent)))
        output.edge_count = len(sent)
        output.by_function = any(callable(pact.key) for _, pact in sent)
        for edge, (port, pact) in zip(edges, sent, strict=False):
            output.schema.fill(edge.schema)
            edge.location = port.location
            edge.kind = pact.kind
            edge.credit = pact.credit
            if pact.kind == EXCHANGE:
                edge.hash = HASHES["given"] if callable(pact.key) else HASHES[pact.hash]
                edge.key_column = 0 if callable(pact.key) else output.schema.column(str(pact.key))
                edge.shift = 64 - pact.part_bits
                owner = pact.owners(self.peers)
                self._keep.append(owner)
                edge.owner = ffi.cast("uint8_t *", owner.ctypes.data)
        return edges

    def check(self, rc: int) -> int:
        """Turn a negative result of the core into an exception; return any other."""
        if rc >= 0:
            return rc
        if rc == -_ENOMEM:
            raise self.memory_error()
        if rc == -_EFBIG:
            message = "a bin's table would be larger than 2 GiB: use more bins (--bin-shift), or fewer keys"
            raise UsageError(message)
        where = f" in operator {self._inside.name!r}" if self._inside else ""
        message = f"the core answered {rc}{where} of worker {self.index}: a rule of the engine is broken"
        raise InternalError(message)

    def memory_error(self) -> SharedMemoryError:
        """Describe a full data region: who asked, what holds it, and the cure."""
        wanted = 64 * int(lib.mp_out_of_memory(self.slot))
        counters = read_counters(self.memory.control, self.index)
        operator = f"operator {self._inside.name!r} of " if self._inside else ""
        live, pinned = counters["block_live_bytes"], int(lib.mp_slab_pinned_bytes(self.slot))
        waits = self.why_waiting()
        message = (
            f"{operator}worker {self.index} needs {wanted} bytes more, and {self.data_bytes} bytes of shared memory "
            f"have no such room left ({live} hold state, {pinned} hold batches here{waits}): "
            f"raise --memory, or send less ahead of time"
        )
        return SharedMemoryError(message)

    def why_waiting(self) -> str:
        """Return which capability holds the earliest time back, as text; empty when none does."""
        least, text = NEVER, ""
        for operator in self.graph.operators:
            for output in operator.outputs:
                for slot in range(self.peers):
                    time = int(lib.mp_held_least(self.slot, slot, output.location))
                    if time < least:
                        least, text = time, f"; worker {slot} holds time {time} at {operator.name!r}"
        return text

    @property
    def data_bytes(self) -> int:
        """Size of the data region."""
        return int(lib.mp_data_bytes(self.memory.control))

    def records_per_slab(self, row_bytes: int, columns: int) -> int:
        """Return how many records of fixed columns one slab holds: larger batches take memory of their own."""
        slab_bytes = int(lib.mp_slab_bytes(self.memory.control))
        return max(1, (slab_bytes - 64 * (columns + 1)) // max(1, row_bytes))

    def prepare_slabs(self, count: int) -> None:
        """Carve slabs ahead of need, at most an eighth of this worker's share of the memory."""
        share = self.data_bytes // (8 * self.peers * int(lib.mp_slab_bytes(self.memory.control)))
        self.check(lib.mp_slab_prepare(self.slot, min(count, share)))

    def export(self, offset64: int, size_bytes: int) -> npt.NDArray[np.uint8]:
        """Return bytes of the data region as a read-only array whose life holds a reference to their slab."""
        offset = offset64 * 64
        lib.mp_ref_add_at(self.slot, offset)
        pointer = ffi.gc(self.memory.view + offset, self._finaliser(offset))
        return np.frombuffer(memoryview(ffi.buffer(pointer, size_bytes)).toreadonly(), np.uint8)

    def owned(self, offset64: int) -> Any:  # noqa: ANN401 - a cffi pointer
        """Return the address of a batch that has not been sent, to write there; it takes over the loan's reference."""
        return ffi.gc(self.memory.data + offset64 * 64, self._finaliser(offset64 * 64))

    def _finaliser(self, offset: int) -> Callable[[object], None]:
        released, hold = self._released, self._hold

        def release(_: object, offset: int = offset, hold: object = hold) -> None:  # noqa: ARG001 - kept alive by it
            released.append(offset)

        return release

    @property
    def relief_seconds(self) -> float:
        """How long to wait for memory that other processes may give back; 0 in a Simulation."""
        return RELIEF_SECONDS if self.memory.wake_fd >= 0 else 0.0

    def take_back(self) -> None:
        """Drop the references of views that are gone; finalisers have only noted them."""
        released = self._released
        while released:
            lib.mp_ref_drop_at(self.slot, released.pop())

    def hold_capability(self, location: int, time: int) -> None:
        """Take a capability at an output, in the activation that is open; what justifies it is the caller's to know."""
        if self._inside is None:
            self.begin_input()
        self.check(lib.mp_capability(self.slot, location, time, 1))

    def drop_capability(self, location: int, time: int) -> None:
        """Note that a capability is let go; for any thread and for finalisers. It counts until the next publish."""
        self._dropped.append((location, time))

    def apply_dropped(self) -> None:
        """Tell of the capabilities that were let go, in the activation that is open."""
        dropped = self._dropped
        while dropped:
            location, time = dropped.pop()
            self.check(lib.mp_capability(self.slot, location, time, -1))

    def begin_input(self) -> None:
        """Open the activation of the main program, if it is not open."""
        if self._inside is not None:
            message = f"operator {self._inside.name!r} uses an input while it runs: use its own output"
            raise MegaphoneError(message)
        if not self._dirty:
            self._dirty = True
            lib.mp_begin(self.slot, ffi.NULL, 0)

    def commit(self) -> None:
        """Publish what the main program has done to inputs."""
        if self._dirty:
            self._dirty = False
            self.check(lib.mp_publish(self.slot))

    def push(self, output: OutputPort, cell: Any, batch: Batch | None = None) -> None:  # noqa: ANN401 - a cffi struct
        """Send a batch that lies in a slab along all edges of an output."""
        if not output.by_function:
            rc = lib.mp_push(self.slot, output.c_edges, output.edge_count, cell, ffi.NULL)
            if rc:
                self.check(rc)
            return
        edges = output.sent_edges
        # All keys come first: a user's function that raises leaves nothing half sent, nor does memory that is short.
        keys: dict[int, npt.NDArray[np.uint64]] = {}
        for number, (_, pact) in enumerate(edges):
            if callable(pact.key):
                batch = batch if batch is not None else self.batch_of(output, cell)
                keys[number] = self.hashes_of(output, pact.key, batch)
        mark = lib.mp_emit_mark(self.slot)
        for number in range(len(edges)):
            hashes = ffi.cast("uint64_t *", keys[number].ctypes.data) if number in keys else ffi.NULL
            rc = lib.mp_push(self.slot, output.c_edges + number, 1, cell, hashes)
            if rc:
                lib.mp_emit_undo(self.slot, mark)
                self.check(rc)

    def batch_of(self, output: OutputPort, cell: Any) -> Batch:  # noqa: ANN401 - a cffi struct
        """Return a read-only batch over a cell of this output."""
        from megaphone.dataflow.batch import Batch  # noqa: PLC0415 - batch.py needs Worker for its type only

        return Batch(self, output.schema, cell)

    def hashes_of(
        self, output: OutputPort, key: Callable[[Batch], npt.NDArray[np.uint64]], batch: Batch
    ) -> npt.NDArray[np.uint64]:
        """Return the hashes that a user's function gives for a batch, checked."""
        hashes = np.asarray(key(batch))
        batch.hold()
        if hashes.shape != (batch.n,) or hashes.dtype != np.uint64:
            gave = f"{hashes.dtype}{list(hashes.shape)}"
            message = f"the key function gave {gave}, a batch of {batch.n} needs uint64[{batch.n}]"
            raise output.operator.error(message)
        return np.ascontiguousarray(hashes)

    # -- stepping --------------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Run one step; returns whether any operator was activated.

        Raises:
            MegaphoneError: memory is exhausted, or an earlier step has failed: what it had published in part cannot
                be told from what it had not, so a worker that has failed stays so. Also whatever an operator raises.
        """
        if self._failed is not None:
            message = f"worker {self.index} has failed before ({self._failed}): start the run again"
            raise MegaphoneError(message) from self._failed
        try:
            return self._step()
        except Exception as error:
            self._failed = error
            raise

    def _step(self) -> bool:
        if self._released:
            self.take_back()
        if self._dropped:
            self.begin_input()
            self.apply_dropped()
        publish, self._dirty = self._dirty, False
        rc = lib.mp_step(self.slot, self._plan, publish)
        while rc == _CALLER:
            # The core ran all activations up to one of which some part is Python's.
            operator = self._inside = self._schedule.operators[self._plan.at]
            value = self._plan.value
            if value:
                operator.go_on(value)
            else:
                operator.activate()
            self._inside = None
            rc = lib.mp_step_on(self.slot, self._plan)
        if rc < 0:
            self._raise_failure(rc)
        if self._look_every_ns and (now := time.monotonic_ns()) >= self._look_next_ns:
            self._look_next_ns = now + self._look_every_ns
            lib.mp_slab_pinned_bytes(self.slot)
        return bool(rc == _ACTIVE)

    def watch_pinned(self, every_ns: int) -> None:
        """Bring the gauge of pinned bytes up to date while stepping, about so often: only its own slot can count them.

        Cost: a look at the clock per step; O(slabs of this slot) per count.
        """
        self._look_every_ns, self._look_next_ns = every_ns, 0

    def _raise_failure(self, rc: int) -> None:
        """Raise what the core answered, on behalf of the operator that it was running."""
        operators, at = self._schedule.operators, self._plan.at
        if at < len(operators):
            self._inside = operators[at]
            self._inside.fail(self, rc)
        self.check(rc)

    def park(self, timeout_ns: int, spin_ns: int = SPIN_NS) -> None:
        """Wait until something arrives, at most so long; returns early on signals."""
        if self.ready_now():
            return
        lib.mp_park(self.slot, spin_ns, max(0, timeout_ns))

    def ready_now(self) -> bool:
        """Return whether an operator could run at once."""
        if self._dirty or self._released or self._dropped:
            return True
        return bool(lib.mp_step_could(self.slot, self._plan))

    def done(self) -> bool:
        """Return whether nothing can appear anywhere any more, as far as this worker knows."""
        if self._dirty or self._dropped or self.inputs_open:
            return False
        return not lib.mp_times_left(self.slot, ffi.NULL)

    def step_until(self, condition: Callable[[], bool]) -> None:
        """Step, and sleep while there is nothing to do, until the condition holds or the run is stopped."""
        while not condition():
            if not self.step() and not condition():
                self.park(50_000_000)
            self.raise_if_stopped()

    def run(self) -> None:
        """Step until the dataflow is empty."""
        self.step_until(self.done)

    def raise_if_stopped(self) -> None:
        """Leave when the parent has ended the run."""
        if lib.mp_stop_get(self.memory.control):
            raise StoppedError

    def in_flight_bytes(self) -> int:
        """Bytes that this worker has sent and that no operator has taken; what waits for a frontier is not in it."""
        return int(lib.mp_in_flight_bytes(self.slot))

    def counters(self) -> dict[str, int]:
        """Return this worker's counters by name."""
        return read_counters(self.memory.control, self.index)

    def current_operator(self) -> str | None:
        """Return the name of the operator that is running, for error messages."""
        return self._inside.name if self._inside else None

    def detach(self) -> None:
        """Let go of the slot; views that are still alive keep the mapping."""
        self.take_back()
        if self.slot != ffi.NULL:
            lib.mp_slot_detach(self.slot)
            self.slot = ffi.NULL
            self.times = Times(self.slot)  # a batch that is kept longer copies on its own account


class StoppedError(MegaphoneError):
    """The parent has ended the run; raised inside workers only."""
