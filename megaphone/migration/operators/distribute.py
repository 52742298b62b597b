"""Distribute: records go to the owner of their bin, by configuration, and nothing else happens to them.

F is that of the stateful operators.  Behind it S has no state and no fold, and hands batches on as they come: F has
routed them when the configuration of their time was final, and which other records their time has is nothing that an
operator without state would wait for.  Bins are names here: a migration moves their owner, and no byte of state, by the
same protocol, so that plans, pacing, reports and inspection see it as they see any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megaphone._core import ffi, lib
from megaphone.dataflow.graph import Graph, KeyFunction, Operator, OutputPort
from megaphone.dataflow.operators.exchange import exchange
from megaphone.dataflow.stream import Stream, stream_method
from megaphone.errors import UsageError
from megaphone.migration.operators.stateful import BIN_SHIFT_DEFAULT, graph_error, make_entry

if TYPE_CHECKING:
    from megaphone.dataflow.worker import Worker
    from megaphone.migration.operators.control import Control
    from megaphone.migration.operators.entry import Entry


class Passer(Operator):
    """S without state."""

    volatile = False

    def __init__(self, entry: Entry, name: str, initial: Any) -> None:  # noqa: ANN401 - array-like
        super().__init__(entry.graph, name)
        self.entry = entry
        entry.connect(self)
        self.out = self.add_output(entry.schemas[0])
        entry.watch(self.out)
        self.keyed = entry.keyed
        try:
            self._initial = entry.owners(initial)
        except UsageError as error:
            raise self.error(str(error)) from None

    def port_names(self) -> list[str]:
        """Return data and state, then the output."""
        return [*self.entry.port_names(), "out"]

    def describe(self) -> str:
        """Return what must be equal on all workers."""
        return f"{super().describe()} {self._initial.tobytes().hex()}"

    def about(self) -> dict[str, Any]:
        """Return the ports of both halves; a bin holds nothing."""
        keying = self.entry.keyings[0]
        return {
            "state": {
                "keyed": self.keyed,
                "bin_shift": keying.bin_shift,
                "key": keying.key if isinstance(keying.key, str) else "a function",
                "hash": keying.hash,
                "transfer": "handover",
                "ports": self.entry.ports(self.out),
                "store": None,
                "pending": None,
            }
        }

    def setup(self, worker: Worker) -> None:
        """Lay out the C half that both F and S use."""
        self._worker = worker
        self.op = self.entry.start(worker, self.out, self._initial)
        self._cell = ffi.new("mp_cell *")
        self._away = self.sends_away

    def task(self) -> tuple[Any, Any] | None:
        """Let the core hand on, unless an edge's key is a user's function."""
        out = self.out
        if out.by_function:
            return None
        passing = ffi.new("mp_passing *", [self.op, out.c_edges, out.edge_count, self._away])
        return ffi.addressof(lib, "mp_passer_run"), passing

    def activate(self) -> None:
        """Take the names of bins in, and hand on what has arrived."""
        worker, op, cell = self._worker, self.op, self._cell
        slot = worker.slot
        worker.check(lib.mp_passer_begin(slot, op))
        while worker.check(lib.mp_passer_next(slot, op, self._away, cell)):
            worker.push(self.out, cell)
        worker.check(lib.mp_applier_end(slot, op))


class DistributedStream(Stream):
    """The output of distribute.

    Attributes:
        operator: S, for inspection.
    """

    def __init__(self, graph: Graph, port: OutputPort, operator: Passer) -> None:
        super().__init__(graph, port)
        self.operator = operator


@stream_method
def distribute(
    stream: Stream,
    key: str | KeyFunction,
    *,
    hash: str = "mix",  # noqa: A002 - the field's word
    bin_shift: int = BIN_SHIFT_DEFAULT,
    control: Control | None = None,
    initial: Any = None,  # noqa: ANN401 - array-like
    name: str = "distribute",
    plain: bool = False,
) -> Stream:
    """Send each record to the worker that owns the bin of its key at the record's time.

    Args:
        stream: its input.
        key: the column that chooses the bin, or a function from a batch to uint64[n] hashes.
        hash: fnv, mix or dense, over a key column.
        bin_shift: log2 of the number of bins, 1 to 20.
        control: where migrations come from; None: bins stay.
        initial: worker of each bin at the start; bin i belongs to worker i % workers by default.
        name: for errors, reports and plans.
        plain: True is an exchange, with fixed owners and no control.

    Returns:
        The same records at the same times; a batch that all goes to one worker is handed on, not copied.

    Raises:
        GraphError: something does not fit; the message names the operator and the user's line.

    Cost: as an exchange, and a message between two operators of the same worker more. A record waits until the
    configuration of its time is final, not for others of its time.
    """
    if plain and (control is not None or initial is not None):
        wrong = "control or an initial map, and plain=True, whose owners are the exchange's: leave one of them out"
        raise graph_error(name, wrong)
    if plain:
        return exchange(stream, key, hash=hash, name=name)
    entry = make_entry(((stream, key),), name, control=control, hash=hash, bin_shift=bin_shift, plain=False)
    operator = Passer(entry, name, initial)
    return DistributedStream(stream.graph, operator.out, operator)
