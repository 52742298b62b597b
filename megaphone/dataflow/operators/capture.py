"""Capture: keeps what arrives, for results and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from megaphone.dataflow.batch import OFFSET_MAX, Batch, BytesColumn, Column
from megaphone.dataflow.operators.unary import BatchOperator
from megaphone.dataflow.schema import Schema
from megaphone.dataflow.stream import Stream, stream_method
from megaphone.errors import UsageError


@dataclass(frozen=True)
class Captured:
    """Records out of the dataflow, in private memory.

    Attributes:
        columns: each column's values, an array or a BytesColumn.
        times: uint64[n], the time of each record.
    """

    columns: dict[str, Column]
    times: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - an array, or a BytesColumn for a bytes column
        return self.columns[name]


class Capture(BatchOperator):
    """Keeps all records that reach this worker; the run collects the results of all workers under its name."""

    collects = True

    def __init__(self, stream: Stream, name: str) -> None:
        super().__init__(stream, name)
        self.graph.captures.append(self.name)
        self._parts: list[Captured] = []

    def on_batch(self, batch: Batch) -> None:
        """Copy a batch out."""
        times = batch.times
        stamps = np.full(batch.n, batch.time, np.uint64) if times is None else times.copy()
        self._parts.append(Captured(batch.own(), stamps))

    def result(self) -> Captured:
        """Return what has reached this worker so far, in the order of arrival."""
        self._parts = [_joined(self._parts, self.port.schema)]
        return self._parts[0]

    @staticmethod
    def merge(results: Sequence[Captured]) -> Captured:
        """Return the results of several workers as one, those of the first worker first."""
        return _joined(results, None)


def _joined(parts: Sequence[Captured], schema: Schema | None) -> Captured:
    """Return parts in one piece; of no parts, empty columns of the schema."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        dtypes = {} if schema is None else dict(zip(schema.names, schema.dtypes, strict=True))
        empty: dict[str, Column] = {
            name: BytesColumn.of([]) if dtype is None else np.empty(0, dtype) for name, dtype in dtypes.items()
        }
        return Captured(empty, np.empty(0, np.uint64))
    columns = {name: _concatenated([part.columns[name] for part in parts]) for name in parts[0].columns}
    return Captured(columns, np.concatenate([part.times for part in parts]))


def _concatenated(columns: Sequence[Column]) -> Column:
    plain = [column for column in columns if not isinstance(column, BytesColumn)]
    if plain:
        return np.concatenate(plain)
    strings = [column for column in columns if isinstance(column, BytesColumn)]
    data = np.concatenate([column.data[column.offsets[0] : column.offsets[-1]] for column in strings])
    if len(data) > OFFSET_MAX:
        message = f"{len(data)} bytes captured in one bytes column, at most {OFFSET_MAX} fit: use inspect instead"
        raise UsageError(message)
    offsets = np.zeros(sum(len(column) for column in strings) + 1, np.uint32)
    np.cumsum(np.concatenate([np.diff(column.offsets) for column in strings]), out=offsets[1:])
    return BytesColumn(offsets, data)


@stream_method
def capture(stream: Stream, name: str = "capture") -> Capture:
    """Keep all records that arrive, in private memory, for the result of the run.

    Args:
        stream: its input.
        name: of the result.

    Returns:
        The handle; ``result()`` gives this worker's records.

    Cost: every byte is copied out (``own``).
    """
    return Capture(stream, name)
