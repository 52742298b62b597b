"""Batches as operators see them: read-only numpy views of a slab, and writable ones of a batch not yet sent.

::

    slab (data region)  | column 0 | column 1 | times |          one exporter per batch keeps a reference to the slab;
    numpy                 view       view       view             every column is a slice of it, so the slab is reused
                                                                 when the last of them is gone

A finaliser runs in any thread, at any time: it only appends to a list of the process, and the worker takes the
references back before its next step. A received batch is read-only for good; ``own`` copies, and counts the copy.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi, lib
from megaphone.errors import UsageError
from megaphone.shm.counters import COUNTER_INDEX

if TYPE_CHECKING:
    from megaphone.dataflow.schema import Schema
    from megaphone.dataflow.worker import Worker

FLAG_TIMES = 1
OFFSET_MAX = 2**32 - 1
_COPIED_OWN = COUNTER_INDEX["copied_own"]
_VIEWS_ESCAPED = COUNTER_INDEX["views_escaped"]


class BytesColumn:
    """A column of byte strings: offsets into one run of bytes.

    Attributes:
        offsets: uint32[n + 1], view.
        data: uint8[offsets[n]], view.
    """

    __slots__ = ("data", "offsets")

    def __init__(self, offsets: npt.NDArray[np.uint32], data: npt.NDArray[np.uint8]) -> None:
        self.offsets = offsets
        self.data = data

    @classmethod
    def of(cls, values: BytesColumn | Iterable[bytes]) -> BytesColumn:
        """Return a column of some byte strings; joins a list, takes a BytesColumn as it is.

        Raises:
            UsageError: something is no byte string, or together they are 4 GiB or more.
        """
        if isinstance(values, BytesColumn):
            return values
        parts = values.tolist() if isinstance(values, np.ndarray) else list(values)
        try:
            data = b"".join(parts)
        except TypeError:
            wrong = next((part for part in parts if not isinstance(part, bytes | bytearray | memoryview)), values)
            message = f"{wrong!r} is no byte string: encode text, and give a list of bytes"
            raise UsageError(message) from None
        if len(data) > OFFSET_MAX:
            message = f"{len(data)} bytes in one bytes column, at most {OFFSET_MAX} are possible: send them in parts"
            raise UsageError(message)
        offsets = np.zeros(len(parts) + 1, np.uint32)
        np.cumsum(np.fromiter(map(len, parts), np.uint32, len(parts)), out=offsets[1:])
        return cls(offsets, np.frombuffer(data, np.uint8))

    def check(self) -> None:
        """Raise UsageError if offsets and data are not what the core may follow without looking."""
        offsets, data = self.offsets, self.data
        ranks = offsets.ndim == data.ndim == 1 and len(offsets) > 0
        if not ranks or offsets.dtype != np.uint32 or data.dtype != np.uint8:
            message = (
                f"a BytesColumn of {offsets.dtype}{list(offsets.shape)} and {data.dtype}{list(data.shape)}: "
                "give uint32[n + 1] offsets and uint8[bytes] data"
            )
            raise UsageError(message)
        check_offsets(offsets, len(data))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.tolist())

    def tolist(self) -> list[bytes]:
        """Return the byte strings, copied out one by one: for tests and small results."""
        data = self.data.tobytes()
        bounds = self.offsets.tolist()
        return [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]

    @property
    def nbytes(self) -> int:
        """Bytes of offsets and data."""
        return self.offsets.nbytes + self.data.nbytes


Column = npt.NDArray[Any] | BytesColumn


def check_offsets(offsets: npt.NDArray[np.uint32], room_bytes: int) -> None:
    """Raise UsageError unless offsets, uint32[n + 1], rise from one to the next and end within the room."""
    if int(offsets[-1]) > room_bytes or not bool((offsets[1:] >= offsets[:-1]).all()):
        message = f"offsets of a bytes column fall, or pass its {room_bytes} bytes: give n + 1 rising ones"
        raise UsageError(message)


class Batch:
    """Records of one capability time, as read-only columns.

    Attributes:
        time: capability time of the batch.
        schema: its columns.

    Indexing with a column's name gives a view (no copy); ``batch.times`` gives the time of each record, or None when
    all have the batch's. Views may be kept: the memory is not reused before the last of them is gone.
    """

    __slots__ = (
        "__weakref__", "_aux", "_base", "_capacity", "_flags", "_offset64", "_var64", "_worker",
        "n", "schema", "sender", "time",
    )  # fmt: skip

    def __init__(self, worker: Worker, schema: Schema, cell: Any) -> None:  # noqa: ANN401 - a cffi struct
        self._worker = worker
        self.schema = schema
        self.time: int = cell.time
        self.n: int = cell.records
        self.sender: int = cell.sender
        self._offset64: int = cell.offset64
        self._capacity: int = cell.capacity
        self._flags: int = cell.flags
        self._aux: int = cell.aux
        self._var64 = (cell.var64[0], cell.var64[1], cell.var64[2]) if schema.has_bytes else ()
        self._base: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        return f"Batch(n={self.n}, time={self.time}, columns={', '.join(self.schema.names)})"

    def hold(self) -> None:
        """Keep the memory for as long as this object lives, also when nothing has been read yet."""
        self._exporter()

    def leave(self) -> Callable[[], bool]:
        """Return what to call when the operator is through with this batch, and has let go of it.

        It returns whether the user's code has kept the batch or a view of it. What is kept then holds the memory,
        so this must be called before the batch's own reference is dropped.
        """
        batch = weakref.ref(self)
        base = None if self._base is None else weakref.ref(self._base)
        return lambda: _is_kept(batch, base)

    def _exporter(self) -> npt.NDArray[np.uint8]:
        if self._base is None:
            self._base = self._worker.export(self._offset64, self._extent())
        return self._base

    def _extent(self) -> int:
        end = self._column_at(len(self.schema)) + (_align(8 * self._capacity) if self._flags & FLAG_TIMES else 0)
        return max(64, end + 64 * sum(self._var64))

    def _column_at(self, column: int) -> int:
        at = 0
        for dtype in self.schema.dtypes[:column]:
            at += _align(4 * (self._capacity + 1) if dtype is None else self._capacity * dtype.itemsize)
        return at

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - an array, or a BytesColumn for a bytes column
        column = self.schema.column(name)
        base = self._exporter()
        at = self._column_at(column)
        dtype = self.schema.dtypes[column]
        if dtype is not None:
            return base[at : at + self.n * dtype.itemsize].view(dtype)
        offsets = base[at : at + 4 * (self.n + 1)].view(np.uint32)
        ordinal = sum(d is None for d in self.schema.dtypes[:column])
        start = self._extent() - 64 * sum(self._var64[ordinal:])
        return BytesColumn(offsets, base[start : start + int(offsets[-1])])

    def columns(self) -> dict[str, Column]:
        """Return all columns by name, as views."""
        return {name: self[name] for name in self.schema.names}

    @property
    def times(self) -> npt.NDArray[np.uint64] | None:
        """uint64[n], the time of each record; None when all have the batch's time."""
        if not self._flags & FLAG_TIMES:
            return None
        at = self._column_at(len(self.schema))
        return self._exporter()[at : at + 8 * self.n].view(np.uint64)

    def own(self) -> dict[str, Column]:
        """Return writable copies of all columns, in private memory; the bytes are counted as ``own``."""
        result: dict[str, Column] = {}
        copied = 0
        with self._worker.times.of("own"):
            for name, column in self.columns().items():
                mine = (
                    BytesColumn(column.offsets.copy(), column.data.copy())
                    if isinstance(column, BytesColumn)
                    else column.copy()
                )
                copied += mine.nbytes
                result[name] = mine
        if self._worker.slot:
            lib.mp_counter_add(self._worker.slot, _COPIED_OWN, copied)
        return result

    def address(self, name: str) -> int:
        """Return where a column begins in the data region, in bytes: proof that nothing was copied."""
        return self._offset64 * 64 + self._column_at(self.schema.column(name))

    def is_column(self, column: int, value: object) -> bool:
        """Return whether a value is the view that this batch gives of a column, whole and unchanged."""
        if self._base is None:
            return False
        if isinstance(value, BytesColumn):
            if self.schema.dtypes[column] is not None:
                return False
            mine = self[self.schema.names[column]]
            return _same(value.offsets, mine.offsets) and _same(value.data, mine.data)
        return (
            isinstance(value, np.ndarray)
            and value.base is self._base
            and value.dtype == self.schema.dtypes[column]
            and _same(value, self[self.schema.names[column]])
        )

    def fill_cell(self, cell: Any) -> None:  # noqa: ANN401 - a cffi struct
        """Describe this batch in an ``mp_cell``, to hand it on without a copy."""
        cell.time = self.time
        cell.records = self.n
        cell.offset64 = self._offset64
        cell.capacity = self._capacity
        cell.flags = self._flags & FLAG_TIMES
        cell.bytes64 = self._extent() // 64
        cell.row_bytes = self.schema.row_bytes + (8 if self._flags & FLAG_TIMES else 0)
        cell.aux = self._aux
        for index, room in enumerate(self._var64):
            cell.var64[index] = room


