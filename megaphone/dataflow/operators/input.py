"""Inputs: where the main program puts records and time into the dataflow.

    send(columns) or loan(n) -> fill -> send        records of the current time
    advance_to(t)                                   no record before t will follow
    close()                                         none at all

Flow control: ``send`` steps the worker until the bytes that this worker has in flight are under the mark; ``try_send``
returns False instead. Bytes that wait for a frontier are not in flight. ``advance_to`` and ``close`` are never refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from megaphone._core import lib
from megaphone.dataflow.batch import Loan
from megaphone.dataflow.graph import Graph, Operator
from megaphone.dataflow.schema import Schema
from megaphone.dataflow.sending import NEVER, checked_columns, checked_time, checked_times, send_columns, send_loan
from megaphone.dataflow.stream import Stream, graph_method
from megaphone.errors import MegaphoneError, SharedMemoryError, TimeError, UsageError
from megaphone.shm.counters import COUNTER_INDEX

if TYPE_CHECKING:
    from megaphone.dataflow.worker import Worker

IN_FLIGHT_BYTES_MAX: Final = 8 << 20
_INPUT_RECORDS = COUNTER_INDEX["input_records"]
_INPUT_BYTES = COUNTER_INDEX["input_bytes"]
_RELIEF_TRIES: Final = 200
"""At least; where other processes may give memory back, for RELIEF_SECONDS."""

T = TypeVar("T")

__all__ = ["NEVER", "Input", "InputOperator", "checked_columns", "input"]


class InputOperator(Operator):
    """The source side of an input: one output, a capability at the input's time."""

    def __init__(self, graph: Graph, name: str, schema: Any, holders: frozenset[int]) -> None:  # noqa: ANN401 - as Schema
        super().__init__(graph, name)
        self.port = self.add_output(schema, holders)
        self.handle = Input(self)

    def setup(self, worker: Worker) -> None:
        """Open the handle on this worker."""
        self.handle._open(worker)  # noqa: SLF001 - operator and handle are two faces of one thing


