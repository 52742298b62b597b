"""Dataflows for runs that recount; a module of its own, because workers import it by name."""

from __future__ import annotations

from typing import Any

import numpy as np

import megaphone.migration.operators  # noqa: F401 - registers the operators on Graph and Stream
from megaphone._core import lib
from megaphone.dataflow.recounting import RecountingWorker
from megaphone.dataflow.worker import Worker
from megaphone.migration.control import Move
from megaphone.state.stores import HashTable

ROUNDS, RECORDS, BIN_SHIFT = 30, 200, 3


def counting(graph: Any, transfer: str) -> Any:
    """Records counted by key, each once more a time later; some views are kept for a while."""
    words, stream = graph.input("words", {"k": "u8"})
    control = graph.control(words)
    kept: list[Any] = []

    def fold(context: Any) -> None:
        for time, segments in context.by_time():
            for segment in segments:
                context.output.send({"k": segment["k"], "n": context.state.add_emit(segment["k"])}, time=time)
                if time % 2 == 0:
                    context.post_date({"k": segment["k"]}, time + 1)
                kept.append(segment["k"])
                del kept[:-5]

    counts = stream.stateful_unary(
        key="k", state=HashTable("u8", {"n": "u8"}), fold=fold, columns={"k": "u8", "n": "u8"}, control=control,
        bin_shift=BIN_SHIFT, transfer=transfer, per_time=True, pending={"k": "u8"}, name="count",
    )  # fmt: skip
    return words, control, counts.probe()


def drive(worker: Worker, handles: Any, spoil_at: int = -1) -> int:
    """Send, and move bins all the while; returns how often the worker has recounted."""
    words, control, probe = handles
    for number in range(ROUNDS):
        words.send({"k": (np.arange(RECORDS) * (number + 1)) % 997})
        if worker.index == 0:
            moves = [Move(bin_id, (bin_id + number) % worker.peers) for bin_id in range(1 << BIN_SHIFT)]
            control.send_instructions(moves, at=control.time)
        if worker.index == 1 and number == spoil_at:
            worker.commit()
            lib.mp_ref_add_at(worker.slot, 5 * lib.mp_slab_bytes(worker.memory.control))
        words.advance_to(number + 1)
        worker.step_until(lambda: probe.frontier() >= words.time - 1)
    words.close()
    control.close()
    worker.run()
    return worker.recounts if isinstance(worker, RecountingWorker) else -1
