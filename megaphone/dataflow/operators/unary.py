"""Operators in Python: a function of one batch and an output; and what all of them are made of.

Nothing here runs per record: the function sees whole batches, and what it sends is either handed on by reference,
filled in place (a loan), or copied once (arrays of its own).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import Batch, Loan, count_kept
from megaphone.dataflow.graph import Operator, OutputPort, Pact
from megaphone.dataflow.sending import (
    NEVER,
    check_stamps,
    checked_columns,
    checked_time,
    checked_times,
    send_columns,
    send_loan,
)
from megaphone.dataflow.stream import Stream, stream_method
from megaphone.errors import TimeError, UsageError

if TYPE_CHECKING:
    from megaphone.dataflow.schema import Schema
    from megaphone.dataflow.worker import Worker

FUEL_BATCHES: Final = 64
"""Batches that one activation takes from an input at most, so that no operator keeps the others waiting."""


class Output:
    """What an operator's function sends with.

    A time may be given with each send; it must be one that the operator may still send at: that of a batch which it
    is called with, or later, or that of a capability that it holds.

    Attributes:
        time: when a send says nothing: the time of the batch or notification that is being looked at; sends may not
            be earlier. ``NEVER`` outside the function.
    """

    def __init__(self, worker: Worker, port: OutputPort) -> None:
        self._worker = worker
        self._port = port
        self._where = f"operator {port.operator.name!r}"
        self.time = NEVER

    @property
    def schema(self) -> Schema:
        """The columns to be sent."""
        return self._port.schema

    def loan(self, n: int, *, timed: bool = False, bytes_room: Mapping[str, int] | None = None) -> Loan:
        """Return room for n records in shared memory, to be filled and sent without a copy.

        Args:
            n: records.
            timed: with a ``times`` column, uint64[n], to be filled too.
            bytes_room: for each bytes column, how many bytes it may hold.
        """
        return Loan(self._worker, self._port.schema, n, timed=timed, bytes_room=bytes_room)

    def forward(self, batch: Batch, time: int | None = None) -> None:
        """Hand a received batch on as it is; costs a reference and no copy.

        Args:
            batch: of the output's columns; it may have been kept from an earlier call.
            time: to send it at; its own by default.

        Raises:
            GraphError: the output has other columns.
            TimeError: the operator may not send at this time, or a record's time is before it.
        """
        if batch.schema != self._port.schema:
            message = f"forward of a batch of {batch.schema.describe()}: the output has {self._port.schema.describe()}"
            raise self._port.operator.error(message)
        self._forward(batch, time)

    def _forward(self, batch: Batch, time: int | None = None) -> None:
        cell = ffi.new("mp_cell *")
        batch.fill_cell(cell)
        if time is not None and time != batch.time:
            check_stamps(batch.times, time, self._where)
        cell.time = self._checked(batch.time if time is None else time)
        self._worker.push(self._port, cell, batch)

    def send(
        self,
        values: Loan | Mapping[str, Any],
        *,
        n: int | None = None,
        time: int | None = None,
        times: Any = None,  # noqa: ANN401 - array-like
    ) -> None:
        """Send a filled loan (no copy) or arrays (one copy).

        Args:
            values: a loan, or a mapping from each column's name to its values.
            n: of a loan, how many records are filled; all by default.
            time: of the batch; ``self.time`` by default.
            times: uint64[n], a time for each record, none before ``time``; a loan brings its own.

        Raises:
            UsageError: a column is missing, unknown, of another dtype or length, or a loan is sent twice.
            TimeError: the operator may not send at this time, or a record's time is before it.
            SharedMemoryError: no room.
        """
        at = self._checked(self.time if time is None else time)
        if isinstance(values, Loan):
            if times is not None:
                message = f"{self._where} sends a loan with times: fill the times of a loan made with timed=True"
                raise UsageError(message)
            values.n = values.n if n is None else n
            send_loan(self._worker, self._port, values, at, self._where)
            return
        columns, records, _ = checked_columns(self._port.schema, values, self._where)
        if n is not None and n != records:
            message = f"{self._where}: n is {n} and the columns have {records} values: n is for loans"
            raise UsageError(message)
        stamps = checked_times(times, records, at, self._where)
        send_columns(self._worker, self._port, columns, records, at, stamps)

    def _least(self) -> int:
        """Return the least time that may be sent at now."""
        return self.time

    def _checked(self, time: int) -> int:
        if (least := self._least()) == NEVER:
            message = (
                f"{self._where} sends and holds no time: send in the call that shows a batch, or keep a capability"
            )
            raise TimeError(message)
        if time == NEVER:
            message = f"{self._where} sends without a time before it has looked at a batch: give time="
            raise TimeError(message)
        time = checked_time(time, self._where)
        if time < least:
            message = f"{self._where} may send at {least} or later, not at {time}"
            raise TimeError(message)
        return time


class BatchOperator(Operator):
    """Base of operators with one input whose batches are looked at one by one.

    Args:
        stream: its input.
        name: for errors and reports.
        pact: how records reach it; they stay on their worker by default.
    """

    messages_alone = True

    def __init__(self, stream: Stream, name: str, pact: Pact | None = None) -> None:
        super().__init__(stream.graph, name)
        self.port = self.add_input(stream, pact)

    def setup(self, worker: Worker) -> None:
        """Make what each activation reuses."""
        self._worker = worker
        self._ports = ffi.new("uint32_t[1]", [self.port.location])
        self._cell = ffi.new("mp_cell *")

    def on_batch(self, batch: Batch) -> None:
        """Do what this operator is for; the batch may be kept."""
        raise NotImplementedError  # pragma: no cover - every operator has its own

    def activate(self) -> None:
        """Look at the batches that have arrived, at most FUEL_BATCHES, and none once output has to wait."""
        worker, cell = self._worker, self._cell
        slot, location, schema = worker.slot, self.port.location, self.port.schema
        lib.mp_begin(slot, self._ports, 1)
        left = []
        for _ in range(FUEL_BATCHES):
            if worker.check(lib.mp_take(slot, location, cell)) == 0:
                break
            worker.check(lib.mp_release_later(slot, cell.offset64))
            batch = Batch(worker, schema, cell)
            self.on_batch(batch)
            left.append(batch.leave())
            del batch
            if not lib.mp_outbox_is_empty(slot):
                break
        # Before the messages' references go: what has been kept takes one of its own here.
        count_kept(worker, left)
        worker.check(lib.mp_publish(slot))


class Transform(BatchOperator):
    """Base of operators with one input and one output that send while they look at a batch.

    Args:
        stream: its input.
        name: for errors and reports.
        columns: of the output; those of the input where None.
        pact: how records reach it.
    """

    def __init__(self, stream: Stream, name: str, columns: Any = None, pact: Pact | None = None) -> None:  # noqa: ANN401
        super().__init__(stream, name, pact)
        self.out = self.add_output(columns if columns is not None else stream.schema)

    def setup(self, worker: Worker) -> None:
        """Make what each activation reuses."""
        super().setup(worker)
        self._output = Output(worker, self.out)

    def on_batch(self, batch: Batch) -> None:
        """Transform a batch; it justifies its own time and later ones."""
        output = self._output
        output.time = batch.time
        try:
            self.transform(batch, output)
        finally:
            output.time = NEVER

    def transform(self, batch: Batch, output: Output) -> None:
        """Send what becomes of a batch."""
        raise NotImplementedError  # pragma: no cover - every operator has its own


class Unary(Transform):
    """A function called with each batch and the output."""

    def __init__(
        self,
        stream: Stream,
        name: str,
        function: Callable[[Batch, Output], Any],
        columns: Any,  # noqa: ANN401 - as Schema
        pact: Pact | None = None,
    ) -> None:
        super().__init__(stream, name, columns, pact)
        self.function = function

    def transform(self, batch: Batch, output: Output) -> None:
        """Call the user's function."""
        self.function(batch, output)


@stream_method
def unary(
    stream: Stream,
    function: Callable[[Batch, Output], Any],
    *,
    columns: Any = None,  # noqa: ANN401 - as Schema
    pact: Pact | None = None,
    name: str = "unary",
) -> Stream:
    """Add an operator that calls ``function(batch, output)`` with each batch.

    Args:
        stream: its input.
        function: sends with ``output`` at the batch's time or later; may keep views of the batch.
        columns: of the output; those of the input by default.
        pact: how records reach it; they stay on their worker by default.
        name: for errors and reports.
    """
    return Stream(stream.graph, Unary(stream, name, function, columns, pact).out)
