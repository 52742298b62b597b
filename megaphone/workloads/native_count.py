"""The plain rival of word count: exchange by key, count, no bins that could move.

It has S's half only: batches wait for their time as in a stateful operator, but nothing routes them by configuration
and no control input exists.  What migration costs while nothing migrates is the difference to this.
"""

from __future__ import annotations

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
        self._worker = worker
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
        self._why = ffi.new("mp_outcome *")
        self._key = self.data.schema.column(self.key)

    def activate(self) -> None:
        """Count what is complete."""
        worker, slot, op = self._worker, self._worker.slot, self.op
        count = lib.mp_applier_activate(slot, op)
        if count > 0:
            done = lib.mp_fold_add_emit(
                slot, op, self.state.c, self.data.schema.c, self._key, -1 if len(self.data.schema) == 1 else 1,
                self.out.c_edges, len(self.out.sent_edges), self._why,
            )  # fmt: skip
            if done == -1:
                message = f"operator {self.name!r}: part {self._why.bin_id} is not worker {worker.index}'s"
                raise InternalError(message)
            count = done
        if count < 0:
            worker.check(count)
        worker.check(lib.mp_applier_end(slot, op))
