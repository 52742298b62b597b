"""F: the half of a stateful operator that sends each record to the owner of its bin, and bins to their new owners.

`keyed.h` has the exact conditions.  With a key column and a built-in hash an activation is one call of the core; with a
function for a key the batches pass through Python one by one, and the function sees each once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import Batch
from megaphone.dataflow.graph import BROADCAST, HASHES, KeyFunction, Operator, Pact
from megaphone.dataflow.hashing import hash_keys

if TYPE_CHECKING:
    from megaphone.dataflow.graph import InputPort
    from megaphone.dataflow.stream import Stream
    from megaphone.dataflow.worker import Worker

FUEL_RECORDS: Final = 1 << 16
"""Records after which an activation gives way to other operators, between batches and complete times."""


@dataclass(frozen=True)
class Keying:
    """How records find their bin.

    Attributes:
        key: a column, or a function from a batch to uint64[n] hashes.
        hash: of a key column.
        bin_shift: log2 of the bins.
    """

    key: str | KeyFunction
    hash: str
    bin_shift: int

    def hashes(self, columns: Mapping[str, Any], column: str | None = None) -> npt.NDArray[np.uint64]:
        """Return uint64[n], the hash of each record in these columns, of which one is the key, by default its own."""
        key = self.key if column is None else column
        assert isinstance(key, str)
        return hash_keys(columns[key], self.hash, self.bin_shift)  # type: ignore[arg-type] # checked at build


class Router(Operator):
    """F: one per input of a stateful operator and worker.

    Args:
        stream: its input.
        control: instructions, which the F of both inputs read.
        name: of the stateful operator.
        keying: how records find their bin.
        gives: whether it gives bins away; that of a right input only routes.
    """

    volatile = False

    def __init__(self, stream: Stream, control: Stream, name: str, keying: Keying, *, gives: bool = True) -> None:
        super().__init__(stream.graph, f"{name}.route" if gives else f"{name}.route-right")
        self.keying = keying
        self.data = self.add_input(stream)
        self.control = self.add_input(control, Pact(BROADCAST, credit=False))
        self.data_out = self.add_output(stream.schema)
        if gives:
            self.state_out = self.add_output({"bin": "u4"})
            self.summaries[0, 1] = None  # state moves because of control alone
        self.op: Any = None

    @property
    def sends_away(self) -> bool:
        """Routed records leave for other workers."""
        return True

    def port_names(self) -> list[str]:
        """Return data, control and feedback, then the ways to S."""
        return ["data", "control", "feedback", "data_out", "state_out"][: 3 + len(self.outputs)]

    def setup(self, worker: Worker) -> None:
        """Note the ports of an activation."""
        self._worker = worker
        self._ports = ffi.new("uint32_t[3]", [port.location for port in self.inputs])
        self._cell = ffi.new("mp_cell *")

    def describe(self) -> str:
        """Return what must be equal on all workers."""
        key = self.keying.key if isinstance(self.keying.key, str) else "function"
        return f"{super().describe()} {key} {self.keying.hash} {self.keying.bin_shift}"

    def start(self, op: Any, target: InputPort) -> None:  # noqa: ANN401 - a cffi struct
        """Fill in this F's part of an ``mp_stateful``, and use that; ``target`` is S's port for its records."""
        self.op = op
        op.f_data, op.f_control, op.f_feedback = (port.location for port in self.inputs)
        op.f_data_out = self.data_out.location
        if len(self.outputs) > 1:
            op.f_state_out = self.state_out.location
        self._fill_edge(op.route)
        op.route.location = target.location

    def _fill_edge(self, edge: Any) -> None:  # noqa: ANN401 - a cffi struct
        """Describe the way of the records in an ``mp_edge``; its target and owners are the core's to fill in."""
        key = self.keying.key
        self.data_out.schema.fill(edge.schema)
        edge.kind = 1
        edge.credit = 1
        edge.hash = HASHES[self.keying.hash] if isinstance(key, str) else HASHES["given"]
        edge.key_column = self.data_out.schema.column(key) if isinstance(key, str) else 0
        edge.shift = 64 - self.keying.bin_shift

    def task(self) -> tuple[Any, Any] | None:
        """Let the core do all of it; with a function for a key, until there is a batch to be shown to that."""
        name = "mp_router_run" if isinstance(self.keying.key, str) else "mp_router_run_quiet"
        return ffi.addressof(lib, name), self.op

    def activate(self) -> None:
        """Read control, install at most one configuration, route what can be routed: with a function for a key."""
        worker, op = self._worker, self.op
        slot, key = worker.slot, self.keying.key
        assert not isinstance(key, str)
        lib.mp_begin(slot, self._ports, 3)
        worker.check(lib.mp_router_begin(slot, op))
        records = 0
        while records < FUEL_RECORDS and lib.mp_outbox_is_empty(slot):
            if worker.check(lib.mp_router_next(slot, op, self._cell)) == 0:
                break
            records += self._cell.records
            batch = Batch(worker, self.data.schema, self._cell)
            hashes = worker.hashes_of(self.data_out, key, batch)
            # What the user's function keeps of the batch outlives the message's own reference.
            batch.hold()
            worker.check(lib.mp_router_route(slot, op, self._cell, ffi.cast("uint64_t *", hashes.ctypes.data)))
        worker.check(lib.mp_router_end(slot, op))
