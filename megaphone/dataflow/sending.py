"""What inputs and operators send: a user's values, checked against the stream's columns, and put on the edges.

::

    arrays ── check ── one copy ──> slab ──> edges        (an exchange alone: scattered straight from the arrays)
    loan   ── check ─────────────────────> edges

Nothing of a batch stays sent when memory is short half way or a user's key function raises.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import BytesColumn, Loan
from megaphone.errors import TimeError, UsageError
from megaphone.shm.counters import COUNTER_INDEX

if TYPE_CHECKING:
    from megaphone.dataflow.graph import OutputPort
    from megaphone.dataflow.schema import Schema
    from megaphone.dataflow.worker import Worker

NEVER: Final = 2**64 - 1
PART_BYTES: Final = 48 << 10
"""What a user's key function is shown at most, records of one batch apart; fits the smallest slab."""
_COPIED_INGEST = COUNTER_INDEX["copied_ingest"]


def checked_time(time: int, where: str) -> int:
    """Return a time as a plain int; raise TimeError when it is none that a record can have."""
    try:
        value = operator.index(time)
    except TypeError:
        message = f"{where}: time {time!r} is no whole number: use 0 to 2**64 - 2"
        raise TimeError(message) from None
    if not 0 <= value < NEVER:
        message = f"{where}: time {value} is outside 0 to 2**64 - 2"
        raise TimeError(message)
    return value


def checked_times(times: Any, records: int, least: int, where: str) -> npt.NDArray[np.uint64] | None:  # noqa: ANN401 - array-like
    """Return uint64[records], the time of each record; None for None.

    Raises:
        UsageError: another shape, or no whole numbers.
        TimeError: a time before ``least``.
    """
    if times is None:
        return None
    stamps = _converted("times", times, np.dtype(np.uint64), where)
    if len(stamps) != records:
        message = f"{where}: {len(stamps)} times for {records} records: give one for each"
        raise UsageError(message)
    check_stamps(stamps, least, where)
    return stamps


def check_stamps(stamps: npt.NDArray[np.uint64] | None, least: int, where: str) -> None:
    """Raise TimeError if a time is before ``least``, or is the one that means never."""
    if stamps is None or not len(stamps):
        return
    if (first := int(stamps.min())) < least:
        message = f"{where} sends at time {least}, and a record has time {first}: records may be later, not earlier"
        raise TimeError(message)
    if int(stamps.max()) == NEVER:
        message = f"{where}: a record has time 2**64 - 1, which means never: use 0 to 2**64 - 2"
        raise TimeError(message)


def checked_columns(schema: Schema, values: Any, where: str) -> tuple[list[Any], int, int]:  # noqa: ANN401
    """Bring what a user gave into the schema's order; returns (columns, records, bytes).

    Args:
        schema: of the stream.
        values: each column's name to its values: an array or sequence of one dimension, for a bytes column a
            BytesColumn or a sequence of bytes. Whole numbers are converted when the stream's dtype can hold them.
        where: the input or operator, for messages.

    Raises:
        UsageError: a column is missing, unknown, or has another dtype or length.
    """
    if not isinstance(values, Mapping):
        message = f"{where} is given {type(values).__name__}: give a mapping from column names to arrays, or a loan"
        raise UsageError(message)
    unknown = values.keys() - schema.index.keys()
    missing = schema.index.keys() - values.keys()
    if unknown or missing:
        what = f"unknown column {min(unknown, key=str)!r}" if unknown else f"column {min(missing)!r} is missing"
        message = f"{where}: {what}; it has {', '.join(schema.names)}"
        raise UsageError(message)
    columns: list[Any] = []
    size = 0
    records: int | None = None
    for name, dtype in zip(schema.names, schema.dtypes, strict=True):
        column: Any
        if dtype is None:
            column = _bytes_column(name, values[name], where)
            size += column.nbytes - 4
        else:
            column = _converted(name, values[name], dtype, where)
            size += column.nbytes
        if records is not None and len(column) != records:
            message = f"{where}: column {name!r} has {len(column)} values, the others {records}: give equally many"
            raise UsageError(message)
        records = len(column)
        columns.append(column)
    return columns, records or 0, size


def send_columns(
    worker: Worker, port: OutputPort, columns: list[Any], records: int, time: int, times: npt.NDArray[np.uint64] | None
) -> None:
    """Send checked columns in private memory along an output's edges: one copy. All of them, or none and an exception.

    Raises:
        SharedMemoryError: no room.
    """
    edges = port.sent_edges
    if not records or not edges:
        return
    if any(callable(pact.key) for _, pact in edges):
        _send_shown(worker, port, columns, records, time, times)
        return
    pointers = ffi.new("void *[]", len(columns))
    var = ffi.new("void *[3]")
    keep: list[Any] = []
    ordinal = 0
    for index, column in enumerate(columns):
        if isinstance(column, BytesColumn):
            offsets, data = np.ascontiguousarray(column.offsets), np.ascontiguousarray(column.data)
            keep += [offsets, data]
            pointers[index] = ffi.cast("void *", offsets.ctypes.data)
            var[ordinal] = ffi.cast("void *", data.ctypes.data)
            ordinal += 1
        else:
            pointers[index] = ffi.cast("void *", column.ctypes.data)
    stamps = ffi.NULL if times is None else ffi.cast("uint64_t *", times.ctypes.data)
    worker.check(
        lib.mp_push_columns(worker.slot, port.c_edges, len(edges), pointers, var, records, time, stamps, ffi.NULL)
    )
    del keep  # until here the core has read from these