class Loan:
    """A batch being made: writable columns of a slab, to be filled and sent without a copy.

    Attributes:
        capacity: records that there is room for.
        n: records that are filled; ``capacity`` unless it is set to less.
        times: uint64[capacity], to be filled too; None unless the loan was made with ``timed``.

    Indexing with a column's name gives a writable view of ``capacity`` values. For a bytes column it gives the pair
    (offsets uint32[capacity + 1], data uint8[room]). A loan is sent once; its arrays must not be used afterwards.
    One that is dropped instead, as by an exception, gives its room back.
    """

    __slots__ = ("_base", "_pointer", "_starts", "capacity", "cell", "n", "schema", "sent", "times")

    def __init__(
        self,
        worker: Worker,
        schema: Schema,
        capacity: int,
        *,
        timed: bool = False,
        bytes_room: Mapping[str, int] | None = None,
    ) -> None:
        if not 0 <= capacity < 2**32:
            message = f"a loan of {capacity} records: ask for 0 to {2**32 - 1}"
            raise UsageError(message)
        self.schema = schema
        self.capacity = self.n = capacity
        self.sent = False
        cell = self.cell = ffi.new("mp_cell *")
        cell.capacity = capacity
        cell.flags = FLAG_TIMES if timed else 0
        if schema.has_bytes or bytes_room:
            _make_room(cell, schema, capacity, bytes_room or {})
        rc = lib.mp_batch_loan(worker.slot, schema.c, cell)
        if rc:
            worker.check(rc)
        # This takes the reference over: whichever way the loan ends, the memory is free when nobody can write it.
        self._pointer: Any = worker.owned(cell.offset64)
        self._base: npt.NDArray[np.uint8] | None = None
        self._starts: list[int] | None = None
        self.times: npt.NDArray[np.uint64] | None = None
        if timed:
            at = self._lay_out()[-1]
            self.times = self._bytes()[at : at + 8 * capacity].view(np.uint64)

    def _lay_out(self) -> list[int]:
        """Return where each column begins, and where the last ends; made when it is first asked for."""
        if self._starts is None:
            self._starts = [0]
            for dtype in self.schema.dtypes:
                size = 4 * (self.capacity + 1) if dtype is None else self.capacity * dtype.itemsize
                self._starts.append(self._starts[-1] + _align(size))
        return self._starts

    def _bytes(self) -> npt.NDArray[np.uint8]:
        """Return all of the room as an array, which is only made for who wants one."""
        if self._base is None:
            self._base = np.frombuffer(ffi.buffer(self._pointer, self.cell.bytes64 * 64), np.uint8)
        return self._base

    def pointer(self, name: str) -> Any:  # noqa: ANN401 - a cffi pointer
        """Return the address of a fixed-width column as ``void *``, for C that fills it."""
        return self._pointer + self._lay_out()[self._column(name)]

    def _column(self, name: str) -> int:
        if self.sent:
            message = f"column {name!r} of a loan that has been sent: fill a loan before sending it"
            raise UsageError(message)
        return self.schema.column(name)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - an array, or a pair for a bytes column
        column = self._column(name)
        dtype = self.schema.dtypes[column]
        start, base = self._lay_out()[column], self._bytes()
        if dtype is not None:
            return base[start : start + self.capacity * dtype.itemsize].view(dtype)
        ordinal = sum(d is None for d in self.schema.dtypes[:column])
        rooms = [64 * self.cell.var64[index] for index in range(self.schema.c.var_columns)]
        data = self.cell.bytes64 * 64 - sum(rooms[ordinal:])
        return (
            base[start : start + 4 * (self.capacity + 1)].view(np.uint32),
            base[data : data + rooms[ordinal]],
        )

    def finish(self, time: int) -> None:
        """Complete the description of what has been filled, to be sent at a time.

        Raises:
            UsageError: the loan has been sent, more is filled than there is room for, or offsets are wrong.
        """
        if self.sent:
            message = f"a loan of {self.capacity} records is sent twice: make a new one for each batch"
            raise UsageError(message)
        if not 0 <= self.n <= self.capacity:
            message = f"{self.n} records of a loan of {self.capacity}: send what has been filled"
            raise UsageError(message)
        cell = self.cell
        cell.records = self.n
        cell.time = time
        cell.aux = self._checked_bytes() if self.schema.has_bytes else 0

    def _checked_bytes(self) -> int:
        """Return how many bytes the bytes columns are filled with; raises UsageError for offsets that are wrong."""
        filled = 0
        for name, dtype in zip(self.schema.names, self.schema.dtypes, strict=True):
            if dtype is None:
                offsets, data = self[name]
                check_offsets(offsets[: self.n + 1], len(data))
                if offsets[0]:
                    message = f"offsets of bytes column {name!r} of a loan begin at {offsets[0]}: begin at 0"
                    raise UsageError(message)
                filled += int(offsets[self.n])
        return filled

    def leave(self) -> None:
        """Let go of the arrays once the batch has been sent."""
        self.sent = True
        self._pointer = self._base = self.times = None


