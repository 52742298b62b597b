"""Transport alone: records that every worker makes in place and scatters to all, with the ledger.

::

    loan -> filled in place -> scattered into the targets' slabs (1 copy) -> read once -> gone
"""

from __future__ import annotations

from functools import partial
from resource import RUSAGE_SELF, getrusage
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from megaphone._core import ffi, lib
from megaphone.dataflow.execute import execute
from megaphone.dataflow.graph import EXCHANGE, Operator, Pact
from megaphone.errors import InternalError
from megaphone.observe.ledger import Ledger
from megaphone.observe.machine import describe_machine
from megaphone.observe.report import Memory, Report
from megaphone.shm.counters import COUNTER_INDEX
from megaphone.version import __version__
from megaphone.workloads.driver import start_together

if TYPE_CHECKING:
    from megaphone.dataflow.graph import Graph
    from megaphone.dataflow.operators.input import Input
    from megaphone.dataflow.stream import Stream
    from megaphone.dataflow.worker import Worker
    from megaphone.workloads.settings import ExchangeSettings

BATCHES_OUT_MAX: Final = 8
SLABS_AHEAD: Final = 40
"""What so many batches, made and scattered, need at the most, with a slab of rest in each."""
WORD_BYTES: Final = 8
"""Bytes of each value of a bytes column."""


class Receiver(Operator):
    """Takes what the exchange brings, reads it once and lets it go.

    Attributes:
        sums: records, and the sum of their keys modulo 2**64.
    """

    def __init__(self, stream: Stream, key: str) -> None:
        super().__init__(stream.graph, "receiver")
        self.port = self.add_input(stream, Pact(EXCHANGE, key, "mix"))
        self.sums = ffi.new("uint64_t[2]")

    def setup(self, worker: Worker) -> None:
        """Remember the slot."""
        self._worker = worker

    def activate(self) -> None:
        """Read and let go."""
        rc = lib.mp_exchange_sink(self._worker.slot, self.port.location, self.port.schema.c, self.sums)
        if rc < 0:
            self._worker.check(rc)

    def frontier(self) -> int:
        """Return the least time that may still arrive."""
        return int(lib.mp_frontier(self._worker.slot, self.port.location))


class Handles(NamedTuple):
    """What build gives to drive."""

    records: Input
    receiver: Receiver


class Sent(NamedTuple):
    """What one worker brings home."""

    records: int
    end_ns: int
    sum_sent: int
    records_received: int
    sum_received: int
    at_warm_up: dict[str, int]


def build(settings: ExchangeSettings, graph: Graph) -> Handles:
    """Make an input, an exchange, and its receiver."""
    types = settings.column_types()
    columns = {name: kind if kind == "bytes" else np.dtype(_numpy(kind)) for name, kind in types.items()}
    records, stream = graph.input("records", columns)
    return Handles(records, Receiver(stream, next(iter(columns))))


def _numpy(kind: str) -> str:
    """Return numpy's name of a column type: u64 is u8 there, which counts bytes."""
    return f"{kind[0]}{int(kind[1:]) // 8}"


def drive(settings: ExchangeSettings, worker: Worker, handles: Handles) -> Sent:
    """Send this worker's share as fast as it goes; warm up first, then count."""
    records, receiver = handles
    share = settings.records // worker.peers + (worker.index < settings.records % worker.peers)
    names = list(records.schema.names)
    row_bytes = records.schema.row_bytes + WORD_BYTES * sum(records.schema.dtype(name) is None for name in names)
    # A batch of more than a slab would take chunks of its own, and a fresh allocation each.
    batch_records = min(settings.batch_records, worker.records_per_slab(row_bytes, 2 * len(names)))
    rooms = {name: WORD_BYTES * batch_records for name in names if records.schema.dtype(name) is None}
    worker.prepare_slabs(SLABS_AHEAD)
    faults = getrusage(RUSAGE_SELF).ru_minflt
    origin = start_together(worker)
    if settings.times:
        worker.times.measure()
    state = ffi.new("uint64_t[2]", [worker.index << 40, 0])  # next key, sum of keys
    sent = time = 0
    at_warm_up: dict[str, int] = {}
    while sent < share:
        if not at_warm_up and sent >= share // 10:
            at_warm_up = worker.counters()
        while time - receiver.frontier() >= BATCHES_OUT_MAX:
            if not worker.step():
                worker.park(50_000_000)
            worker.raise_if_stopped()
        n = min(batch_records, share - sent)
        loan = records.loan(n, bytes_room=rooms or None)
        lib.mp_exchange_fill(ffi.cast("uint64_t *", loan.pointer(names[0])), n, state)
        for name in names[1:]:
            fill(loan, name, n)
        records.send(loan)
        sent += n
        time += 1
        if time % 8 == 0:
            lib.mp_slab_pinned_bytes(worker.slot)  # a sample of the gauge
        records.advance_to(time)
        worker.step()
    records.close()
    worker.run()
    end = int(lib.mp_now_ns()) - origin
    lib.mp_slab_pinned_bytes(worker.slot)
    lib.mp_counter_add(worker.slot, COUNTER_INDEX["minor_faults"], getrusage(RUSAGE_SELF).ru_minflt - faults)
    return Sent(sent, end, int(state[1]), int(receiver.sums[0]), int(receiver.sums[1]), at_warm_up)


def fill(loan: Any, name: str, n: int) -> None:  # noqa: ANN401 - a Loan
    """Write something into a column that is not the key."""
    column = loan[name]
    if isinstance(column, tuple):
        offsets, data = column
        offsets[: n + 1] = np.arange(0, WORD_BYTES * n + 1, WORD_BYTES, dtype=np.uint32)
        data[: WORD_BYTES * n] = 0x61
    else:
        column[:n] = 1


def run(settings: ExchangeSettings) -> Report:
    """Run an exchange and report it.

    Raises:
        UsageError: the settings cannot be run.
        InternalError: what was received is not what was sent.
    """
    settings.check()
    result = execute(
        partial(build, settings), workers=settings.workers, drive=partial(drive, settings),
        memory=settings.memory_bytes, measure_memory=True,
    )  # fmt: skip
    parts: list[Sent] = result.returned
    sent, received = sum(p.records for p in parts), sum(p.records_received for p in parts)
    sum_sent, sum_received = sum(p.sum_sent for p in parts) % 2**64, sum(p.sum_received for p in parts) % 2**64
    if (sent, sum_sent) != (received, sum_received):
        message = f"exchange: {sent} records with key sum {sum_sent} were sent, {received} with {sum_received} received"
        raise InternalError(message)
    seconds = max(p.end_ns for p in parts) / 1e9
    return Report(
        command="exchange",
        version=__version__,
        machine=describe_machine(),
        workers=settings.workers,
        records=sent,
        seconds=seconds,
        ledger=Ledger.of(
            result.counters,
            [p.at_warm_up for p in parts] if all(p.at_warm_up for p in parts) else None,
            has_times=settings.times,
        ),
        memory=Memory.of(result),
        hash="mix",
        checksum_outputs=sum_received,
    )
