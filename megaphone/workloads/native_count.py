"""The plain rival of word count: exchange by key, count, no bins that could move.

It has S's half only: batches wait for their time as in a stateful operator, but nothing routes them by configuration
and no control input exists.  What migration costs while nothing migrates is the difference to this.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import numpy as np

from megaphone._core import ffi, lib
from megaphone.dataflow.graph import EXCHANGE, PART_BITS, Operator, Pact
from megaphone.dataflow.stream import Stream
from megaphone.errors import InternalError
from megaphone.migration.operators.stateful import FUEL_RECORDS
from megaphone.state.access import StoreAccess
from megaphone.state.stores import about_store

if TYPE_CHECKING:
    from megaphone.dataflow.worker import Worker
    from megaphone.state.stores import Store

NO_PORT = 2**32 - 1


class NativeCount(Operator):
    """Counts per key on the worker that the hash of the key names, for good."""

    volatile = False

    def __init__(self, stream: Stream, *, key: str, hash_name: str, state: Store, columns: Any, name: str) -> None:  # noqa: ANN401
        super().__init__(stream.graph, name)
        self.key, self.hash_name, self.declared = key, hash_name, state
        self.data = self.add_input(stream, Pact(EXCHANGE, key, hash_name))
        self.out = self.add_output(columns)
        # The parts of the exchange are the bins, so that each part has its table where its records go.
        self.keyed = self.graph.add_keyed(PART_BITS)

    def about(self) -> dict[str, Any]:
        """Return what a bin holds; there is no F, and bins stay."""
        ports = {"s_data": self.data.location, "s_out": self.out.location}
        return {
            "state": {
                "keyed": self.keyed, "bin_shift": PART_BITS, "key": self.key, "hash": self.hash_name,
                "transfer": "none", "ports": ports, "store": about_store(self.declared), "pending": None,
            }
        }  # fmt: skip

    def setup(self, worker: Worker) -> None:
        """Lay out the C half."""
        op = self.op = ffi.new("mp_stateful *")
        op.keyed, op.bin_shift, op.fuel = self.keyed, PART_BITS, FUEL_RECORDS
        op.s_data, op.s_state, op.s_out = self.data.location, NO_PORT, self.out.location
        self.data.schema.fill(op.route.schema)
        self.data.schema.fill(op.pending)
        self.state = StoreAccess(worker.slot, self.declared, self.keyed, PART_BITS, self.hash_name)
        parts = np.arange(1 << PART_BITS, dtype=np.uint64)
        peers = np.uint64(worker.peers)
        owner = parts % peers if self.hash_name == "dense" else parts * peers >> np.uint64(PART_BITS)
        initial = owner.astype(np.uint8)
        worker.check(lib.mp_keyed_start(worker.slot, op, ffi.from_buffer("uint8_t[]", initial)))

    def task(self) -> tuple[Any, Any] | None:
        """Count what is complete."""
        schema, out = self.data.schema, self.out
        value = -1 if len(schema) == 1 else 1
        columns = schema.c, schema.column(self.key), value
        self._adding = ffi.new("mp_adding *", [self.op, self.state.c, *columns, out.c_edges, out.edge_count, 1])
        return ffi.addressof(lib, "mp_adding_run"), self._adding

    def fail(self, worker: Worker, rc: int) -> None:
        """Raise what the core answered."""
        if rc == -errno.EPERM:
            message = f"operator {self.name!r}: part {self._adding.why.bin_id} is not worker {worker.index}'s"
            raise InternalError(message)
        worker.check(rc)
