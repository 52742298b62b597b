"""What the tests of the dataflow layer share: small runs in the Simulation, and what must hold at the end of each."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from megaphone._core import lib
from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.operators.capture import Capture, Captured
from megaphone.dataflow.operators.input import Input
from megaphone.dataflow.stream import Stream
from megaphone.shm.limits import Limits
from megaphone.testing import Simulation

Dataflow = Callable[[Stream], Stream]


class Run:
    """One input, a dataflow, and what comes out of it, on some slots."""

    def __init__(
        self, columns: Mapping[str, Any], dataflow: Dataflow, slots: int = 2, seed: int = 0, **options: Any
    ) -> None:
        def build(graph: Graph) -> tuple[Input, Capture]:
            source, stream = graph.input("source", columns)
            return source, dataflow(stream).capture("captured")

        self.simulation = Simulation(build, slots, seed, **options)
        self.inputs: list[Input] = [handles[0] for handles in self.simulation.handles]
        self.captures: list[Capture] = [handles[1] for handles in self.simulation.handles]

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.simulation.close()

    def send(self, columns: Any, slot: int = 0, **options: Any) -> None:
        """Send at the input of one slot, letting the others step while it has no credit."""
        while not self.inputs[slot].try_send(columns, **options):
            self.simulation.step()

    def finish(self) -> Captured:
        """Close all inputs, run to the end, check what must hold there, and return what was captured."""
        captured = self.finish_without_references()
        assert references(self.simulation) == 0
        return captured

    def finish_without_references(self) -> Captured:
        """The same where the test itself keeps views or loans."""
        for source in self.inputs:
            source.close()
        self.simulation.run()
        assert_at_rest(self.simulation)
        return self.result()

    def result(self) -> Captured:
        """Return what all workers have captured so far."""
        return Capture.merge([capture.result() for capture in self.captures])

    def counter(self, name: str) -> int:
        """Return the sum of a counter over all slots."""
        return self.simulation.counter(name)


def one(columns: Mapping[str, Any], dataflow: Dataflow, values: Any, *, slots: int = 1, **options: Any) -> Captured:
    """Return what a dataflow makes of one batch that slot 0 sends."""
    with Run(columns, dataflow, slots) as run:
        run.send(values, **options)
        return run.finish()


def references(simulation: Simulation) -> int:
    """Return the references to all slabs, once views that are garbage have been given back."""
    gc.collect()
    late, simulation.late = simulation.late, False
    for _ in range(2):  # once to take what is in the rings, once to see that the others have
        for slot in range(len(simulation.workers)):
            simulation.step(slot)
    simulation.late = late
    size_bytes = simulation.memory.data_region.size_bytes
    slabs = size_bytes // Limits.for_memory(size_bytes).slab_bytes
    return sum(int(lib.mp_ref_row(simulation.memory.control, slab)) for slab in range(slabs))


def assert_at_rest(simulation: Simulation) -> None:
    """Nothing is counted, queued or in flight any more."""
    assert simulation.done
    for worker in simulation.workers:
        assert worker.in_flight_bytes() == 0
        assert lib.mp_queued_cells(simulation.memory.control, worker.index) == 0


def rows(captured: Captured) -> list[tuple[Any, ...]]:
    """Return captured records as sorted tuples (time, values...), whatever the order in which they came."""
    columns = [as_list(column) for column in captured.columns.values()]
    return sorted(zip(captured.times.tolist(), *columns, strict=True))


def as_list(column: Any) -> list[Any]:
    """Return the values of a column as Python objects that can be sorted."""
    if isinstance(column, BytesColumn):
        return column.tolist()
    if column.dtype.kind == "V":
        return [value.tobytes() for value in column]
    values: list[Any] = np.asarray(column).tolist()
    return values


def functions_called(run: Callable[[], Any]) -> list[str]:
    """Return the Python functions that a call enters."""
    called: list[str] = []

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            called.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return called
