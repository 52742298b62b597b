"""Dataflows with two inputs for tests of worker processes; a module of its own, because workers import it by name."""

from __future__ import annotations

from typing import Any

import numpy as np

import megaphone.migration.operators  # noqa: F401 - registers the operators on Graph and Stream
from megaphone.dataflow.recounting import RecountingWorker
from megaphone.dataflow.worker import Worker
from megaphone.migration.control import Move
from megaphone.state.stores import HashTable

ROUNDS, RECORDS, BIN_SHIFT, LATER = 25, 150, 3, 2


def keys_of(number: int, side: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return what a worker sends to one side in one round."""
    return (np.arange(RECORDS, dtype=np.uint64) * np.uint64(number + 1 + side)) % np.uint64(97)


def joining(graph: Any, transfer: str = "handover", *, plain: bool = False) -> Any:
    """Counts of each key's records on both sides and of those that come back; each (key, count, kind) is captured."""
    left, left_stream = graph.input("left", {"k": "u8"})
    right, right_stream = graph.input("right", {"extra": "u4", "who": "u8"})
    control = None if plain else graph.control(left)

    def fold(context: Any) -> None:
        for time, *parts in context.by_side():
            for kind, name, segments in zip(range(3), ("k", "k", "who"), parts, strict=True):
                for segment in segments:
                    n, keys = context.state.add_emit(segment[name]), segment[name]
                    context.output.send({"k": keys, "n": n, "kind": np.full(len(keys), kind, np.uint8)}, time=time)
                    if kind == 1:
                        context.post_date({"k": keys}, time + LATER)

    counts = left_stream.stateful_binary(
        right_stream, left_key="k", right_key="who", state=HashTable("u8", {"n": "u8"}), fold=fold,
        columns={"k": "u8", "n": "u8", "kind": "u1"}, control=control, bin_shift=BIN_SHIFT, transfer=transfer,
        pending={"k": "u8"}, plain=plain, name="join",
    )  # fmt: skip
    spread = counts if plain else counts.distribute("k", control=control, bin_shift=BIN_SHIFT)
    spread.capture("counts")
    return left, right, control, spread.probe()


def drive(worker: Worker, handles: Any) -> int:
    """Send to both sides, and move every bin in every round; returns how often the worker has recounted."""
    left, right, control, probe = handles
    for number in range(ROUNDS):
        left.send({"k": keys_of(number, 0)})
        right.send({"extra": np.zeros(RECORDS, np.uint32), "who": keys_of(number, 1)})
        if worker.index == 0 and control is not None:
            moves = [Move(bin_id, (bin_id + number) % worker.peers) for bin_id in range(1 << BIN_SHIFT)]
            control.send_instructions(moves, at=control.time)
        left.advance_to(number + 1)
        right.advance_to(number + 1)
        worker.step_until(lambda: probe.frontier() >= left.time - 1)
    left.close()
    right.close()
    worker.run()
    return worker.recounts if isinstance(worker, RecountingWorker) else -1