def _make_room(cell: Any, schema: Schema, capacity: int, bytes_room: Mapping[str, int]) -> None:  # noqa: ANN401 - cffi
    """Note in a cell how many bytes each bytes column may hold; raises UsageError where that is wrong or missing."""
    rooms, ordinal = dict(bytes_room), 0
    for name, dtype in zip(schema.names, schema.dtypes, strict=True):
        if dtype is not None:
            continue
        if not 0 <= rooms.get(name, -1) <= OFFSET_MAX:
            message = (
                f"a loan of {capacity} records with {rooms.get(name, 'no')} bytes for column {name!r}: "
                f"give bytes_room={{{name!r}: bytes}}, up to {OFFSET_MAX}"
            )
            raise UsageError(message)
        cell.var64[ordinal] = (rooms.pop(name) + 63) // 64
        ordinal += 1
    if rooms:
        message = f"a loan with bytes_room for {next(iter(rooms))!r}, which is no bytes column: leave it out"
        raise UsageError(message)


def count_kept(worker: Worker, left: Iterable[Callable[[], bool]]) -> None:
    """Count the batches that an activation has shown to user code and that are still in use at its end."""
    kept = sum(is_kept() for is_kept in left)
    if kept:
        lib.mp_counter_add(worker.slot, _VIEWS_ESCAPED, kept)


def _is_kept(batch: weakref.ref[Batch], base: weakref.ref[npt.NDArray[np.uint8]] | None) -> bool:
    whole = batch()
    if whole is not None:
        whole.hold()
        return True
    return base is not None and base() is not None


def _same(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    return (
        a.shape == b.shape
        and a.strides == b.strides
        and a.dtype == b.dtype
        and a.__array_interface__["data"][0] == b.__array_interface__["data"][0]
    )


def _align(size: int) -> int:
    return (size + 63) & ~63
