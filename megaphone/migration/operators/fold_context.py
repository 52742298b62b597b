"""What a fold is called with: complete records in order, the state of their bins, and ways to send.

Records lie where they arrived: ``segments`` are views, one for each message, and nothing is joined unless
``column`` is asked for more than one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import Batch, BytesColumn, count_kept
from megaphone.dataflow.operators.unary import Output
from megaphone.dataflow.sending import NEVER
from megaphone.shm.counters import COUNTER_INDEX

if TYPE_CHECKING:
    from megaphone.dataflow.schema import Schema
    from megaphone.dataflow.worker import Worker
    from megaphone.migration.operators.applying import Applier

PENDING_SENDER: Final = int(lib.MP_PENDING_SENDER)
"""What a segment of post-dated records has in place of a sender."""
NO_LOCATION: Final = 0xFFFF_FFFF
VIEWS_MAX: Final = 2
"""Segments that are joined as views; of more, a column is joined in C, without a view of each."""
_COPIED_CONCAT = COUNTER_INDEX["copied_concat"]


class FoldContext:
    """One call of a fold, or of what consumes input before it.

    Attributes:
        time: the earliest time among the records; outputs may be sent at it or later.
        state: the rows of the bins that this worker owns.
        output: sends, as in other operators; each send may name its time.

    It is valid until the call returns. Views of its columns may be kept for longer.
    """

    def __init__(self, applier: Applier, worker: Worker) -> None:
        self._applier = applier
        self._worker = worker
        self._count = 0
        self._segments: tuple[Batch, ...] | None = None
        self._why = ffi.new("mp_outcome *")
        self._right_location = NO_LOCATION
        self.state = applier.state
        self.output = Output(worker, applier.out)
        self.time = NEVER

    def _open(self, count: int) -> None:
        """Begin a call that has so many segments."""
        self._count = count
        self.time = self.output.time = int(lib.mp_segments(self._worker.slot)[0].time)

    def _close(self) -> None:
        """End the call: what the user's code has kept takes a reference of its own here."""
        self._count = 0
        self.time = self.output.time = NEVER
        if self._segments is not None:
            left = [segment.leave() for segment in self._segments]
            self._segments = None
            count_kept(self._worker, left)

    # -- records -----------------------------------------------------------------------------------------------------

    @property
    def segments(self) -> tuple[Batch, ...]:
        """The batches of this call, in the order (time, post-dated before input, sender, sequence); views."""
        if self._segments is None:
            cells = lib.mp_segments(self._worker.slot)
            self._segments = tuple(
                Batch(self._worker, self._schema_of(cells[index]), cells[index]) for index in range(self._count)
            )
        return self._segments

    def _schema_of(self, cell: Any) -> Schema:  # noqa: ANN401 - a cffi struct
        applier = self._applier
        return applier.pending_schema if cell.sender == PENDING_SENDER else applier.segment_schema

    @property
    def input(self) -> tuple[Batch, ...]:
        """The batches that are input, without what was post-dated."""
        return tuple(segment for segment in self.segments if segment.sender != PENDING_SENDER)

    @property
    def pending(self) -> tuple[Batch, ...]:
        """The batches of post-dated records."""
        return tuple(segment for segment in self.segments if segment.sender == PENDING_SENDER)

    def by_time(self) -> Iterator[tuple[int, tuple[Batch, ...]]]:
        """Yield each time with its batches, in order."""
        segments = self.segments
        start = 0
        for end in range(1, len(segments) + 1):
            if end == len(segments) or segments[end].time != segments[start].time:
                yield segments[start].time, segments[start:end]
                start = end

    def __len__(self) -> int:
        """Return the number of records."""
        return sum(segment.n for segment in self.segments)

    def column(self, name: str) -> Any:  # noqa: ANN401 - an array or a BytesColumn
        """Return one column of all segments: a view if there is one segment, else a copy, counted as concat.

        Raises:
            GraphError: there is no such column.
        """
        schema = self._applier.segment_schema
        if self._count > VIEWS_MAX and (joined := self._joined_in_c(lib.MP_OF_ALL, schema, name)) is not None:
            return joined
        return self._joined(self.segments, schema, name)

    def _joined_in_c(self, which: int, schema: Schema, name: str) -> Any:  # noqa: ANN401 - an array, or None
        """Return one column of all segments of some sides; None if it is not for C: bytes, or of two kinds of dtype.

        Args:
            which: the sides, as in ``folds.h``.
            schema: of those that are input.
            name: of the column.
        """
        worker, op, pending = self._worker, self._applier.op, self._applier.pending_schema
        if not (which & lib.MP_OF_PENDING and op.has_pending and op.shown & lib.MP_SHOWN_PENDING):
            pending = schema
        elif which == lib.MP_OF_PENDING or op.shown == lib.MP_SHOWN_PENDING:
            schema = pending
        if not (name in schema.index and name in pending.index):
            return None
        dtype = schema.dtype(name)
        if dtype is None or dtype != pending.dtype(name):
            return None
        count = ffi.new("uint32_t *")
        records = lib.mp_segments_records(worker.slot, which, self._right_location, count)
        out = np.empty(records, dtype)
        if not records:
            return out
        lib.mp_segments_join(
            worker.slot, which, self._right_location, schema.c, schema.column(name), pending.c, pending.column(name),
            ffi.from_buffer("uint8_t[]", out.view(np.uint8), require_writable=True),
        )  # fmt: skip
        return out

    def _joined(self, segments: tuple[Batch, ...], schema: Schema, name: str) -> Any:  # noqa: ANN401 - as above
        if not segments:
            dtype = schema.dtype(name)
            return BytesColumn.of([]) if dtype is None else np.empty(0, dtype)
        parts = [segment[name] for segment in segments]
        if len(parts) == 1:
            return parts[0]
        with self._worker.times.of("concat"):
            joined = joined_bytes(parts) if isinstance(parts[0], BytesColumn) else np.concatenate(parts)
        lib.mp_counter_add(self._worker.slot, _COPIED_CONCAT, joined.nbytes)
        return joined

    @property
    def times(self) -> npt.NDArray[np.uint64]:
        """uint64[n], the time of each record of all segments."""
        segments = self.segments
        return np.repeat(np.array([s.time for s in segments], np.uint64), [s.n for s in segments])

    # -- what becomes of them ------------------------------------------------------------------------------------------

    def add_emit(self, key: str, value: str | None = None) -> int:
        """Add to the first column of each record's row, and send (key, running value) at the record's time.

        Args:
            key: the column that chose the bin.
            value: column that is added, of the dtype of the state's first column; None adds 1.

        Returns:
            The records applied.

        Raises:
            UsageError: the columns of input, state and output do not fit; the message names what differs.

        Cost: one C call for all segments; the output is written once, and keys are counted as gathered.
        """
        applier, worker = self._applier, self._worker
        schema = applier.adding_schema(key, value, self._schema_of(lib.mp_segments(worker.slot)[0]))
        out = applier.out
        columns = schema.c, schema.column(key), -1 if value is None else schema.column(value)
        if out.by_function:
            return self._add_emit_shown(columns)
        done = lib.mp_fold_add_emit(
            worker.slot, applier.op, applier.state.c, *columns, out.c_edges, out.edge_count, self._why
        )
        if done < 0:
            applier.raise_outcome(self._why, int(done))
        return int(done)

    def _add_emit_shown(self, columns: tuple[Any, int, int]) -> int:
        """Do the same batch by batch: an edge's key is a user's function, which sees each before it is sent."""
        applier, worker = self._applier, self._worker
        total, at, cell = 0, ffi.new("mp_fold_at *"), ffi.new("mp_cell *")
        while done := int(
            lib.mp_fold_add_next(worker.slot, applier.state.c, *columns, applier.out.schema.c, at, cell, self._why)
        ):
            if done < 0:
                applier.raise_outcome(self._why, done)
            worker.push(applier.out, cell)
            worker.check(lib.mp_release_later(worker.slot, cell.offset64))
            total += done
        return total

    def post_date(self, values: Mapping[str, Any], times: Any) -> None:  # noqa: ANN401 - array-like
        """Send records to this operator itself, for keys of this call, at later times.

        Args:
            values: columns of the pending schema. Their keys must be in bins of this call's records: a record that
                changes its bin goes through an exchange, not to the future.
            times: uint64[n], or one time for all; later than every time of this call (with ``per_time``, not before
                it; in what consumes input, not before ``time``).

        Raises:
            TimeError: a time that this call covers or that has passed.
            UsageError: the operator was declared without ``pending``, columns do not fit, or a bin is not here.
        """
        self._applier.post_date(values, times)


def joined_bytes(parts: list[BytesColumn]) -> BytesColumn:
    """Return several columns of byte strings as one; a copy."""
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.zeros(len(lengths) + 1, np.uint32)
    np.cumsum(lengths, out=offsets[1:])
    return BytesColumn(offsets, np.concatenate([p.data[int(p.offsets[0]) : int(p.offsets[-1])] for p in parts]))


def taken(column: Any, index: npt.NDArray[np.intp]) -> Any:  # noqa: ANN401 - an array or a BytesColumn
    """Return the values of a column at some positions, in that order; a copy."""
    if not isinstance(column, BytesColumn):
        return column[index]
    starts = column.offsets[:-1][index].astype(np.int64)
    lengths = np.diff(column.offsets)[index].astype(np.int64)
    offsets = np.zeros(len(index) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    source = np.arange(int(offsets[-1]), dtype=np.int64) + np.repeat(starts - offsets[:-1], lengths)
    return BytesColumn(offsets.astype(np.uint32), column.data[source])