def _send_shown(
    worker: Worker, port: OutputPort, columns: list[Any], records: int, time: int, times: npt.NDArray[np.uint64] | None
) -> None:
    """Copy columns into slabs and send those: for edges whose key is a user's function of a batch."""
    mark = lib.mp_emit_mark(worker.slot)
    most = max(1, PART_BYTES // (port.schema.row_bytes + 8))
    first = 0
    try:
        while first < records:
            end = min(records, first + most)
            while end - first > 1 and any(
                int(column.offsets[end]) - int(column.offsets[first]) > PART_BYTES
                for column in columns
                if isinstance(column, BytesColumn)
            ):
                end = (first + end) // 2
            part = None if times is None else times[first:end]
            send_loan(worker, port, _filled(worker, port, columns, first, end, part), time, "")
            first = end
    except BaseException:
        lib.mp_emit_undo(worker.slot, mark)
        raise


def _filled(
    worker: Worker,
    port: OutputPort,
    columns: list[Any],
    first: int,
    end: int,
    times: npt.NDArray[np.uint64] | None,
) -> Loan:
    """Return a loan with records [first, end) of columns; the bytes are counted as ingested."""
    bounds = {
        name: (int(column.offsets[first]), int(column.offsets[end]))
        for name, column in zip(port.schema.names, columns, strict=True)
        if isinstance(column, BytesColumn)
    }
    rooms = {name: stop - start for name, (start, stop) in bounds.items()}
    loan = Loan(worker, port.schema, end - first, timed=times is not None, bytes_room=rooms)
    with worker.times.of("ingest"):
        for name, column in zip(port.schema.names, columns, strict=True):
            if isinstance(column, BytesColumn):
                offsets, data = loan[name]
                start, stop = bounds[name]
                np.subtract(column.offsets[first : end + 1], np.uint32(start), out=offsets)
                data[: stop - start] = column.data[start:stop]
            else:
                loan[name][:] = column[first:end]
        if loan.times is not None and times is not None:
            loan.times[:] = times
    lib.mp_counter_add(worker.slot, _COPIED_INGEST, (end - first) * int(loan.cell.row_bytes) + sum(rooms.values()))
    return loan


def send_loan(worker: Worker, port: OutputPort, loan: Loan, time: int, where: str) -> int:
    """Send the filled part of a loan without a copy; returns its bytes.

    Raises:
        UsageError: the loan is of other columns, has been sent, or is filled wrongly.
        TimeError: a record's time is before the batch's.
        SharedMemoryError: no room for an exchange's batches; the loan can be sent again.
    """
    if loan.schema is not port.schema and loan.schema != port.schema:
        message = f"{where} is given a loan of {loan.schema.describe()}, and sends {port.schema.describe()}"
        raise UsageError(message)
    loan.finish(time)
    if loan.times is not None:
        check_stamps(loan.times[: loan.n], time, where)
    worker.push(port, loan.cell)
    loan.leave()
    return loan.n * int(loan.cell.row_bytes) + int(loan.cell.aux)


def _bytes_column(name: str, values: Any, where: str) -> BytesColumn:  # noqa: ANN401 - sequence of bytes
    try:
        column = BytesColumn.of(values)
        if column is values:
            column.check()
    except (UsageError, TypeError) as error:
        message = f"{where}: column {name!r}: {error}"
        raise UsageError(message) from None
    return column


def _converted(name: str, values: Any, dtype: np.dtype[Any], where: str) -> npt.NDArray[Any]:  # noqa: ANN401 - array-like
    """Return values as a contiguous array of a dtype, if that loses nothing."""
    # Tuples make a record only where numpy is told so.
    wanted = dtype if dtype.kind == "V" and not isinstance(values, np.ndarray) else None
    array: npt.NDArray[Any] | None
    try:
        array = np.asarray(values, wanted)
    except (ValueError, TypeError):
        array = None
    if array is None or array.ndim != 1:
        shape = "of unequal rows" if array is None else f"of shape {array.shape}"
        message = f"{where}: column {name!r} is {shape}: give one dimension of {dtype}"
        raise UsageError(message)
    if array.dtype == dtype:
        return np.ascontiguousarray(array)
    if len(array) == 0:
        return np.empty(0, dtype)
    kind, goal = array.dtype.kind, dtype.kind
    if np.can_cast(array.dtype, dtype, "safe"):
        return np.ascontiguousarray(array, dtype)
    if kind in "iub" and goal in "iubf":
        converted = array.astype(dtype)
        if np.array_equal(converted, array):
            return np.ascontiguousarray(converted)
        message = f"{where}: column {name!r} is {array.dtype} with values that {dtype} cannot hold: widen the stream's"
        raise UsageError(message)
    if not isinstance(values, np.ndarray):
        if kind == "f" and goal == "f":  # Python's floats have one width, the stream's may have another
            return np.ascontiguousarray(array, dtype)
        if goal in "iu" and all(isinstance(value, int | np.integer) for value in values):
            # numpy takes whole numbers on both sides of 2**63 for floats.
            try:
                return np.asarray(values, dtype)
            except OverflowError:
                message = f"{where}: column {name!r} has whole numbers that {dtype} cannot hold: widen the stream's"
                raise UsageError(message) from None
    message = f"{where}: column {name!r} is {array.dtype}, the stream has {dtype}: convert it first"
    raise UsageError(message)
