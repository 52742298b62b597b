"""The end of a query: counts its rows and sums them up in C, keeps those to be written, shows how far time has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import Batch
from megaphone.workloads.sink import Summing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from megaphone.dataflow.stream import Stream
    from megaphone.dataflow.worker import Worker


class QuerySink(Summing):
    """A probe that counts what passes and checks it by a sum that depends on the rows alone.

    Args:
        stream: a query's output, of unsigned integers.
        name: for errors and reports.
        keep: hold copies of all rows, for `rows`.
    """

    def __init__(self, stream: Stream, name: str, *, keep: bool) -> None:
        super().__init__(stream, name)
        self._keep = keep
        self._parts: list[dict[str, Any]] = []

    def setup(self, worker: Worker) -> None:
        """Make room for the message that is being copied."""
        super().setup(worker)
        self._ports = ffi.new("uint32_t[1]", [self.port.location])
        self._cell = ffi.new("mp_cell *")

    def activate(self) -> None:
        """Add up what has arrived and let it go."""
        worker = self._slot_worker
        if self._keep:
            self._copy_out(worker)
            return
        rc = lib.mp_nexmark_sink(worker.slot, self.port.location, self.port.schema.c, self._sum)
        if rc < 0:
            worker.check(rc)

    def _copy_out(self, worker: Worker) -> None:
        slot, cell, schema = worker.slot, self._cell, self.port.schema
        lib.mp_begin(slot, self._ports, 1)
        while worker.check(lib.mp_take(slot, self.port.location, cell)):
            worker.check(lib.mp_release_later(slot, cell.offset64))
            lib.mp_nexmark_add(slot, schema.c, cell, self._sum)
            self._parts.append(Batch(worker, schema, cell).own())
        worker.check(lib.mp_publish(slot))

    def rows(self) -> dict[str, Any]:
        """Return the columns of the rows that were kept, in the order of arrival."""
        return joined(self._parts, {name: self.port.schema.dtype(name) for name in self.port.schema.names})


def joined(parts: Sequence[dict[str, Any]], columns: dict[str, Any]) -> dict[str, Any]:
    """Return parts of a table in one piece; of no parts, empty columns."""
    if not parts:
        return {name: np.empty(0, dtype) for name, dtype in columns.items()}
    return {name: np.concatenate([part[name] for part in parts]) for name in columns}


class AllDone:
    """The probe of a run: what all its queries have answered."""

    def __init__(self, sinks: Sequence[QuerySink]) -> None:
        self._sinks = sinks

    def frontier(self) -> int:
        """Return the least time that may still appear at the end of any query."""
        return min(sink.frontier() for sink in self._sinks)
