"""Operators that see frontiers and keep capabilities: they may wait until a time is complete.

The function of such an operator is called when there is input or when a frontier has moved.  It takes what batches
it likes, keeps them or not, holds capabilities for the times at which it will answer, and asks the notificator to be
told when a time is complete::

    def count(input, output, notificator):
        for batch in input:
            if batch.time not in counts:
                notificator.notify_at(output.capability())
            counts[batch.time] = counts.get(batch.time, 0) + batch.n
        for time, _ in notificator:
            output.send({"count": [counts.pop(time)]})
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import Batch, count_kept
from megaphone.dataflow.capability import Capability
from megaphone.dataflow.graph import InputPort, Operator, OutputPort, Pact
from megaphone.dataflow.operators.notificator import FrontierNotificator
from megaphone.dataflow.operators.unary import FUEL_BATCHES, Output
from megaphone.dataflow.sending import NEVER
from megaphone.dataflow.stream import Stream, stream_method

if TYPE_CHECKING:
    from megaphone.dataflow.worker import Worker


class FrontierOutput(Output):
    """What such an operator sends with: at times of batches that this call has taken, and of capabilities it holds."""

    def __init__(self, worker: Worker, port: OutputPort, *, sends_away: bool) -> None:
        super().__init__(worker, port)
        self._sends_away = sends_away
        self._taken = NEVER  # least time of the batches that this call has taken
        self._is_open = False

    def capability(self, time: int | None = None) -> Capability:
        """Return the right to send at a time or later, to be kept beyond this call.

        Args:
            time: that of the batch or notification that is being looked at by default.

        Raises:
            TimeError: the operator may not send at this time itself.
        """
        return Capability(self._worker, self._port, self._checked(self.time if time is None else time))

    @property
    def must_wait(self) -> bool:
        """Whether what has been sent fills the rings, so that more would only pile up."""
        return self._sends_away and not lib.mp_outbox_is_empty(self._worker.slot)

    def _least(self) -> int:
        if not self._is_open:
            return NEVER
        worker = self._worker
        worker.apply_dropped()
        return min(self._taken, int(lib.mp_held_least(worker.slot, worker.index, self._port.location)))

    def _begin(self) -> None:
        self._is_open = True
        self.time = self._taken = NEVER

    def _take(self, time: int) -> None:
        self.time = time
        self._taken = min(self._taken, time)

    def _end(self) -> None:
        self._is_open = False


class FrontierInput:
    """One input, as the function of such an operator sees it.

    Iterating takes batches that have arrived, in the order of arrival, and stops when there are none, when fuel is
    used up or when output has to wait; the function is called again for the rest.
    """

    def __init__(self, worker: Worker, port: InputPort, output: FrontierOutput) -> None:
        self._worker = worker
        self._port = port
        self._output = output
        self._cell = ffi.new("mp_cell *")
        self._fuel = 0
        self._batches: list[Batch] = []
        self._is_cut = False

    @property
    def frontier(self) -> int:
        """The least time that may still arrive; 2**64 - 1 when none can. Batches that this call takes still count."""
        return int(lib.mp_frontier(self._worker.slot, self._port.location))

    def done(self, time: int) -> bool:
        """Return whether nothing at or before ``time`` can arrive any more."""
        return self.frontier > time

    def __iter__(self) -> Iterator[Batch]:
        worker, cell, output = self._worker, self._cell, self._output
        slot, location = worker.slot, self._port.location
        while True:
            if self._fuel == 0 or output.must_wait:
                self._is_cut = True
                return
            if worker.check(lib.mp_take(slot, location, cell)) == 0:
                return
            self._fuel -= 1
            worker.check(lib.mp_release_later(slot, cell.offset64))
            self._batches.append(Batch(worker, self._port.schema, cell))
            output._take(cell.time)  # noqa: SLF001 - an input justifies what its operator's output sends
            yield self._batches[-1]

    def _begin(self) -> None:
        self._fuel = FUEL_BATCHES
        self._is_cut = False

    def _end(self) -> None:
        self._fuel = 0
        left = [batch.leave() for batch in self._batches]
        self._batches.clear()
        count_kept(self._worker, left)


class FrontierOperator(Operator):
    """Base of operators with any inputs and one output whose function sees frontiers."""

    def __init__(self, streams: tuple[Stream, ...], name: str, columns: Any, pacts: tuple[Pact | None, ...]) -> None:  # noqa: ANN401
        super().__init__(streams[0].graph, name)
        for stream, pact in zip(streams, pacts, strict=True):
            self.add_input(stream, pact)
        self.out = self.add_output(columns if columns is not None else streams[0].schema)

    def setup(self, worker: Worker) -> None:
        """Make what the function is called with."""
        self._worker = worker
        self._ports = ffi.new("uint32_t[]", [port.location for port in self.inputs])
        self._output = FrontierOutput(worker, self.out, sends_away=self.sends_away)
        self._sources = [FrontierInput(worker, port, self._output) for port in self.inputs]
        self._notificator = FrontierNotificator(self._sources, self._output)

    def call(self, sources: list[FrontierInput], output: FrontierOutput, notificator: FrontierNotificator) -> None:
        """Call the user's function."""
        raise NotImplementedError  # pragma: no cover - every operator has its own

    def activate(self) -> None:
        """Call the function once; again in the next step if it was stopped before it was through."""
        worker, sources, output, notificator = self._worker, self._sources, self._output, self._notificator
        slot = worker.slot
        lib.mp_begin(slot, self._ports, len(sources))
        output._begin()  # noqa: SLF001 - the parts of one operator
        for source in sources:
            source._begin()  # noqa: SLF001
        self.call(sources, output, notificator)
        cut = notificator.is_cut
        for source in sources:
            cut |= source._is_cut  # noqa: SLF001
            source._end()  # noqa: SLF001
        output._end()  # noqa: SLF001
        worker.apply_dropped()
        worker.check(lib.mp_publish(slot))
        if cut:
            lib.mp_again(slot, self._ports[0])


class UnaryFrontier(FrontierOperator):
    """One input."""

    def __init__(
        self,
        stream: Stream,
        name: str,
        function: Callable[[FrontierInput, FrontierOutput, FrontierNotificator], Any],
        columns: Any,  # noqa: ANN401 - as Schema
        pact: Pact | None,
    ) -> None:
        super().__init__((stream,), name, columns, (pact,))
        self.function = function

    def call(self, sources: list[FrontierInput], output: FrontierOutput, notificator: FrontierNotificator) -> None:
        """Call the user's function."""
        self.function(sources[0], output, notificator)


@stream_method
def unary_frontier(
    stream: Stream,
    function: Callable[[FrontierInput, FrontierOutput, FrontierNotificator], Any],
    *,
    columns: Any = None,  # noqa: ANN401 - as Schema
    pact: Pact | None = None,
    name: str = "unary_frontier",
) -> Stream:
    """Add an operator that calls ``function(input, output, notificator)`` on input and when the frontier moves.

    Args:
        stream: its input.
        function: takes batches by iterating ``input``; may keep them, and capabilities, for later calls.
        columns: of the output; those of the input by default.
        pact: how records reach it; they stay on their worker by default.
        name: for errors and reports.
    """
    return Stream(stream.graph, UnaryFrontier(stream, name, function, columns, pact).out)
