"""Which keys of a store hold the greatest value, over all bins that are here: two passes in C, nothing kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from megaphone._core import ffi, lib
from megaphone.errors import InternalError, UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from megaphone.state.access import StoreAccess

NONE = np.iinfo(np.int64).min
"""The greatest value of a bin that has no row."""
_FAILED = 2**64 - 1


class Greatest(NamedTuple):
    """The greatest values of one column.

    Attributes:
        value: over all bins; ``NONE`` if there is no row.
        keys: of all rows that hold it.
        of_bin: int64[bins], by bin; ``NONE`` where there is no row, or the bin is not here.
    """

    value: int
    keys: npt.NDArray[Any]
    of_bin: npt.NDArray[np.int64]


def greatest(state: StoreAccess, column: str) -> Greatest:
    """Return the keys that hold the greatest value of a column in the bins that are resident here.

    Args:
        state: of keys that are integers.
        column: of dtype int64.

    Raises:
        UsageError: the column is of another dtype, or the keys are no integers.

    Cost: one pass over the tables, about 2 ns a row; no memory but the result.
    """
    store = state.store
    index = store.column_index(column)
    if store.columns[column] != np.dtype(np.int64) or store.key is None or store.key.kind not in "iu":
        kinds = f"{store.columns[column]}, by {store.key or 'bytes'}"
        message = f"greatest of column {column!r}, {kinds}: use 'i8' and integers"
        raise UsageError(message)
    of_bin = np.empty(1 << state.bin_shift, np.int64)
    bins = ffi.from_buffer("int64_t[]", of_bin, require_writable=True)
    best = ffi.new("int64_t *")
    slot = state._slot  # noqa: SLF001 - both are of this layer
    holders = int(lib.mp_store_greatest(slot, state.c, index, bins, best))
    if holders == _FAILED:
        message = f"column {column!r} of {store.noun} could not be compared, having been checked"
        raise InternalError(message)
    keys = np.empty(holders, store.key)
    if holders:
        room = ffi.from_buffer(keys, require_writable=True)
        found = int(lib.mp_store_holders(slot, state.c, index, bins, best[0], room, holders))
        if found != holders:
            message = f"{holders} keys held the greatest {column!r}, and {found} were found again"
            raise InternalError(message)
    return Greatest(int(best[0]), keys, of_bin)
