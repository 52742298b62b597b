"""A keyed count whose bins never rest: what the inspection is tried on. Run as a program of its own, or imported.

``python counting_program.py FILE WORKERS [TRANSFER]`` counts until FILE exists; it prints how many records were sent,
and the sum of all counts.
"""

from __future__ import annotations

import random
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import megaphone.migration.operators  # noqa: F401 - registers the operators on Graph and Stream
from megaphone.dataflow.execute import execute
from megaphone.migration.control import Move
from megaphone.state.stores import HashTable

BIN_SHIFT = 6
KEYS = 20_000
FEW, MANY = 200, 8_000


class Handles(NamedTuple):
    """What build gives to drive."""

    words: Any
    control: Any
    counts: Any
    probe: Any


def build(transfer: str, graph: Any) -> Handles:
    """An input, straight into a count."""
    words, stream = graph.input("words", {"key": "u8"})
    control = graph.control(words, lead=2)
    counts = stream.stateful_unary(
        key="key", state=HashTable("u8", {"count": "u8"}), fold=count, columns={"key": "u8", "count": "u8"},
        control=control, bin_shift=BIN_SHIFT, transfer=transfer, name="count",
    )  # fmt: skip
    return Handles(words, control, counts, counts.probe())


def count(context: Any) -> None:
    """Add one for each record."""
    context.add_emit("key")


def drive(end: str, worker: Any, handles: Handles) -> tuple[int, int]:
    """Send a little at each time, and move bins at most times; returns (records sent, sum of all counts here)."""
    words, control, counts, probe = handles
    chance = random.Random(worker.index)
    keys = np.random.default_rng(worker.index)
    sent = at = 0
    while not Path(end).exists():
        for _ in range(chance.randrange(3)):
            # Seldom so many that a stop falls into the middle of what routes or applies them.
            n = chance.randrange(1, MANY if chance.random() < 0.2 else FEW)
            words.send({"key": keys.integers(0, KEYS, n, dtype=np.uint64)})
            sent += n
        if worker.index == 0 and chance.random() < 0.5:
            moves = [Move(chance.randrange(1 << BIN_SHIFT), chance.randrange(worker.peers)) for _ in range(8)]
            control.send_instructions(moves)
        at += 1
        words.advance_to(at)
        # Not too far ahead of the others: what waits for a frontier is bounded by nothing but the memory.
        worker.step_until(lambda at=at: probe.frontier() + 4 >= at)
        if chance.random() < 0.2:
            time.sleep(0.0005)
    words.close()
    worker.run()
    return sent, sum(int(values["count"].sum()) for _, values in counts.state.items())


if __name__ == "__main__":
    result = execute(
        partial(build, sys.argv[3] if len(sys.argv) > 3 else "handover"), int(sys.argv[2]), partial(drive, sys.argv[1]),
        memory="64M", ring_cells=64,
    )  # fmt: skip
    print(*(sum(part) for part in zip(*result.returned, strict=True)))
