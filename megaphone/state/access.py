"""Rows of a store, as a fold sees them: by address, whole columns at a time, never one by one.

A row address is a ``uint64`` that names bin, generation, table and position.  It holds until the next call that may
insert, remove or hand over; then using it raises :class:`StaleRowError`.  There is no writable view of a store: what
is read is a copy, counted as gather, and what is written goes through :meth:`StoreAccess.put`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.hashing import HASHES
from megaphone.errors import InternalError, MegaphoneError, SharedMemoryError, StaleRowError, UsageError

if TYPE_CHECKING:
    from megaphone.state.stores import Store

U64Array: TypeAlias = npt.NDArray[np.uint64]
AnyArray: TypeAlias = npt.NDArray[Any]
Keys: TypeAlias = AnyArray | BytesColumn

NO_ROW = np.uint64(2**64 - 1)
"""Address of the row of a key that is not there, when rows are only looked up."""

SCAN_ROWS = 8192
SCAN_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """What one access has cost so far.

    Attributes:
        calls: C calls that may insert.
        records: keys that they were given.
        rows_moved: rows that growth has moved from an older table.
        rows_moved_call_max: most rows moved by one call.
        rows_made: rows initialised by growth.
    """

    calls: int
    records: int
    rows_moved: int
    rows_moved_call_max: int
    rows_made: int


class StoreAccess:
    """The rows of one stateful operator's bins that are resident at one slot.

    Args:
        slot: cdata ``mp_slot *``.
        store: the operator's declaration.
        keyed: number of the operator among the stateful ones.
        bin_shift: log2 of its bins.
        hash_name: the hash that routes to them.
        make_room: called with the bytes of a block that could not be had; True means: try again.
    """

    __slots__ = ("_make_room", "_slot", "_totals", "_why", "bin_shift", "c", "hash_name", "store")

    def __init__(
        self,
        slot: Any,  # noqa: ANN401 - cdata
        store: Store,
        keyed: int,
        bin_shift: int,
        hash_name: str,
        make_room: Callable[[int], bool] | None = None,
    ) -> None:
        self._slot = slot
        self.store = store
        self.bin_shift = bin_shift
        self.hash_name = hash_name
        self.c = store.struct(keyed, bin_shift, hash_name)
        self._why = ffi.new("mp_outcome *")
        self._make_room = make_room
        self._totals = [0, 0, 0, 0, 0]

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
        offsets, data, count = self._checked_keys(keys)
        rows = np.empty(count, dtype=np.uint64)
        if hashes is not None:
            hashes = np.ascontiguousarray(hashes, dtype=np.uint64)
            if len(hashes) != count:
                message = f"{count} keys and {len(hashes)} hashes: give one for each key, or none"
                raise UsageError(message)

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

    def gather(self, rows: U64Array, column: str) -> AnyArray:
        """Return a column of some rows, a copy, counted as gather.

        Args:
            rows: uint64[n], addresses from :meth:`rows`.
            column: name of a value column.

        Raises:
            StaleRowError: an address is not valid any more, or is ``NO_ROW``.
        """
        index = self.store.column_index(column)
        rows = np.ascontiguousarray(rows, dtype=np.uint64)
        out = np.empty(len(rows), dtype=self.store.columns[column])
        if len(rows):
            pointer = ffi.from_buffer("uint64_t[]", rows)
            done = lib.mp_store_gather(self._slot, self.c, pointer, len(rows), index, _pointer(out), self._why)
            self._refuse_stale(rows, int(done))
        return out

    def put(self, rows: U64Array, column: str, values: npt.ArrayLike) -> None:
        """Write a column of some rows; of a row that is named twice the last value stays.

        Args:
            rows: uint64[n], addresses from :meth:`rows`.
            column: name of a value column.
            values: [n] or one value, cast to the column's dtype where nothing is lost in kind.

        Raises:
            StaleRowError: an address is not valid any more; rows before it have been written.
            UsageError: values of another kind or number.
        """
        index = self.store.column_index(column)
        rows = np.ascontiguousarray(rows, dtype=np.uint64)
        cast = self._checked_values(column, values, len(rows))
        if len(rows):
            pointer = ffi.from_buffer("uint64_t[]", rows)
            done = lib.mp_store_put(self._slot, self.c, pointer, len(rows), index, _pointer(cast), self._why)
            self._refuse_stale(rows, int(done))

    def remove(self, rows: U64Array) -> None:
        """Remove rows of a hash table with their keys; all addresses into the bins they are of are stale afterwards.

        Args:
            rows: uint64[n], addresses from :meth:`rows`, in any order and with repetitions.

        Raises:
            StaleRowError: an address is not valid any more.
            UsageError: the store is a DenseArray: put zeros instead.

        Cost: O(n log n).
        """
        if self.store.kind != lib.MP_STORE_TABLE:
            message = "rows of a DenseArray are not removed: put zeros, which is what an absent key has"
            raise UsageError(message)
        falling = np.unique(rows)[::-1].astype(np.uint64)
        if len(falling):
            pointer = ffi.from_buffer("uint64_t[]", np.ascontiguousarray(falling))
            done = lib.mp_store_remove(self._slot, self.c, pointer, len(falling), self._why)
            self._refuse_stale(falling, int(done))

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
            values_pointer = ffi.NULL if added is None else _pointer(added[start:])
            sums_pointer = _pointer(sums[start:])
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
        for bin_index in range(1 << self.bin_shift) if bin_id is None else (bin_id,):
            if bin_id is not None or lib.mp_store_live_bin(self._slot, self.c, bin_index):
                yield from self._items_of(bin_index)

    def live(self) -> int:
        """Return the number of keys in the bins that are resident here; zero rows of an array do not count."""
        return int(lib.mp_store_live(self._slot, self.c))

    def checksum(self) -> int:
        """Return a sum over keys and values, modulo 2**64; sums over slots add up to the checksum of the whole."""
        return int(lib.mp_store_checksum(self._slot, self.c))

    def reserve(self, bin_id: int, keys: int) -> None:
        """Make room for a number of keys in one bin ahead of need; for an array, for indexes below that number.

        Raises:
            SharedMemoryError: there is no such room.
        """
        while lib.mp_store_reserve(self._slot, self.c, bin_id, keys, self._why):
            self._made_room_or_raise()

    def statistics(self) -> StoreStatistics:
        """Return what the calls of this access have done so far."""
        return StoreStatistics(*self._totals)

    def _items_of(self, bin_id: int) -> Iterator[tuple[Keys, dict[str, AnyArray]]]:
        cursor = ffi.new("uint64_t *")
        bytes_room = SCAN_BYTES
        key = self.store.key
        while cursor[0] != NO_ROW:
            keys = np.empty(SCAN_ROWS, dtype=key if key is not None else np.uint8)
            offsets = np.zeros(SCAN_ROWS + 1, dtype=np.uint32)
            data = np.empty(bytes_room if key is None else 0, dtype=np.uint8)
            rows = np.empty(SCAN_ROWS, dtype=np.uint64)
            count = int(
                lib.mp_store_scan(
                    self._slot, self.c, bin_id, cursor, SCAN_ROWS, _pointer(keys),
                    ffi.from_buffer("uint32_t[]", offsets) if key is None else ffi.NULL,
                    ffi.from_buffer("uint8_t[]", data), bytes_room,
                    ffi.from_buffer("uint64_t[]", rows), self._why,
                )
            )  # fmt: skip
            if self._why.error == -errno.ENOBUFS:
                bytes_room = int(self._why.bytes)
                continue
            if self._why.error:
                self._made_room_or_raise()
            if count:
                found: Keys = BytesColumn(offsets[: count + 1], data[: offsets[count]]) if key is None else keys[:count]
                yield found, {name: self.gather(rows[:count], name) for name in self.store.columns}

    def _checked_keys(self, keys: Keys) -> tuple[npt.NDArray[np.uint32] | None, AnyArray, int]:
        """Return offsets (None unless the keys are a bytes column), data and number of keys."""
        if self.store.key is None:
            if not isinstance(keys, BytesColumn):
                message = f"keys of {getattr(keys, 'dtype', type(keys).__name__)}: the store's keys are a bytes column"
                raise UsageError(message)
            return np.ascontiguousarray(keys.offsets), np.ascontiguousarray(keys.data), len(keys)
        if isinstance(keys, BytesColumn) or keys.dtype != self.store.key or keys.ndim != 1:
            told = "a bytes column" if isinstance(keys, BytesColumn) else f"{keys.dtype}{list(keys.shape)}"
            message = f"keys are {told}: the store's are {self.store.key}[n]"
            raise UsageError(message)
        return None, np.ascontiguousarray(keys), len(keys)

    def _key_pointer(self, data: AnyArray, offsets: npt.NDArray[np.uint32] | None, start: int) -> Any:  # noqa: ANN401
        return _pointer(data if offsets is not None else data[start:])

    def _checked_values(self, column: str, values: npt.ArrayLike, count: int) -> AnyArray:
        dtype = self.store.columns[column]
        array = np.asarray(values)
        if not isinstance(values, np.ndarray) and array.ndim == 0:
            array = np.asarray(values, dtype=dtype)
        if not np.can_cast(array.dtype, dtype, "same_kind") and not (array.dtype.kind in "iu" and dtype.kind in "iu"):
            message = f"values are {array.dtype}, the column {column!r} is {dtype}: convert them"
            raise UsageError(message)
        if array.shape not in ((), (count,)):
            message = (
                f"values of shape {list(array.shape)} for {count} rows of column {column!r}: give one, or one each"
            )
            raise UsageError(message)
        return np.ascontiguousarray(np.broadcast_to(array.astype(dtype, copy=False), (count,)))

    def _all(self, call: Callable[[int], int], count: int) -> int:
        """Call until all records are done, making room in between. Returns the number of calls."""
        start = calls = 0
        while start < count:
            start += call(start)
            calls += 1
            totals = self._totals
            totals[0] += 1
            totals[2] += self._why.rows_moved
            totals[3] = max(totals[3], self._why.rows_moved)
            totals[4] += self._why.rows_made
            if start < count:
                self._made_room_or_raise()
        self._totals[1] += count
        return calls

    def _made_room_or_raise(self) -> None:
        """Make room for what a call found missing, or raise what stopped it."""
        error, size_bytes = int(self._why.error), int(self._why.bytes)
        if error == -errno.ENOMEM and self._make_room is not None and self._make_room(size_bytes):
            return
        raise outcome_error(self._why, self.store, self.hash_name)

    def _refuse_stale(self, rows: U64Array, done: int) -> None:
        if done == len(rows):
            return
        if self._why.error == -errno.ESTALE:
            address = int(rows[done])
            message = (
                f"row {done} of {len(rows)}, address {address:#x}: its table has moved on since it was looked up; "
                "call rows() again in the same fold, after whatever inserts or removes"
            )
            raise StaleRowError(message)
        self._made_room_or_raise()


def outcome_error(why: Any, store: Store, hash_name: str) -> MegaphoneError:  # noqa: ANN401 - cdata
    """Return the exception for what stopped a call of the core, an ``mp_outcome``."""
    error, bin_id, size_bytes = int(why.error), int(why.bin_id), int(why.bytes)
    if error == -errno.ENOMEM:
        message = f"no shared memory is left for a block of {size_bytes} bytes of bin {bin_id}: raise --memory"
        return SharedMemoryError(message)
    if error == -errno.EFBIG:
        message = (
            f"bin {bin_id} of {store.noun} would need more than 2 GiB: raise --bin-shift, "
            "or use a HashTable if the keys are sparse"
        )
        return UsageError(message)
    if error == -errno.EOVERFLOW:
        message = f"thousands of keys of bin {bin_id} have one {hash_name} hash: use another of {', '.join(HASHES)}"
        return UsageError(message)
    message = f"bin {bin_id} is not resident at this slot: {errno.errorcode.get(-error, error)}"
    return InternalError(message)


def _pointer(array: AnyArray) -> Any:  # noqa: ANN401 - cdata
    """Return C's view of an array of any dtype: not every dtype has a buffer of its own."""
    return ffi.from_buffer(array.view(np.uint8) if array.dtype.kind in "mMV" and array.size else array)
