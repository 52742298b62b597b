"""Is a run stuck?  Then nothing will ever happen again, and the error says who holds the earliest time back.

A run is stuck when all workers look for work and find none, nothing is in flight, all inputs are closed, and still
some time may appear somewhere.  A worker that waits for the clock with an input open is not stuck, nor is one that is
busy with something of its own.
"""

from __future__ import annotations

from typing import Final

from megaphone._core import ffi, lib
from megaphone.dataflow.failures import Look
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.memory import RunMemory
from megaphone.errors import StuckError
from megaphone.shm.counters import COUNTER_INDEX

QUIET_LOOKS: Final = 4
"""So many looks in a row must find nothing: a worker that is only slow is not told off."""
_STEPS: Final = COUNTER_INDEX["steps"]
_NEVER: Final = 2**64 - 1


class StuckWatch:
    """Compares one look at all slots with the next.

    Args:
        graph: the caller's own, finished.
        memory: of the run.
    """

    def __init__(self, graph: Graph, memory: RunMemory) -> None:
        self._graph, self._memory = graph, memory
        self._before: list[tuple[int, int]] = []
        self._quiet_looks = 0

    def look(self) -> None:
        """Look once; to be called a few times a second.

        Raises:
            StuckError: nothing has happened for several looks, and nothing can.
        """
        self._quiet_looks = self._quiet_looks + 1 if self._is_quiet() else 0
        if self._quiet_looks >= QUIET_LOOKS and (why := self._why()):
            raise StuckError(why)

    def _is_quiet(self) -> bool:
        """Return whether every slot has looked for work since the last look, and none can have found any."""
        control, slots = self._memory.control, range(self._graph.workers)
        looks = [Look(control, slot) for slot in slots]
        now = [(look.work_epoch, int(lib.mp_counter_read(control, slot, _STEPS))) for slot, look in enumerate(looks)]
        before, self._before = self._before, now
        return (
            len(before) == len(now)
            # Each has stepped, and no step has found anything to do.
            and all(new[0] == old[0] and new[1] > old[1] for new, old in zip(now, before, strict=True))
            and not any(look.inputs_open for look in looks)
            and not any(lib.mp_queued_cells(control, slot) for slot in slots)
        )

    def _why(self) -> str:
        """Return what is left in which worker's view, and who holds the earliest time; empty if nothing is left."""
        memory = self._memory
        for index in range(self._graph.workers):
            slot = lib.mp_slot_attach(memory.control, memory.data, memory.view, index, -1, -1)
            if slot == ffi.NULL:
                return ""
            try:
                left = ffi.new("int64_t[3]")
                if not lib.mp_times_left(slot, left):
                    continue
                operator = self._graph.operator_at(int(left[0]))
                name = f"operator {operator.name!r} ({operator.line})" if operator else f"location {left[0]}"
                time = int(left[1]) & _NEVER
                return (
                    "the run is stuck: all workers wait, nothing is in flight, all inputs are closed, and worker "
                    f"{index} still expects time {time} at {name}{self._holder(slot)}: let go of every capability "
                    "whose time has been dealt with"
                )
            finally:
                lib.mp_slot_detach(slot)
        return ""

    def _holder(self, slot: object) -> str:
        held = [
            (int(lib.mp_held_least(slot, worker, output.location)), worker, operator)
            for operator in self._graph.operators
            for output in operator.outputs
            for worker in range(self._graph.workers)
        ]
        time, worker, operator = min(held, key=lambda entry: entry[0], default=(_NEVER, 0, None))
        if operator is None or time == _NEVER:
            return ""
        return f"; worker {worker} holds time {time} in operator {operator.name!r} ({operator.line})"
