"""Lists of rows per key, as a fold sees them: by key, all lists of a batch at once, never one by one.

::

    offsets   0     2  2        5          list i is [offsets[i], offsets[i + 1]) of every column
    price     7 9   |  3 3 8               key 1 is not there: an empty list

What is read is a copy, counted as gather.  A key is there as long as it has rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import BytesColumn
from megaphone.errors import UsageError
from megaphone.state.calls import NO_ROW, AnyArray, Keys, StoreCalls, U64Array
from megaphone.state.stores import Pickled, Rows

SCAN_ROWS = 1 << 16
"""Rows of one step of a scan, but for one list that is longer."""

Columns = dict[str, AnyArray]


class ListCalls(StoreCalls):
    """What can be done with :class:`~megaphone.state.stores.Rows`."""

    __slots__ = ()

    def append(self, keys: Keys, columns: Mapping[str, npt.ArrayLike], hashes: U64Array | None = None) -> None:
        """Append row i of the columns to the list of key i; rows of one key keep their order.

        Args:
            keys: [n] of the key's dtype, or a bytes column.
            columns: every column by name, [n] or one value, cast where nothing is lost in kind.
            hashes: uint64[n], the hashes that routed the keys, if they are at hand.

        Raises:
            UsageError: keys or columns of another dtype, number or name.
            SharedMemoryError: there is no memory for a key or a cell; the rows before it have been appended.
            InternalError: a key's bin is not resident here.

        Cost: a look-up and a cell per record; moves rows of tables that grow, never rows of lists.
        """
        self._need("append", Rows)
        offsets, data, count = self._checked_keys(keys)
        hashes = self._checked_hashes(hashes, count)
        arrays = self._list_columns(columns, count)

        def call(start: int) -> int:
            return int(
                lib.mp_rows_append(
                    self._slot, self.c, self._key_pointer(data, offsets, start), *_routed(offsets, hashes, start),
                    count - start, _pointers([array[start:] for array in arrays]), self._why,
                )
            )  # fmt: skip

        self._all(call, count)

    def replace(
        self,
        keys: Keys,
        offsets: npt.ArrayLike,
        columns: Mapping[str, npt.ArrayLike],
        hashes: U64Array | None = None,
    ) -> None:
        """Give key i the list [offsets[i], offsets[i + 1]) of the columns instead of what it has.

        Args:
            keys: [k] of the key's dtype, or a bytes column; of a key that is named twice the last list stays.
            offsets: uint64[k + 1], rising; an empty list removes its key.
            columns: every column by name, [offsets[-1]] or one value.
            hashes: uint64[k], the hashes that routed the keys, if they are at hand.

        Raises:
            UsageError: as :meth:`append`, or offsets that do not fit.
            SharedMemoryError: there is no memory for a list; those before have been replaced, it has not.
        """
        self._need("replace", Rows)
        self._replace(keys, np.asarray(offsets), columns, hashes)

    def lists(self, keys: Keys, columns: Sequence[str] | None = None) -> tuple[U64Array, Columns]:
        """Return the list of each key, in order of arrival.

        Args:
            keys: [k] of the key's dtype, or a bytes column; repeated keys are answered each time.
            columns: which to gather; None is all.

        Returns:
            uint64[k + 1], where each list begins, from 0; and each column, [offsets[k]]. Keys that are not there have
            empty lists.

        Raises:
            UsageError: keys of another dtype, or no such column.

        Cost: a look-up per key, then one copy of what is returned.
        """
        self._need("lists", Rows)
        return self._lists(self._look(keys), columns)

    def counts(self, keys: Keys) -> U64Array:
        """Return uint64[k], the rows of each key's list; 0 for keys that are not there."""
        self._need("counts", Rows)
        return self._counts(self._look(keys))

    def first(self, keys: Keys, columns: Sequence[str] | None = None) -> tuple[npt.NDArray[np.bool_], Columns]:
        """Return the first row of each key's list: bool[k], whether it has one, and each column, [k], else zeros.

        Args:
            keys: [k] of the key's dtype, or a bytes column.
            columns: which to gather; None is all.

        Raises:
            UsageError: keys of another dtype, or no such column.
        """
        self._need("first", Rows)
        rows = self._look(keys)
        there = np.zeros(len(rows), np.bool_)
        out, pointers = self._list_room(columns, len(rows))
        if len(rows):
            mask = ffi.from_buffer("uint8_t[]", there.view(np.uint8), require_writable=True)
            addresses = ffi.from_buffer("uint64_t[]", rows)
            done = lib.mp_rows_first(self._slot, self.c, addresses, len(rows), mask, pointers, self._why)
            self._refuse_stale(rows, int(done))
        return there, out

    def pop_front(self, keys: Keys, n: npt.ArrayLike = 1) -> None:
        """Take the first rows off each key's list; a key whose list is empty then is removed.

        Args:
            keys: [k] of the key's dtype, or a bytes column; a key that is named twice loses rows twice.
            n: [k] or one number: how many, all if there are fewer.

        Raises:
            UsageError: keys of another dtype, or numbers that are negative or no integers.
        """
        self._need("pop_front", Rows)
        rows, numbers = self._look(keys), np.asarray(n)
        if numbers.dtype.kind not in "iu" or numbers.shape not in ((), rows.shape) or (numbers < 0).any():
            told = f"{numbers.dtype}{list(numbers.shape)}{', some negative' if numbers.dtype.kind == 'i' else ''}"
            message = f"{self._told()}pop_front of {told} rows of {len(rows)} keys: give whole numbers, one or one each"
            raise UsageError(message)
        drop = np.ascontiguousarray(np.broadcast_to(numbers.astype(np.uint64), rows.shape))
        if len(rows):
            addresses = ffi.from_buffer("uint64_t[]", rows)
            pointers = ffi.from_buffer("uint64_t[]", drop)
            self._refuse_stale(
                rows, int(lib.mp_rows_drop(self._slot, self.c, addresses, len(rows), pointers, self._why))
            )
            # No call of the core is between these and the one that dropped: the addresses hold.
            self._remove_lists(rows[self._counts(rows) == 0])

    def total(self) -> int:
        """Return the number of rows of all lists in the bins that are resident here (of Pickled: of bytes)."""
        self._need("total", Rows, Pickled)
        return int(lib.mp_rows_total(self._slot, self.c))

    def lists_items(self, bin_id: int | None = None) -> Iterator[tuple[Keys, U64Array, Columns]]:
        """Yield keys, offsets and columns of all lists, some thousand keys at a time; nothing may change meanwhile.

        Args:
            bin_id: one bin, which must be resident; None is every bin that is resident here.
        """
        self._need("lists_items", Rows)
        return self._lists_items(bin_id)

    # -- for Pickled, which is lists of bytes --------------------------------------------------------------------------

    def _replace(
        self,
        keys: Keys,
        bounds: AnyArray,
        columns: Mapping[str, npt.ArrayLike],
        hashes: U64Array | None = None,
    ) -> None:
        offsets, data, count = self._checked_keys(keys)
        hashes = self._checked_hashes(hashes, count)
        if bounds.shape != (count + 1,) or bounds.dtype.kind not in "iu" or (bounds[1:] < bounds[:-1]).any():
            told = f"{bounds.dtype}{list(bounds.shape)}"
            message = f"{self._told()}offsets are {told}: give {count + 1} whole numbers that do not fall"
            raise UsageError(message)
        if bounds[0] < 0:
            message = f"{self._told()}offsets begin at {bounds[0]}: they begin at 0 or later"
            raise UsageError(message)
        bounds = np.ascontiguousarray(bounds, dtype=np.uint64)
        arrays = self._list_columns(columns, int(bounds[-1]))
        pointers = _pointers(arrays)

        def call(start: int) -> int:
            return int(
                lib.mp_rows_replace(
                    self._slot, self.c, self._key_pointer(data, offsets, start), *_routed(offsets, hashes, start),
                    count - start, ffi.from_buffer("uint64_t[]", bounds[start:]), pointers, self._why,
                )
            )  # fmt: skip

        self._all(call, count)

    def _look(self, keys: Keys) -> U64Array:
        """Return the address of each key's list, ``NO_ROW`` for those that are not there."""
        offsets, data, count = self._checked_keys(keys)
        rows = np.empty(count, dtype=np.uint64)

        def call(start: int) -> int:
            return int(
                lib.mp_store_rows(
                    self._slot, self.c, self._key_pointer(data, offsets, start), *_routed(offsets, None, start),
                    count - start, False, ffi.from_buffer("uint64_t[]", rows[start:], require_writable=True), self._why,
                )
            )  # fmt: skip

        self._all(call, count)
        return rows

    def _counts(self, rows: U64Array) -> U64Array:
        counts = np.zeros(len(rows), dtype=np.uint64)
        if len(rows):
            out = ffi.from_buffer("uint64_t[]", counts, require_writable=True)
            addresses = ffi.from_buffer("uint64_t[]", rows)
            self._refuse_stale(rows, int(lib.mp_rows_counts(self._slot, self.c, addresses, len(rows), out, self._why)))
        return counts

    def _lists(self, rows: U64Array, columns: Sequence[str] | None) -> tuple[U64Array, Columns]:
        bounds = np.zeros(len(rows) + 1, dtype=np.uint64)
        np.cumsum(self._counts(rows), out=bounds[1:])
        out, pointers = self._list_room(columns, int(bounds[-1]))
        if len(rows):
            done = lib.mp_rows_lists(
                self._slot, self.c, ffi.from_buffer("uint64_t[]", rows), len(rows),
                ffi.from_buffer("uint64_t[]", bounds), pointers, self._why,
            )  # fmt: skip
            self._refuse_stale(rows, int(done))
        return bounds, out

    def _remove_lists(self, rows: U64Array) -> None:
        self._remove_rows(rows[rows != NO_ROW])

    def _lists_items(self, bin_id: int | None) -> Iterator[tuple[Keys, U64Array, Columns]]:
        for keys, rows in self._scan(bin_id):
            ends = np.cumsum(self._counts(rows))
            start = 0
            while start < len(rows):  # at least one list, and as many as make a piece
                before = int(ends[start - 1]) if start else 0
                stop = max(start + 1, int(np.searchsorted(ends, before + SCAN_ROWS, side="right")))
                part = keys[start:stop] if not isinstance(keys, BytesColumn) else _part(keys, start, stop)
                yield part, *self._lists(rows[start:stop], None)
                start = stop

    def _list_columns(self, columns: Mapping[str, npt.ArrayLike], count: int) -> list[AnyArray]:
        """Return every column as the core wants it, in its order."""
        known = self.store.columns
        if wrong := [name for name in (*columns, *known) if name not in known or name not in columns]:
            what = "there is no column" if wrong[0] in columns else "there is nothing for column"
            message = f"{self._told()}{what} {wrong[0]!r}: a row of {self.store.noun} has {', '.join(known)}"
            raise UsageError(message)
        return [self._checked_values(name, columns[name], count) for name in known]

    def _list_room(self, columns: Sequence[str] | None, count: int) -> tuple[Columns, Any]:
        """Return arrays to gather columns to, and C's view of them: NULL for those that nobody asked for."""
        known = self.store.columns
        names = list(known) if columns is None else list(columns)
        for name in names:
            self.store.column_index(name)
        out = {name: np.empty(count, dtype=known[name]) for name in names}
        pointers = ffi.new("void *[]", len(known))
        for index, name in enumerate(known):
            pointers[index] = ffi.cast("void *", out[name].ctypes.data) if name in out else ffi.NULL
        return out, pointers


def _routed(offsets: npt.NDArray[np.uint32] | None, hashes: U64Array | None, start: int) -> tuple[Any, Any]:
    """Return C's view of the offsets and hashes of keys from ``start`` on."""
    return (
        ffi.NULL if offsets is None else ffi.from_buffer("uint32_t[]", offsets[start:]),
        ffi.NULL if hashes is None else ffi.from_buffer("uint64_t[]", hashes[start:]),
    )


def _pointers(arrays: list[AnyArray]) -> Any:  # noqa: ANN401 - cdata
    """Return C's view of columns; the caller keeps the arrays."""
    return ffi.new("void *[]", [ffi.cast("void *", array.ctypes.data) for array in arrays])


def _part(keys: BytesColumn, start: int, stop: int) -> BytesColumn:
    return BytesColumn(keys.offsets[start : stop + 1], keys.data)
