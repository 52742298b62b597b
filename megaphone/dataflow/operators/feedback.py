"""Feedback: a stream that flows back to where it can be used again, later in time.

::

    ┌────────────> stream ──> operators ──> handle.connect(...) ─┐
    └──────────────────────── time + step ───────────────────────┘
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import Batch
from megaphone.dataflow.gathering import send_selected
from megaphone.dataflow.graph import Graph, Operator, Pact
from megaphone.dataflow.operators.unary import FUEL_BATCHES, Output
from megaphone.dataflow.sending import NEVER
from megaphone.dataflow.stream import Stream, graph_method

if TYPE_CHECKING:
    from megaphone.dataflow.worker import Worker


STEP_MAX: Final = 2**56  # far beyond any run, and the sum over a path still fits 61 bits


class Feedback(Operator):
    """Handle to a loop that is open at one end: ``connect`` closes it."""

    messages_alone = True

    def __init__(self, graph: Graph, name: str, columns: Any, step: int) -> None:  # noqa: ANN401 - as Schema
        super().__init__(graph, name)
        if not 1 <= step <= STEP_MAX:
            message = f"step {step}: a loop must advance time, by 1 to 2**56"
            raise self.error(message)
        self.step = step
        self.out = self.add_output(columns)
        self.summaries[0, 0] = step

    def connect(self, stream: Stream) -> None:
        """Close the loop: what this stream carries comes out of the feedback ``step`` later.

        Raises:
            GraphError: it is connected already, or the columns differ.
        """
        if self.inputs:
            message = "it is connected twice: concat the streams and connect the result"
            raise self.error(message)
        if stream.schema != self.out.schema:
            message = f"it was made for {self.out.schema.describe()}, and is connected to {stream.schema.describe()}"
            raise self.error(message)
        # Without credit: a source that waited for records that go round would wait for itself.
        self.add_input(stream, Pact(credit=False))

    def check(self) -> None:
        """Refuse a loop that was left open."""
        if not self.inputs:
            message = "nothing is connected to it: call connect(stream) with the stream that flows back"
            raise self.error(message)

    def describe(self) -> str:
        """Return what must be equal on all workers."""
        return f"{super().describe()} {self.step}"

    def setup(self, worker: Worker) -> None:
        """Make what each activation reuses."""
        self._worker = worker
        self._location = self.inputs[0].location
        self._ports = ffi.new("uint32_t[1]", [self._location])
        self._cell = ffi.new("mp_cell *")
        self._output = Output(worker, self.out)

    def activate(self) -> None:
        """Hand on what has arrived, later in time; what would be later than all times ends here."""
        worker, cell, slot = self._worker, self._cell, self._worker.slot
        lib.mp_begin(slot, self._ports, 1)
        for _ in range(FUEL_BATCHES):
            if worker.check(lib.mp_take(slot, self._location, cell)) == 0:
                break
            worker.check(lib.mp_release_later(slot, cell.offset64))
            if cell.time + self.step >= NEVER:
                continue
            batch = Batch(worker, self.out.schema, cell)
            if batch.times is not None:
                self._delay_each(batch)
            else:
                cell.time += self.step
                worker.push(self.out, cell)
        worker.check(lib.mp_publish(slot))

    def _delay_each(self, batch: Batch) -> None:
        """Send records that have times of their own: these are written anew, and with them the rest."""
        times = batch.times
        assert times is not None
        index = np.flatnonzero(times < np.uint64(NEVER - self.step))
        self._output.time = batch.time
        try:
            send_selected(
                self._worker,
                batch,
                index,
                self._output,
                time=batch.time + self.step,
                times=times[index] + np.uint64(self.step),
            )
        finally:
            self._output.time = NEVER


@graph_method
def feedback(graph: Graph, columns: Any, step: int = 1, *, name: str = "feedback") -> tuple[Feedback, Stream]:  # noqa: ANN401
    """Add a loop.

    Args:
        graph: the dataflow.
        columns: of what flows back.
        step: how much later it comes out, 1 or more.
        name: for errors and reports.

    Returns:
        The handle, whose ``connect`` closes the loop, and the stream that comes out. Records that flow back do not
        count as in flight, so a loop must let records leave.
    """
    operator = Feedback(graph, name, columns, step)
    return operator, Stream(graph, operator.out)