class Input:
    """Handle to an input on one worker; closes itself at the end of a ``with`` block.

    Attributes:
        name: the operator's name.
        schema: columns to be sent.
        time: current time; records sent now have it.
        closed: whether no more can be sent.
        in_flight_bytes_max: the mark of flow control.
    """

    carries_records = True
    """Whether what is sent counts as records of input; words of instructions do not, only their bytes."""

    def __init__(self, operator: InputOperator) -> None:
        self._operator = operator
        self._worker: Worker | None = None
        self.name = operator.name
        self._where = f"input {operator.name!r}"
        self.schema: Schema = operator.port.schema
        self.time = 0
        self.closed = True
        self.in_flight_bytes_max = IN_FLIGHT_BYTES_MAX
        self._followers: list[tuple[Input, int]] = []

    def _open(self, worker: Worker) -> None:
        self._worker = worker
        self.in_flight_bytes_max = max(64 << 10, min(IN_FLIGHT_BYTES_MAX, worker.data_bytes // (16 * worker.peers)))
        if worker.index in self._operator.port.holders:
            self.closed = False
            self._count_open(1)
            worker.start_hooks.append(self._start)

    def lead_by(self, follower: Input, lead: int) -> None:
        """Make another input advance and close with this one, ``lead`` ahead of it."""
        self._followers.append((follower, lead))

    def _start(self) -> None:
        """Bring the followers ahead before the first step."""
        for follower, lead in self._followers:
            if not follower.closed and follower.time < self.time + lead:
                follower.advance_to(self.time + lead)

    def _count_open(self, change: int) -> None:
        worker = self._running()
        worker.inputs_open += change
        lib.mp_inputs_open_set(worker.slot, worker.inputs_open)

    def _running(self) -> Worker:
        if self._worker is None:
            message = f"input {self.name!r} is used inside build: use it in drive, where the worker runs"
            raise MegaphoneError(message)
        if not self._worker.slot:
            message = f"input {self.name!r} is used after the run: send inside it"
            raise MegaphoneError(message)
        return self._worker

    def _sending(self) -> Worker:
        worker = self._running()
        if self.closed:
            message = f"input {self.name!r} is closed on worker {worker.index}: send before close"
            raise MegaphoneError(message)
        return worker

    # -- time --------------------------------------------------------------------------------------------------------

    def advance_to(self, time: int) -> None:
        """Promise that no record before ``time`` will follow.

        Args:
            time: 0 to 2**64 - 2, not before the current time.

        Raises:
            TimeError: the time falls.
        """
        worker = self._sending()
        time = checked_time(time, self._where)
        if time == self.time:
            return
        if time < self.time:
            message = f"input {self.name!r} at time {self.time} cannot go back to {time}: times only rise"
            raise TimeError(message)
        worker.begin_input()
        self._move_to(worker, time)

    def _move_to(self, worker: Worker, time: int) -> None:
        """Advance, and what follows with it, in the activation that is open."""
        rc = lib.mp_capability_move(worker.slot, self._operator.port.location, self.time, time)
        if rc:
            worker.check(rc)
        self.time = time
        for follower, lead in self._followers:
            if not follower.closed and follower.time < (then := min(time + lead, NEVER - 1)):
                follower._move_to(worker, then)  # noqa: SLF001 - an input too

    def close(self) -> None:
        """End the input; closing twice is allowed. Inputs that follow this one close with it."""
        if self.closed and self._worker is not None:
            return
        worker = self._sending()
        worker.begin_input()
        worker.check(lib.mp_capability(worker.slot, self._operator.port.location, self.time, -1))
        self.closed = True
        self._count_open(-1)
        for follower, _ in self._followers:
            follower.close()

    def __enter__(self) -> Input:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()

    # -- records -----------------------------------------------------------------------------------------------------

    def loan(self, n: int, *, timed: bool = False, bytes_room: Mapping[str, int] | None = None) -> Loan:
        """Return room for n records in shared memory, to be filled and sent without a copy.

        Args:
            n: records.
            timed: with a ``times`` column, uint64[n], each value at or after the current time.
            bytes_room: for each bytes column, how many bytes it may hold.

        Raises:
            SharedMemoryError: no room, and none came free while stepping.
        """
        worker = self._outside("loan from")
        return self._with_relief(worker, Loan, worker, self.schema, n, timed=timed, bytes_room=bytes_room)

    def send(self, batch: Loan | Mapping[str, Any], n: int | None = None, *, times: Any = None) -> None:  # noqa: ANN401
        """Send records at the current time, stepping the worker while too much is in flight or memory is short.

        Args:
            batch: a filled loan, or a mapping from each column's name to its values (arrays of one length; for a
                bytes column a BytesColumn or a list of bytes). Arrays are copied once.
            n: of a loan, how many records are filled; all by default.
            times: uint64[n], a time for each record at or after the current time; None gives all the current time.
                A loan brings its own.

        Raises:
            UsageError: a column is missing, unknown, of another dtype or length.
            TimeError: a time before the current one.
            SharedMemoryError: no room, and none came free while stepping; nothing has been sent.
        """
        worker = self._outside("send to")
        while worker.in_flight_bytes() >= self.in_flight_bytes_max:
            self._step(worker)
        self._send(worker, batch, n, times)

    def try_send(self, batch: Loan | Mapping[str, Any], n: int | None = None, *, times: Any = None) -> bool:  # noqa: ANN401
        """Send as ``send`` does, or return False at once when too much is in flight."""
        worker = self._outside("send to")
        if worker.in_flight_bytes() >= self.in_flight_bytes_max:
            return False
        self._send(worker, batch, n, times)
        return True

    def _outside(self, what: str) -> Worker:
        """Return the worker; refuse inside an operator, where stepping would run operators inside operators."""
        worker = self._sending()
        if (inside := worker.current_operator()) is not None:
            message = f"{what} input {self.name!r} inside operator {inside!r}: use its own output"
            raise MegaphoneError(message)
        return worker

    @staticmethod
    def _step(worker: Worker) -> None:
        if not worker.step():
            worker.park(1_000_000)
        worker.raise_if_stopped()

    def _with_relief(self, worker: Worker, take: Callable[..., T], *given: Any, **named: Any) -> T:  # noqa: ANN401
        """Do what takes memory; step and try again while there is none, as what peers still read comes free."""
        slot, deadline, tries = worker.slot, 0.0, 0
        while True:
            # Stepping frees more than waiting inside the allocation does.
            patience_ns = lib.mp_relief_patience(slot, 0)
            try:
                return take(*given, **named)
            except SharedMemoryError:
                deadline = deadline or time.monotonic() + worker.relief_seconds
                if tries >= _RELIEF_TRIES and time.monotonic() >= deadline:
                    raise
            finally:
                lib.mp_relief_patience(slot, patience_ns)
            self._step(worker)
            tries += 1

    def _send(self, worker: Worker, batch: Loan | Mapping[str, Any], n: int | None, times: Any) -> None:  # noqa: ANN401
        where = self._where
        if isinstance(batch, Loan):
            if times is not None:
                message = f"{where} is given a loan and times: fill the times of a loan made with timed=True"
                raise UsageError(message)
            if n is not None:
                batch.n = n
            size = self._with_relief(worker, self._put_loan, worker, batch)
            records = batch.n
        else:
            columns, records, size = checked_columns(self.schema, batch, where)
            if n is not None and n != records:
                message = f"{where}: n is {n} and the columns have {records} values: n is for loans"
                raise UsageError(message)
            stamps = checked_times(times, records, self.time, where)
            self._with_relief(worker, self._put_columns, worker, columns, records, stamps)
        if self.carries_records:
            lib.mp_counter_add(worker.slot, _INPUT_RECORDS, records)
        lib.mp_counter_add(worker.slot, _INPUT_BYTES, size)

    def _put_loan(self, worker: Worker, batch: Loan) -> int:
        worker.begin_input()
        return send_loan(worker, self._operator.port, batch, self.time, self._where)

    def _put_columns(self, worker: Worker, columns: list[Any], records: int, stamps: Any) -> None:  # noqa: ANN401
        worker.begin_input()
        send_columns(worker, self._operator.port, columns, records, self.time, stamps)


@graph_method
def input(graph: Graph, name: str, columns: Any) -> tuple[Input, Stream]:  # noqa: A001, ANN401 - the field's word
    """Add an input of these columns; every worker has a handle to its own.

    Args:
        graph: the dataflow.
        name: of the operator.
        columns: name to dtype.

    Returns:
        The handle, for the main program, and the stream.
    """
    operator = InputOperator(graph, name, columns, frozenset(range(graph.workers)))
    return operator.handle, Stream(graph, operator.port)
