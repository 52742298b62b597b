"""Every place that can name a batch is looked at when references are counted anew."""

from __future__ import annotations

from typing import Any

import numpy as np

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import Batch
from tests.unit.dataflow.runs import Run

RING_CELLS = 64


def difference(run: Run, slot: int) -> dict[str, int]:
    """Return what a recount of a slot's references finds wrong; empty if they are right."""
    memory = run.simulation.memory
    look = lib.mp_look_open(memory.control, memory.data)
    out = ffi.new("mp_difference *")
    try:
        found = lib.mp_refs_recount(look, slot, ffi.NULL, 0, out)
        assert found >= 0
        return {"counted": int(out.counted), "found": int(out.found)} if found else {}
    finally:
        lib.mp_look_close(look)


def test_references_add_up_where_messages_wait_in_inbox_ring_and_outbox() -> None:
    def to_the_last(batch: Batch) -> Any:
        return np.full(batch.n, 2**64 - 1, np.uint64)

    with Run({"n": "u8"}, lambda s: s.exchange(to_the_last), slots=2, ring_cells=RING_CELLS, late=False) as run:
        sender, receiver = run.simulation.workers
        run.inputs[0].in_flight_bytes_max = 1 << 30
        for number in range(3 * RING_CELLS):
            run.send({"n": [number]})
        sender.commit()
        sender.take_back()
        assert run.counter("outbox") > RING_CELLS
        assert [difference(run, slot) for slot in (0, 1)] == [{}, {}]  # in ring and outbox
        assert lib.mp_receive(receiver.slot) == 0
        assert lib.mp_queued_cells(run.simulation.memory.control, 1) >= RING_CELLS // 2
        assert [difference(run, slot) for slot in (0, 1)] == [{}, {}]  # in inbox and outbox
        lib.mp_ref_add_at(sender.slot, 64 * 1024)
        assert difference(run, 0), "one that is too many is told"
        lib.mp_ref_drop_at(sender.slot, 64 * 1024)
        run.finish()
        assert [difference(run, slot) for slot in (0, 1)] == [{}, {}]
