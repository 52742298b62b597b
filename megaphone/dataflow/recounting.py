"""A worker that counts again, now and then, what it keeps: for finding bugs of the engine.

::

    MEGAPHONE_RECOUNT=1        every second, between two activations; 0: after every step

Free lists, reference columns, the index of post-dated records and capabilities are caches of what lies elsewhere in
shared memory (``shm/rebuild.h``, ``migration/recount.h`` say what is true).  A difference ends the run with an
InternalError that names the slot, the thing, and both numbers.  The variable is read once per worker, and chooses its
class: a worker that does not recount is not slowed by it, so nothing has to be compiled for it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from megaphone._core import ffi, lib
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.worker import Memory, Worker
from megaphone.errors import InternalError, UsageError

VARIABLE: Final = "MEGAPHONE_RECOUNT"
_EBUSY, _EPROTO, _ENOMEM = 16, 71, 12

_TEXTS: Final = {
    lib.MP_DIFFER_BROKEN: "what must be true at {name} (a header's offset, a chunk, a bin) is not",
    lib.MP_DIFFER_BLOCKS: "the lists of blocks differ from their headers at {name}: code {found}",
    lib.MP_DIFFER_LEASE: "chunk {name} is leased, and no run covers it",
    lib.MP_DIFFER_CARVED: "slabs are carved in chunk {name} up to byte {counted}, and {found} is kept",
    lib.MP_DIFFER_SLAB: "slab {name} is carved {counted} times, and listed or open {found} times",
    lib.MP_DIFFER_REFERENCE: "slab {name} is named {counted} times, and its count is {found}",
    lib.MP_DIFFER_PENDING: "the post-dated records of bin {name} begin at {counted}, and {found} is kept",
    lib.MP_DIFFER_DUE: "bin {name} has post-dated records from time {time} on, and {found} entries in the index",
    lib.MP_DIFFER_HELD: "{counted} capabilities are due at location {name} for time {time}, and {found} are held",
    lib.MP_DIFFER_WAITING: "the least time waiting for location {name} is {counted}, and {found} is kept",
    lib.MP_DIFFER_CREDIT: "{counted} bytes under credit are on their way to worker {name}, and {found} are counted",
    lib.MP_DIFFER_NAMED: "the block at {name} is named {counted} times, and should be {found} times",
    lib.MP_DIFFER_PROGRESS: "{counted} is the count at location {name} for time {time}, and will be known as {found}",
}


def describe(difference: Any) -> str:  # noqa: ANN401 - a cffi struct
    """Return a difference as text: slot, what it is about, the number from the roots and the number that is kept."""
    signed = {lib.MP_DIFFER_HELD, lib.MP_DIFFER_PROGRESS}
    counted, found = (
        int(ffi.cast("int64_t", value)) if difference.kind in signed else int(value)
        for value in (difference.counted, difference.found)
    )
    text = _TEXTS[difference.kind].format(name=difference.name, time=difference.time, counted=counted, found=found)
    return f"recount of worker {difference.slot}: {text}"


def raise_difference(rc: int, difference: Any) -> None:  # noqa: ANN401 - a cffi struct
    """Raise InternalError for what a recount has answered; nothing when all is equal.

    Raises:
        InternalError: something differs, or a recount was asked for while an activation is under way.
    """
    if rc == 0:
        return
    if rc == 1 or (rc == -_EPROTO and difference.kind == lib.MP_DIFFER_BROKEN):
        raise InternalError(describe(difference))
    why = {
        -_EBUSY: "a recount is only true between two activations",
        -_ENOMEM: "no memory of this machine for a recount",
        -_EPROTO: "a root names what cannot be",
    }
    raise InternalError(why.get(rc, f"a recount answered {rc}"))


class RecountingWorker(Worker):
    """A worker that checks itself.

    Args:
        graph: as for Worker.
        memory: as for Worker.
        index: as for Worker.
        every_ns: between two recounts; 0 recounts after every step.

    Attributes:
        recounts: made so far.
    """

    def __init__(self, graph: Graph, memory: Memory, index: int, every_ns: int) -> None:
        self._noted: Counter[int] = Counter()
        self.every_ns = every_ns
        self.recounts = 0
        super().__init__(graph, memory, index)
        self._next_ns = time.monotonic_ns() + every_ns
        self._difference = ffi.new("mp_difference *")
        found = (getattr(operator, "op", None) for operator in graph.operators)
        # F and S of a stateful operator have the same; the F of a right input has one of its own.
        self._ops = {(int(op.keyed), int(op.side)): op for op in found if op is not None}
        self._c_ops = ffi.new("mp_stateful *[]", [*self._ops.values()])

    def _finaliser(self, offset: int) -> Callable[[object], None]:
        # Counted until the reference is dropped, not until the view dies: a finaliser runs in any thread.
        self._noted[offset] += 1
        return super()._finaliser(offset)

    def take_back(self) -> None:
        """Drop the references of views that are gone."""
        released = self._released
        while released:
            offset = released.pop()
            lib.mp_ref_drop_at(self.slot, offset)
            self._noted[offset] -= 1
            if not self._noted[offset]:
                del self._noted[offset]

    def _step(self) -> bool:
        active = super()._step()
        if not self.every_ns or time.monotonic_ns() >= self._next_ns:
            self.recount()
            self._next_ns = time.monotonic_ns() + self.every_ns
        return active

    def held(self) -> Any:  # noqa: ANN401 - a cffi array
        """Return where views and loans of this process lie, once for each reference: ``uint64_t[]``."""
        return ffi.new("uint64_t[]", list(self._noted.elements()))

    def recount(self) -> None:
        """Compare what this slot keeps with what is true.

        Raises:
            InternalError: they differ.
        """
        held = self.held()
        rc = lib.mp_slot_recount(self.slot, self._c_ops, len(self._ops), held, len(held), self._difference)
        raise_difference(rc, self._difference)
        self.recounts += 1

    def rebuild(self) -> None:
        """Write what this slot keeps anew, from what is true.

        Raises:
            InternalError: what must be true cannot be.
        """
        held = self.held()
        rc = lib.mp_slot_rebuild(self.slot, self._c_ops, len(self._ops), held, len(held), self._difference)
        raise_difference(rc, self._difference)


def recount_run(worker: Worker) -> None:
    """Compare the sums over all slots, where all of them are between two steps: in a Simulation.

    Raises:
        InternalError: credit, the names of blocks, or the counts of progress do not add up.
    """
    difference = ffi.new("mp_difference *")
    raise_difference(lib.mp_run_recount(worker.slot, difference), difference)


def worker_of(graph: Graph, memory: Memory, index: int) -> Worker:
    """Return a worker, one that recounts where MEGAPHONE_RECOUNT is set.

    Raises:
        UsageError: it is no number of seconds.
    """
    wanted = os.environ.get(VARIABLE, "")
    if not wanted:
        return Worker(graph, memory, index)
    try:
        seconds = float(wanted)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        message = f"{VARIABLE}={wanted}: give the seconds between two recounts, 0 for after every step"
        raise UsageError(message)
    return RecountingWorker(graph, memory, index, int(seconds * 1e9))
