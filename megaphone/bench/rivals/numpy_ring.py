"""The plain rival: what a capable user writes by hand in an hour, numpy over shared memory and nothing else.

A ring of slots per direction in an anonymous shared mapping.  No hashing, no time, no frontiers, no migration, no
wake-ups (it spins), and head and tail are plain numpy words, which is only safe where stores stay in order.  It shows
what the machine gives numpy at that minute, which is what the engine's figures are put beside.

        0      head, written by the reader          64  tail, written by the writer
        128    words in each slot                   192 slots, each of the largest message
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Sequence
from typing import Final

import numpy as np

from megaphone.bench.rivals.common import WORKERS, Rival, Share, Task, main
from megaphone.bench.rivals.pair import JOBS, SLOTS, Message, column_count, columns_of, run_pair

LINE: Final = 64


class Ring:
    """One direction.  Owner: the writer writes tail, lengths and slots, the reader head; positions run freely."""

    def __init__(self, shared: mmap.mmap, at: int, words_max: int) -> None:
        self.head = np.frombuffer(shared, np.uint64, 1, at)
        self.tail = np.frombuffer(shared, np.uint64, 1, at + LINE)
        self.lengths = np.frombuffer(shared, np.uint64, SLOTS, at + 2 * LINE)
        self.slots = np.frombuffer(shared, np.uint64, SLOTS * words_max, at + 3 * LINE).reshape(SLOTS, words_max)

    @staticmethod
    def size_bytes(words_max: int) -> int:
        """Return what a ring needs, in whole lines."""
        return 3 * LINE + -(-SLOTS * words_max * 8 // LINE) * LINE


class RingLink:
    """One worker's ends of the two rings."""

    def __init__(self, outgoing: Ring, incoming: Ring, columns: int) -> None:
        self._out, self._in, self._columns = outgoing, incoming, columns
        self._sent = self._received = 0
        self._holds = False

    def send(self, message: Message) -> bool:
        """Copy the message into a slot, or return False: the ring is full."""
        ring = self._out
        if self._sent - int(ring.head[0]) >= SLOTS:
            return False
        slot = self._sent % SLOTS
        at = 0
        for column in message:
            ring.slots[slot, at : at + len(column)] = column
            at += len(column)
        ring.lengths[slot] = at
        self._sent += 1
        ring.tail[0] = self._sent
        return True

    def receive(self, wait: bool = False) -> Message | None:
        """Return views of the next slot, which is given back by the next call, or None: the ring is empty."""
        ring = self._in
        if self._holds:
            self._received += 1
            ring.head[0] = self._received
            self._holds = False
        if int(ring.tail[0]) == self._received:
            if wait:
                os.sched_yield()
            return None
        self._holds = True
        slot = self._received % SLOTS
        return columns_of(ring.slots[slot, : int(ring.lengths[slot])], self._columns)

    def close(self) -> None:
        """Do nothing: the mapping has no name and goes with the last process."""


def run(task: Task) -> Sequence[Share]:
    """Do the task over two rings."""
    words_max = task.batch_bytes // 8
    size = Ring.size_bytes(words_max)
    shared = mmap.mmap(-1, WORKERS * size)
    rings = [Ring(shared, me * size, words_max) for me in range(WORKERS)]
    links = [RingLink(rings[me], rings[1 - me], column_count(task)) for me in range(WORKERS)]
    return run_pair(task, lambda me, start: JOBS[task.job](links[me], task, me, start))


RIVAL: Final = Rival(
    name="numpy_ring",
    how={
        "count": "two processes, a ring of 8 slots per direction in shared memory, polled",
        "transport": "a ring of 8 slots in shared memory, polled; latency by ping-pong, halved",
    },
    version=lambda: f"numpy {np.__version__}",
    run=run,
)

if __name__ == "__main__":
    sys.exit(main(RIVAL))
