"""Rows of a store, as a fold sees them: by address, whole columns at a time, never one by one.

A row address is a ``uint64`` that names bin, generation, table and position.  It holds until the next call that may
insert, remove or hand over; then using it raises :class:`StaleRowError`.  There is no writable view of a store: what
is read is a copy, counted as gather, and what is written goes through :meth:`StoreAccess.put`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import BytesColumn
from megaphone.errors import UsageError
from megaphone.state.calls import NO_ROW, AnyArray, Keys, StoreStatistics, U64Array, outcome_error, pointer
from megaphone.state.pickled import ObjectCalls
from megaphone.state.stores import DenseArray, HashTable, Pickled

_COMPARED: Final = {"u": lib.MP_AS_UNSIGNED, "i": lib.MP_AS_SIGNED, "f": lib.MP_AS_FLOAT}
"""Kinds of dtypes whose values of 8 bytes the core compares."""

__all__ = ["NO_ROW", "Keys", "StoreAccess", "StoreStatistics", "outcome_error"]


class StoreAccess(ObjectCalls):
    """The rows of one stateful operator's bins that are resident at one slot.

    Rows of arrays and tables are found by key and read and written by address: ``rows``, ``gather``, ``put``,
    ``remove``, ``add_emit``. For lists see :class:`~megaphone.state.lists.ListCalls`, for objects
    :class:`~megaphone.state.pickled.ObjectCalls`; both are part of this.
    """

    __slots__ = ()

    def rows(self, keys: Keys, hashes: U64Array | None = None, insert: bool = True) -> U64Array:
        """Return the address of each key's row; new keys get the store's default row.

        Args:
            keys: [n] of the key's dtype, or a bytes column.
            hashes: uint64[n], the hashes that routed the keys, if they are at hand.
            insert: False only looks: keys that are not there have the address ``NO_ROW``.

        Returns:
            uint64[n]; equal keys have equal addresses.

        Raises:
            UsageError: keys of another dtype, or a dense index that is too large for an array.
            SharedMemoryError: there is no memory for the new keys.
            InternalError: a key's bin is not resident here.

        Cost: about 100 ns a key of a table of 10 million, 40 of an array; may move rows of tables that grow.
        """
        self._need("rows", DenseArray, HashTable)
        offsets, data, count = self._checked_keys(keys)
        rows = np.empty(count, dtype=np.uint64)
        hashes = self._checked_hashes(hashes, count)

        def call(start: int) -> int:
            return int(
                lib.mp_store_rows(
                    self._slot,
                    self.c,
                    self._key_pointer(data, offsets, start),
                    ffi.NULL if offsets is None else ffi.from_buffer("uint32_t[]", offsets[start:]),
                    ffi.NULL if hashes is None else ffi.from_buffer("uint64_t[]", hashes[start:]),
                    count - start,
                    insert,
                    ffi.from_buffer("uint64_t[]", rows[start:], require_writable=True),
                    self._why,
                )
            )

        if self._all(call, count) > 1:
            # A part was found, then memory was made, then the rest: growth may have moved the first part meanwhile.
            return self.rows(keys, hashes, insert)
        return rows

    def reached(self, keys: Keys, column: str, values: npt.ArrayLike) -> tuple[npt.NDArray[np.intp], U64Array]:
        """Return which keys have a row whose column is not above their value, and the addresses of those rows.

        Of a batch of bids it is those that may lead, of a batch of dates those that may be the last: what is then
        looked at more closely are the few that are left.

        Args:
            keys: [n] of the key's dtype, not bytes; those that are not there have no row that they could reach.
            column: name of a value column, 8 bytes wide.
            values: [n] of the column's dtype, or one number that it has. Rows are compared as they are before the
                call: of keys that occur twice both are found.

        Returns:
            intp[m], places in ``keys``, rising, and uint64[m], addresses as those of :meth:`rows`.

        Raises:
            UsageError: keys or values of another dtype, or a column that is not 8 bytes wide.
            InternalError: a key's bin is not resident here.

        Cost: a look-up per key; one pass in C instead of one each to look up, gather and compare.
        """
        self._need("reached", DenseArray, HashTable)
        index, dtype = self.store.column_index(column), self.store.columns[column]
        if dtype.itemsize != 8 or dtype.kind not in _COMPARED or self.store.key is None:
            kinds = f"{dtype}, by {self.store.key or 'bytes'}"
            message = f"{self._told()}reached compares 8 bytes by keys of fixed width: column {column!r} is {kinds}"
            raise UsageError(message)
        _, data, count = self._checked_keys(keys)
        least = self._checked_values(column, self._compared_values(column, values), count)
        at, rows = np.empty(count, dtype=np.uint64), np.empty(count, dtype=np.uint64)
        found = ffi.new("uint64_t *")

        def call(start: int) -> int:
            # It inserts nothing, so it needs no memory, and does all in one call or raises.
            return int(
                lib.mp_store_reached(
                    self._slot, self.c, self._key_pointer(data, None, start), count - start, index,
                    _COMPARED[dtype.kind], pointer(least[start:]),
                    ffi.from_buffer("uint64_t[]", at, require_writable=True),
                    ffi.from_buffer("uint64_t[]", rows, require_writable=True), found, self._why,
                )
            )  # fmt: skip

        self._all(call, count)
        return at[: found[0]].view(np.intp), rows[: found[0]]

    def _compared_values(self, column: str, values: object) -> AnyArray:
        """Return values of the column's dtype as they are; a cast could turn one that no row is above into another."""
        dtype = self.store.columns[column]
        given = np.asarray(values)
        has_kind = dtype.kind == "f" or given.dtype.kind in "biu"
        if isinstance(values, int | float) and has_kind:  # a number of Python's has no dtype yet
            try:
                return np.asarray(values, dtype=dtype)
            except OverflowError:
                message = f"{self._told()}no value of column {column!r} is {values}: it is {dtype}"
                raise UsageError(message) from None
        if given.dtype != dtype:
            message = f"{self._told()}values are {given.dtype}, the column {column!r} is {dtype}: convert them"
            raise UsageError(message)
        return given

    def gather(self, rows: U64Array, column: str) -> AnyArray:
        """Return a column of some rows, a copy, counted as gather.

        Args:
            rows: uint64[n], addresses from :meth:`rows`.
            column: name of a value column.

        Raises:
            StaleRowError: an address is not valid any more, or is ``NO_ROW``.
        """
        self._need("gather", DenseArray, HashTable)
        index = self.store.column_index(column)
        rows = np.ascontiguousarray(rows, dtype=np.uint64)
        out = np.empty(len(rows), dtype=self.store.columns[column])
        if len(rows):
            addresses = ffi.from_buffer("uint64_t[]", rows)
            done = lib.mp_store_gather(self._slot, self.c, addresses, len(rows), index, pointer(out), self._why)
            self._refuse_stale(rows, int(done))
        return out

    @overload
    def put(self, rows: U64Array, column: str, values: npt.ArrayLike, /) -> None: ...
    @overload
    def put(self, keys: Keys, objects: Sequence[Any], /) -> None: ...
    def put(self, rows: Keys, column: str | Sequence[Any], values: npt.ArrayLike | None = None, /) -> None:
        """Write a column of some rows; of a row that is named twice the last value stays.

        Of :class:`~megaphone.state.stores.Pickled`: ``put(keys, objects)``, see
        :meth:`~megaphone.state.pickled.ObjectCalls.put_objects`.

        Args:
            rows: uint64[n], addresses from :meth:`rows`.
            column: name of a value column.
            values: [n] or one value, cast to the column's dtype where nothing is lost in kind.

        Raises:
            StaleRowError: an address is not valid any more; rows before it have been written.
            UsageError: values of another kind or number.
        """
        if isinstance(self.store, Pickled):
            self.put_objects(rows, column)
            return
        self._need("put", DenseArray, HashTable, Pickled)
        if not isinstance(column, str) or isinstance(rows, BytesColumn) or values is None:
            message = f"{self._told()}put to {self.store.noun} takes rows, the name of a column, and values"
            raise UsageError(message)
        index = self.store.column_index(column)
        rows = np.ascontiguousarray(rows, dtype=np.uint64)
        cast = self._checked_values(column, values, len(rows))
        if len(rows):
            addresses = ffi.from_buffer("uint64_t[]", rows)
            done = lib.mp_store_put(self._slot, self.c, addresses, len(rows), index, pointer(cast), self._why)
            self._refuse_stale(rows, int(done))

    def remove(self, rows: Keys) -> None:
        """Remove rows of a hash table with their keys; all addresses into the bins they are of are stale afterwards.

        Args:
            rows: uint64, addresses from :meth:`rows`, one or an array of any shape, in any order and with repetitions.
                Of Rows and Pickled: keys, whose whole lists or objects go; those that are not there are passed over.

        Raises:
            StaleRowError: an address is not valid any more.
            UsageError: the store is a DenseArray: put zeros instead.

        Cost: O(n log n), whatever the length of lists.
        """
        if self.store.kind == lib.MP_STORE_ROWS:
            self._remove_lists(self._look(rows))
            return
        if self.store.kind != lib.MP_STORE_TABLE:
            message = "rows of a DenseArray are not removed: put zeros, which is what an absent key has"
            raise UsageError(message)
        self._remove_rows(np.asarray(rows, np.uint64))

    def add_emit(self, keys: Keys, values: npt.ArrayLike | None = None, out: AnyArray | None = None) -> AnyArray:
        """Add to the first column of each key's row, in order, and return what it then holds.

        Args:
            keys: [n] of the key's dtype, or a bytes column.
            values: [n] or one value of the first column's dtype; None adds 1.
            out: [n] of the first column's dtype to write to, C-order; None makes a new array.

        Returns:
            The running value of each record: of a key that occurs twice in the batch, both sums.

        Raises:
            UsageError: the first column is not 8 bytes wide, or as :meth:`rows`.
            SharedMemoryError: there is no memory for the new keys; those before have been counted.

        Cost: one pass in C: about 20 ns a record for 10 million keys in an array, 40 in a table.
        """
        self._need("add_emit", DenseArray, HashTable)
        column = next(iter(self.store.columns))
        dtype = self.store.columns[column]
        if dtype.itemsize != 8 or dtype.kind not in "iuf":
            message = f"add_emit adds to the first column, {column!r}, which must be 8 bytes wide: it is {dtype}"
            raise UsageError(message)
        offsets, data, count = self._checked_keys(keys)
        added = None if values is None else self._checked_values(column, values, count)
        sums = np.empty(count, dtype=dtype) if out is None else out
        if sums.dtype != dtype or sums.shape != (count,) or not sums.flags.c_contiguous:
            message = f"out is {sums.dtype}{list(sums.shape)}: it must be {dtype}[{count}], C-order"
            raise UsageError(message)

        def call(start: int) -> int:
            values_pointer = ffi.NULL if added is None else pointer(added[start:])
            sums_pointer = pointer(sums[start:])
            keys_pointer = self._key_pointer(data, offsets, start)
            if self.c.key_kind == lib.MP_KEY_U64:
                kernel = lib.mp_dense_add_emit if self.c.kind == lib.MP_STORE_DENSE else lib.mp_table_add_emit
                return int(
                    kernel(
                        self._slot, self.c, keys_pointer, self.c.key_bytes, values_pointer, count - start,
                        ffi.NULL, sums_pointer, self._why,
                    )
                )  # fmt: skip
            offsets_pointer = ffi.NULL if offsets is None else ffi.from_buffer("uint32_t[]", offsets[start:])
            return int(
                lib.mp_table_add_emit_bytes(
                    self._slot, self.c, offsets_pointer, ffi.cast("uint8_t *", keys_pointer), values_pointer,
                    count - start, sums_pointer, self._why,
                )
            )  # fmt: skip

        self._all(call, count)
        return sums

    def items(self, bin_id: int | None = None) -> Iterator[tuple[Keys, dict[str, AnyArray]]]:
        """Yield keys and value columns of all live rows, some thousands at a time; the store must not change meanwhile.

        Args:
            bin_id: one bin, which must be resident; None is every bin that is resident here.
        """
        self._need("items", DenseArray, HashTable)
        for keys, rows in self._scan(bin_id):
            yield keys, {name: self.gather(rows, name) for name in self.store.columns}
