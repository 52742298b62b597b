"""What a batch is made of: named columns, each a fixed-width numpy dtype or ``bytes``.

A batch lies in a slab as a structure of arrays; `batch.h` says where each column begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from megaphone._core import ffi
from megaphone.errors import GraphError

COLUMNS_MAX: Final = 16
BYTES_COLUMNS_MAX: Final = 3

BYTES: Final = "bytes"


class Schema:
    """Named, typed columns of a stream.

    Args:
        columns: name to dtype; a dtype is whatever ``numpy.dtype`` takes with a fixed width, or ``"bytes"`` for byte
            strings of any length.

    Raises:
        GraphError: no column, too many, or a dtype that cannot lie in shared memory; the message names the column.

    >>> Schema({"key": "u8", "word": "bytes"})
    Schema({'key': 'uint64', 'word': 'bytes'})
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        if not columns:
            message = "a stream without columns, {}: name at least one column and its dtype"
            raise GraphError(message)
        if len(columns) > COLUMNS_MAX:
            message = f"{len(columns)} columns, at most {COLUMNS_MAX} are possible: put small ones into one"
            raise GraphError(message)
        self.names: tuple[str, ...] = tuple(columns)
        self.dtypes: tuple[np.dtype[Any] | None, ...] = tuple(_checked(name, dtype) for name, dtype in columns.items())
        self.index: dict[str, int] = {name: index for index, name in enumerate(self.names)}
        variable = sum(dtype is None for dtype in self.dtypes)
        if variable > BYTES_COLUMNS_MAX:
            message = f"{variable} bytes columns, at most {BYTES_COLUMNS_MAX} are possible: join some of them"
            raise GraphError(message)
        self.has_bytes = variable > 0
        self.row_bytes = sum(4 if dtype is None else dtype.itemsize for dtype in self.dtypes)
        self.c = ffi.new("mp_schema *")
        self.fill(self.c)

    def fill(self, target: Any) -> None:  # noqa: ANN401 - a cffi struct
        """Write the layout into an ``mp_schema``."""
        target.columns = len(self.names)
        target.var_columns = sum(dtype is None for dtype in self.dtypes)
        for index, dtype in enumerate(self.dtypes):
            target.item_bytes[index] = 4 if dtype is None else dtype.itemsize
            target.is_var[index] = dtype is None

    def column(self, name: str) -> int:
        """Return a column's number; raise GraphError naming those that exist."""
        if name not in self.index:
            message = f"unknown column {name!r}: the stream has {', '.join(self.names)}"
            raise GraphError(message)
        return self.index[name]

    def dtype(self, name: str) -> np.dtype[Any] | None:
        """Return a column's dtype, None for a bytes column."""
        return self.dtypes[self.column(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.names == other.names and self.dtypes == other.dtypes

    def __hash__(self) -> int:
        return hash((self.names, self.dtypes))

    def describe(self) -> dict[str, str]:
        """Return name to dtype as text; equal schemas give equal descriptions."""
        return {n: BYTES if d is None else str(d) for n, d in zip(self.names, self.dtypes, strict=True)}

    def __repr__(self) -> str:
        return f"Schema({self.describe()!r})"


def _checked(name: str, dtype: Any) -> np.dtype[Any] | None:  # noqa: ANN401 - numpy's own input type is Any
    if not isinstance(name, str) or not name:  # type: ignore[redundant-expr] # a user's dict may have any keys
        message = f"a column's name is no text, {name!r}: use a word"
        raise GraphError(message)
    if dtype is bytes or (isinstance(dtype, str) and dtype == BYTES):
        return None
    try:
        # numpy would take None for float64.
        result: np.dtype[Any] = np.dtype("O" if dtype is None else dtype).newbyteorder("=")
    except (TypeError, ValueError):
        message = f"column {name!r} has no dtype that numpy knows, {dtype!r}: use e.g. 'u8', 'f8' or 'bytes'"
        raise GraphError(message) from None
    if result.hasobject or result.itemsize == 0 or result.subdtype is not None or result.itemsize > 65535:
        message = f"column {name!r} has dtype {result}, which has no fixed width: use a number, 'S16' or 'bytes'"
        raise GraphError(message)
    return result


def as_schema(columns: Schema | Mapping[str, Any]) -> Schema:
    """Return a Schema for what a user may give."""
    return columns if isinstance(columns, Schema) else Schema(columns)
