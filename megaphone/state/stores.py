"""What the state of an operator is: a declaration, given as ``state=``, the same for all its bins.

::

    DenseArray("u8")                                       a row per small integer, zero until written
    HashTable("u8", {"count": "u8", "sum": "f8"})          a row per key, made when the key is first seen
    HashTable("bytes", {"count": "u8"})                    keys of any length
    Rows("u8", {"bidder": "u8", "price": "u8"})            a list of rows per key
    Pickled("u8")                                          any Python object per key

A declaration is frozen and checked when it is made.  It holds nothing: rows lie in blocks of shared memory that belong
to bins (``store.h``), and a fold reaches them through the ``StoreAccess`` that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import numpy as np

from megaphone._core import ffi, lib
from megaphone.dataflow.hashing import INTEGER_KINDS, hash_number
from megaphone.errors import UsageError

BYTES: Final = "bytes"
COLUMNS_MAX: Final = 16
ROW_BYTES_MAX: Final = 512
ALIGNMENT_MAX: Final = 8
PICKLED_CELL: Final = 124
"""Bytes of an object that lie side by side: two cache lines with the name of the next cell."""


@dataclass(frozen=True, slots=True)
class Store:
    """What all kinds of state have in common; make one of those.

    Attributes:
        columns: name to dtype of the values of a row, in the order in which they lie.
        key: dtype of the keys, None for bytes of any length.
        default: one record of ``columns``: what a new row holds.
        cell_rows: of lists, how many rows lie side by side; 0: as many as fit a cache line.
    """

    columns: dict[str, np.dtype[Any]] = field(hash=False)
    key: np.dtype[Any] | None
    default: np.ndarray[Any, Any] = field(hash=False, compare=False, repr=False)
    cell_rows: int

    kind: ClassVar[int]
    noun: ClassVar[str]

    @property
    def key_kind(self) -> int:
        """How the C core holds the keys: as integers, by their fixed width, or as bytes."""
        if self.key is None:
            return int(lib.MP_KEY_BYTES)
        is_integer = self.key.kind in INTEGER_KINDS and self.key.itemsize in (1, 2, 4, 8)
        return int(lib.MP_KEY_U64 if is_integer else lib.MP_KEY_FIXED)

    def column_index(self, name: str) -> int:
        """Return the number of a value column.

        Raises:
            UsageError: there is none of that name; the message lists those that there are.
        """
        try:
            return list(self.columns).index(name)
        except ValueError:
            message = f"{self.noun} has no column {name!r}: it has {', '.join(self.columns)}"
            raise UsageError(message) from None

    def struct(self, keyed: int, bin_shift: int, hash_name: str) -> Any:  # noqa: ANN401 - a cffi struct
        """Return the C core's ``mp_store`` for one stateful operator.

        Args:
            keyed: number of the operator among the stateful ones.
            bin_shift: log2 of its bins, 1 ... 20.
            hash_name: the hash that routes to its bins.

        Raises:
            UsageError: the hash does not fit the store, or a row is too long.
        """
        store = ffi.new("mp_store *")
        store.keyed, store.bin_shift, store.hash = keyed, bin_shift, hash_number(hash_name, bin_shift)
        store.kind, store.key_kind = self.kind, self.key_kind
        store.key_bytes = self.key.itemsize if self.key is not None else 0
        store.columns, store.cell_rows = len(self.columns), self.cell_rows
        for index, dtype in enumerate(self.columns.values()):
            store.item_bytes[index] = dtype.itemsize
            store.is_float[index] = dtype.kind == "f"
        aligns = [min(dtype.alignment, ALIGNMENT_MAX) for dtype in self.columns.values()]
        failed = lib.mp_store_init(store, ffi.new("uint16_t[]", aligns))
        if failed == -_EFBIG and self.cell_rows:
            message = (
                f"{self.noun}: {self.cell_rows} rows side by side have more than {lib.MP_CELL_BYTES_MAX} bytes: "
                "use a smaller cell_rows"
            )
            raise UsageError(message)
        if failed == -_EFBIG:
            message = f"{self.noun}: a row has more than {ROW_BYTES_MAX} bytes: use fewer or narrower columns"
            raise UsageError(message)
        if failed:
            need = "'dense'" if self.kind == lib.MP_STORE_DENSE else "'mix' or 'fnv'"
            message = f"{self.noun} cannot be routed by the hash {hash_name!r}: use {need}"
            raise UsageError(message)
        for index, name in enumerate(self.columns if self.kind != lib.MP_STORE_ROWS else ()):
            at = store.column_at[index] - store.value_at
            for offset, byte in enumerate(self.default[name].tobytes()):
                store.fresh[at + offset] = byte
        return store


@dataclass(frozen=True, slots=True, init=False)
class DenseArray(Store):
    """An array per bin: for keys that are small integers, nearly all of which occur.

    The fastest store there is, and 8 bytes a key for a count: key ``k`` is row ``k >> bin_shift`` of its bin. The
    memory that it takes goes with the largest key, not with the number of keys. Bins are chosen by the hash ``dense``.

    Args:
        values: dtype of the one column, called ``value``, or a mapping of names to dtypes.
        key: dtype of the keys, an integer one.

    Raises:
        UsageError: a dtype that cannot lie in shared memory, or keys that are no integers.

    >>> DenseArray({"count": "u8"}).columns
    {'count': dtype('uint64')}
    """

    kind: ClassVar[int] = int(lib.MP_STORE_DENSE)
    noun: ClassVar[str] = "a DenseArray"

    def __init__(self, values: Any = "u8", key: Any = "u8") -> None:  # noqa: ANN401 - numpy's own input type is Any
        columns = _checked_columns(self.noun, values if isinstance(values, Mapping) else {"value": values})
        key_dtype = _checked_key(self.noun, key)
        if key_dtype is None or key_dtype.kind not in INTEGER_KINDS:
            message = f"{self.noun} is indexed by integers, not by keys of {key!r}: use a HashTable"
            raise UsageError(message)
        _set(self, columns, key_dtype, {})


@dataclass(frozen=True, slots=True, init=False)
class HashTable(Store):
    """A hash table per bin: for keys of any kind, a row of columns each.

    16 bytes a key for a count under an integer key, at a load between 5/16 and 5/8.

    Args:
        key: dtype of the keys, or ``"bytes"`` for keys of any length.
        values: a mapping of names to dtypes, or one dtype, whose column is called ``value``.
        default: what a new row holds in columns that it names; the others begin with zeros.

    Raises:
        UsageError: a dtype that cannot lie in shared memory or be compared by its bits, or a default that does not
            fit its column.

    >>> HashTable("bytes", {"count": "u8"}).key is None
    True
    """

    kind: ClassVar[int] = int(lib.MP_STORE_TABLE)
    noun: ClassVar[str] = "a HashTable"

    def __init__(self, key: Any, values: Any = "u8", default: Mapping[str, Any] | None = None) -> None:  # noqa: ANN401
        columns = _checked_columns(self.noun, values if isinstance(values, Mapping) else {"value": values})
        _set(self, columns, _checked_key(self.noun, key), dict(default or {}))


@dataclass(frozen=True, slots=True, init=False)
class Rows(Store):
    """A list of rows per key, in the order in which they were appended.

    16 bytes a key beside the key, in a table that is half full, and about a cache line for each few rows: rows of a
    list lie side by side in cells. Cells of lists that are gone serve again. A key is there as long as it has rows.

    Args:
        key: dtype of the keys, or ``"bytes"`` for keys of any length.
        columns: of a row, a mapping of names to dtypes, or one dtype, whose column is called ``value``.
        cell_rows: rows that lie side by side; more save time and space where lists are long, and waste some where
            they are short. 0 takes as many as fit a cache line.

    Raises:
        UsageError: a dtype that cannot lie in shared memory, keys that cannot be compared by their bits, or more in a
            cell than it holds.

    >>> Rows("u8", {"bidder": "u8", "price": "u8"}).columns
    {'bidder': dtype('uint64'), 'price': dtype('uint64')}
    """

    kind: ClassVar[int] = int(lib.MP_STORE_ROWS)
    noun: ClassVar[str] = "Rows"

    def __init__(self, key: Any, columns: Any, cell_rows: Any = 0) -> None:  # noqa: ANN401 - numpy's own input type
        checked = _checked_columns(self.noun, columns if isinstance(columns, Mapping) else {"value": columns})
        if not isinstance(cell_rows, int) or not 0 <= cell_rows <= lib.MP_CELL_ROWS_MAX:
            message = f"{self.noun}: cell_rows {cell_rows!r}: give 1 to {lib.MP_CELL_ROWS_MAX}, or 0 for a cache line"
            raise UsageError(message)
        _set(self, checked, _checked_key(self.noun, key), {}, cell_rows)


@dataclass(frozen=True, slots=True, init=False)
class Pickled(Store):
    """Any Python object per key: put pickles it, get makes a new one, and nothing is kept in between.

    For states that no columns describe, and few of them: pickling costs microseconds a key. An object that a fold
    changes must be put again. Classes must be importable by their module and name on every worker.

    Args:
        key: dtype of the keys, or ``"bytes"`` for keys of any length.

    Raises:
        UsageError: keys that cannot lie in shared memory or be compared by their bits.

    >>> Pickled("bytes").key is None
    True
    """

    kind: ClassVar[int] = int(lib.MP_STORE_ROWS)
    noun: ClassVar[str] = "Pickled"

    def __init__(self, key: Any) -> None:  # noqa: ANN401 - numpy's own input type is Any
        _set(self, {"pickle": np.dtype(np.uint8)}, _checked_key(self.noun, key), {}, PICKLED_CELL)


def about_store(store: Store) -> dict[str, Any]:
    """Return a declaration as plain data, for tools that have nothing but a run's memory; see ``store_layout``.

    Of lists, ``columns`` is what each has in the table, its length; ``list`` is what a row of it has.
    """
    columns = [
        {"name": name, "dtype": str(dtype), "kind": dtype.kind, "bytes": dtype.itemsize, "align": dtype.alignment}
        for name, dtype in store.columns.items()
    ]
    about: dict[str, Any] = {
        "kind": {DenseArray: "dense", Rows: "rows", Pickled: "pickled"}.get(type(store), "table"),
        "key": BYTES if store.key is None else str(store.key),
        "key_kind": store.key_kind,
        "key_bytes": 0 if store.key is None else store.key.itemsize,
        "columns": columns,
    }
    if store.kind == lib.MP_STORE_ROWS:
        counted = "pickled bytes" if isinstance(store, Pickled) else "rows"
        about["columns"] = [{"name": counted, "dtype": "uint32", "kind": "u", "bytes": 4, "align": 4}]
        about["list"] = columns
    return about


def store_layout(about: Mapping[str, Any], keyed: int, bin_shift: int, hash_name: str) -> Any:  # noqa: ANN401 - cdata
    """Return the core's ``mp_store`` of what ``about_store`` has told: enough to find rows, not to insert any.

    Raises:
        UsageError: the core refuses it: it was told by another version.
    """
    store = ffi.new("mp_store *")
    store.keyed, store.bin_shift, store.hash = keyed, bin_shift, hash_number(hash_name, bin_shift)
    store.kind = lib.MP_STORE_DENSE if about["kind"] == "dense" else lib.MP_STORE_TABLE
    store.key_kind, store.key_bytes, store.columns = about["key_kind"], about["key_bytes"], len(about["columns"])
    for index, column in enumerate(about["columns"]):
        store.item_bytes[index] = column["bytes"]
        store.is_float[index] = column["kind"] == "f"
    aligns = [min(column["align"], ALIGNMENT_MAX) for column in about["columns"]]
    if failed := lib.mp_store_init(store, ffi.new("uint16_t[]", aligns)):
        message = f"a store of another version ({failed}): {about}"
        raise UsageError(message)
    if "list" in about:
        store.row_bytes = store.value_at + lib.MP_LIST_BYTES  # the length comes first, the rest is not for tools
    return store


_EFBIG = 27


def _set(
    store: Store,
    columns: dict[str, np.dtype[Any]],
    key: np.dtype[Any] | None,
    default: dict[str, Any],
    cell_rows: int = 0,
) -> None:
    if unknown := default.keys() - columns.keys():
        message = f"{store.noun}: a default for {', '.join(sorted(unknown))}, which is no column of it"
        raise UsageError(message)
    fresh = np.zeros((), dtype=list(columns.items()))
    for name, value in default.items():
        try:
            fresh[name] = value
        except (TypeError, ValueError, OverflowError):
            message = f"{store.noun}: the default {value!r} of column {name!r} is no {columns[name]}"
            raise UsageError(message) from None
    fresh.setflags(write=False)
    object.__setattr__(store, "columns", columns)
    object.__setattr__(store, "key", key)
    object.__setattr__(store, "default", fresh)
    object.__setattr__(store, "cell_rows", cell_rows)


def _checked(noun: str, what: str, dtype: Any) -> np.dtype[Any]:  # noqa: ANN401 - numpy's own input type is Any
    try:
        result: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        message = f"{noun}: {what} has no dtype that numpy knows, {dtype!r}: use e.g. 'u8' or 'f8'"
        raise UsageError(message) from None
    if dtype is None or result.hasobject or result.itemsize == 0 or result.subdtype is not None:
        message = f"{noun}: {what} has dtype {dtype!r}, which has no fixed width: use a number or e.g. 'S16'"
        raise UsageError(message)
    if not result.isnative:
        message = (
            f"{noun}: {what} has dtype {result.str!r}, of the other byte order: use {result.newbyteorder('=').str!r}"
        )
        raise UsageError(message)
    return result


def _checked_columns(noun: str, values: Mapping[str, Any]) -> dict[str, np.dtype[Any]]:
    if not 0 < len(values) <= COLUMNS_MAX:
        message = f"{noun} with {len(values)} columns: give it 1 to {COLUMNS_MAX}"
        raise UsageError(message)
    columns = {name: _checked(noun, f"column {name!r}", dtype) for name, dtype in values.items()}
    row_bytes = sum(dtype.itemsize for dtype in columns.values())
    if row_bytes > ROW_BYTES_MAX:
        message = f"{noun}: a row of {row_bytes} bytes, at most {ROW_BYTES_MAX} are possible: use narrower columns"
        raise UsageError(message)
    return columns


def _checked_key(noun: str, key: Any) -> np.dtype[Any] | None:  # noqa: ANN401 - numpy's own input type is Any
    if key is bytes or (isinstance(key, str) and key == BYTES):
        return None
    result = _checked(noun, "the key", key)
    if result.kind in "fc" or (result.names and result.itemsize != _packed_bytes(result)):
        message = f"{noun}: keys of dtype {result}: equal keys must have equal bits; convert them to integers or 'S16'"
        raise UsageError(message)
    return result


def _packed_bytes(dtype: np.dtype[Any]) -> int:
    """Return the bytes of a structured dtype without the gaps that alignment leaves, whose content is anybody's."""
    return sum(dtype[name].itemsize for name in dtype.names or ())
