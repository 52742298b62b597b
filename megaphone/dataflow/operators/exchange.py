"""Exchange: records go to the worker that the hash of their key names, and nothing else happens to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megaphone._core import ffi, lib
from megaphone.dataflow.graph import EXCHANGE, KeyFunction, Operator, Pact
from megaphone.dataflow.operators.unary import FUEL_BATCHES
from megaphone.dataflow.stream import Stream, stream_method

if TYPE_CHECKING:
    from megaphone.dataflow.worker import Worker


class Forward(Operator):
    """Hands every batch on; the edge to it does the work."""

    messages_alone = True

    def __init__(self, stream: Stream, name: str, pact: Pact | None = None) -> None:
        super().__init__(stream.graph, name)
        self.add_input(stream, pact)
        self.out = self.add_output(stream.schema)

    def setup(self, worker: Worker) -> None:
        """Make what each activation reuses."""
        self._worker = worker
        self._locations = [port.location for port in self.inputs]
        self._ports = ffi.new("uint32_t[]", self._locations)
        self._cell = ffi.new("mp_cell *")
        self._away = self.sends_away

    def task(self) -> tuple[Any, Any] | None:
        """Let the core hand on, unless an edge's key is a user's function."""
        out = self.out
        if out.by_function:
            return None
        ports = [self._ports, len(self._locations)]
        forward = ffi.new("mp_forward *", [ports, out.c_edges, out.edge_count, self._away, FUEL_BATCHES])
        return ffi.addressof(lib, "mp_forward_run"), forward

    def activate(self) -> None:
        """Hand on what has arrived, in turn from each input, until output has to wait."""
        worker, cell = self._worker, self._cell
        slot = worker.slot
        lib.mp_begin(slot, self._ports, len(self._locations))
        for location in self._locations:
            for _ in range(FUEL_BATCHES):
                if self._away and not lib.mp_outbox_is_empty(slot):
                    lib.mp_again(slot, location)
                    break
                if worker.check(lib.mp_take(slot, location, cell)) == 0:
                    break
                worker.check(lib.mp_release_later(slot, cell.offset64))
                worker.push(self.out, cell)
        worker.check(lib.mp_publish(slot))


@stream_method
def exchange(stream: Stream, key: str | KeyFunction, *, hash: str = "mix", name: str = "exchange") -> Stream:  # noqa: A002
    """Send each record to the worker that the hash of its key names.

    Args:
        stream: its input.
        key: a column, or a function from a batch to uint64[n] hashes, whose high bits choose the worker.
        hash: fnv, mix or dense, over a column.
        name: for errors and reports.

    Cost: each record is written once into a batch for its worker; a batch that all goes to one is not copied.
    """
    return Stream(stream.graph, Forward(stream, name, Pact(EXCHANGE, key, hash)).out)
