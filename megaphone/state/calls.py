"""What every access to a store needs: checked columns, calls that go on when there is room, errors with their cure."""

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

SCAN_KEYS = 8192
SCAN_BYTES = 1 << 20
"""Keys and bytes of keys of one step of a scan."""


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


class StoreCalls:
    """The bins of one stateful operator that are resident at one slot, and calls of the core for them.

    Args:
        slot: cdata ``mp_slot *``.
        store: the operator's declaration.
        keyed: number of the operator among the stateful ones.
        bin_shift: log2 of its bins.
        hash_name: the hash that routes to them.
        make_room: called with the bytes of a block that could not be had; True means: try again.
        where: the operator and the user's line, for messages.
    """

    __slots__ = ("_make_room", "_slot", "_totals", "_why", "bin_shift", "c", "hash_name", "store", "where")

    def __init__(
        self,
        slot: Any,  # noqa: ANN401 - cdata
        store: Store,
        keyed: int,
        bin_shift: int,
        hash_name: str,
        make_room: Callable[[int], bool] | None = None,
        where: str = "",
    ) -> None:
        self._slot = slot
        self.store = store
        self.bin_shift = bin_shift
        self.hash_name = hash_name
        self.where = where
        self.c = store.struct(keyed, bin_shift, hash_name)
        self._why = ffi.new("mp_outcome *")
        self._make_room = make_room
        self._totals = [0, 0, 0, 0, 0]

    def live(self) -> int:
        """Return the number of keys in the bins that are resident here; zero rows of an array do not count."""
        return int(lib.mp_store_live(self._slot, self.c))

    def checksum(self) -> int:
        """Return a sum over keys and values, modulo 2**64; sums over slots add up to the checksum of the whole."""
        return int(lib.mp_store_checksum(self._slot, self.c))

    def reserve(self, bin_id: int, keys: int, rows: int = 0) -> None:
        """Make room for a number of keys in one bin ahead of need; for an array, for indexes below that number.

        Args:
            bin_id: the bin, which must be resident.
            keys: how many there will be.
            rows: of lists, beside their keys, at least.

        Raises:
            SharedMemoryError: there is no such room.
        """
        while lib.mp_store_reserve(self._slot, self.c, bin_id, keys, self._why):
            self._made_room_or_raise()
        while rows and lib.mp_rows_reserve(self._slot, self.c, bin_id, rows, self._why):
            self._made_room_or_raise()

    def statistics(self) -> StoreStatistics:
        """Return what the calls of this access have done so far."""
        return StoreStatistics(*self._totals)

    def _scan(self, bin_id: int | None) -> Iterator[tuple[Keys, U64Array]]:
        """Yield keys and row addresses of bins that are resident, some thousands at a time."""
        for bin_index in range(1 << self.bin_shift) if bin_id is None else (bin_id,):
            if bin_id is not None or lib.mp_store_live_bin(self._slot, self.c, bin_index):
                yield from self._scan_bin(bin_index)

    def _scan_bin(self, bin_id: int) -> Iterator[tuple[Keys, U64Array]]:
        cursor = ffi.new("uint64_t *")
        bytes_room = SCAN_BYTES
        key = self.store.key
        while cursor[0] != NO_ROW:
            keys = np.empty(SCAN_KEYS, dtype=key if key is not None else np.uint8)
            offsets = np.zeros(SCAN_KEYS + 1, dtype=np.uint32)
            data = np.empty(bytes_room if key is None else 0, dtype=np.uint8)
            rows = np.empty(SCAN_KEYS, dtype=np.uint64)
            count = int(
                lib.mp_store_scan(
                    self._slot, self.c, bin_id, cursor, SCAN_KEYS, pointer(keys),
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
                yield found, rows[:count]

    def _remove_rows(self, rows: U64Array) -> None:
        """Remove rows in any order, repetitions among them: the core wants them to fall, and passes over the latter."""
        falling = np.ascontiguousarray(np.sort(rows, axis=None)[::-1])
        if len(falling):
            addresses = ffi.from_buffer("uint64_t[]", falling)
            self._refuse_stale(
                falling, int(lib.mp_store_remove(self._slot, self.c, addresses, len(falling), self._why))
            )

    def _need(self, call: str, *kinds: type[Store]) -> None:
        if not isinstance(self.store, kinds):
            nouns = " or ".join(kind.noun for kind in kinds)
            message = f"{self._told()}{call} is a call for {nouns}: the state is {self.store.noun}"
            raise UsageError(message)

    def _told(self) -> str:
        return f"{self.where}: " if self.where else ""

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
        return pointer(data if offsets is not None else data[start:])

    def _checked_hashes(self, hashes: U64Array | None, count: int) -> U64Array | None:
        if hashes is None:
            return None
        if len(hashes) != count:
            message = f"{count} keys and {len(hashes)} hashes: give one for each key, or none"
            raise UsageError(message)
        return np.ascontiguousarray(hashes, dtype=np.uint64)

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
    if error == -errno.EFBIG and store.kind == lib.MP_STORE_ROWS:
        message = f"bin {bin_id} of {store.noun} would need a block of more than 2 GiB: raise --bin-shift"
        return UsageError(message)
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


def pointer(array: AnyArray) -> Any:  # noqa: ANN401 - cdata
    """Return C's view of an array of any dtype: not every dtype has a buffer of its own."""
    return ffi.from_buffer(array.view(np.uint8) if array.dtype.kind in "mMV" and array.size else array)
