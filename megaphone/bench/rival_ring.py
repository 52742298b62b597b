"""The plain rival: what a capable user writes by hand in an hour, numpy over shared memory and nothing else.

Two processes; each makes batches of (key, 1), gives the odd keys to one and the even ones to the other through a ring
of slots in an anonymous shared mapping, and counts what reaches it in an array.  No hashing, no time, no frontiers, no
migration, no wake-ups (it spins), and head and tail are plain numpy words, which is only safe where stores stay in
order.  It shows what the machine gives numpy at that minute, which is what the engine's figures are put beside.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import sys
import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt

SLOTS: Final = 8
WORKERS: Final = 2


def run(domain: int, seconds: float, batch_bytes: int) -> float:
    """Count for some seconds with two processes and return the records per second of both together.

    Args:
        domain: keys are uniform in [0, domain).
        seconds: how long to offer records.
        batch_bytes: of 16-byte records in one batch.

    Returns:
        Records counted per second.
    """
    n = batch_bytes // 16
    # Per direction: head and tail on lines of their own, lengths, and slots of n keys and n values.
    lane_bytes = 128 + 8 * SLOTS + SLOTS * n * 16
    shared = mmap.mmap(-1, 4096 + WORKERS * lane_bytes)
    totals = np.frombuffer(shared, np.uint64, WORKERS, 64)
    ready = np.frombuffer(shared, np.uint64, WORKERS, 0)
    children = []
    for me in range(WORKERS):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                totals[me] = _work(shared, me, n, lane_bytes, domain, seconds, ready)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    failed = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    if any(failed):
        message = f"the rival's processes ended with {failed}"
        raise RuntimeError(message)
    return float(totals.sum()) / seconds


def _lane(shared: mmap.mmap, number: int, n: int, lane_bytes: int) -> tuple[npt.NDArray[Any], ...]:
    at = 4096 + number * lane_bytes
    head = np.frombuffer(shared, np.uint64, 1, at)
    tail = np.frombuffer(shared, np.uint64, 1, at + 64)
    lengths = np.frombuffer(shared, np.uint64, SLOTS, at + 128)
    records = np.frombuffer(shared, np.int64, SLOTS * 2 * n, at + 128 + 8 * SLOTS).reshape(SLOTS, 2, n)
    return head, tail, lengths, records


def _work(
    shared: mmap.mmap, me: int, n: int, lane_bytes: int, domain: int, seconds: float, ready: npt.NDArray[np.uint64]
) -> int:
    head_in, tail_in, lengths_in, records_in = _lane(shared, me, n, lane_bytes)
    head_out, tail_out, lengths_out, records_out = _lane(shared, 1 - me, n, lane_bytes)
    counts = np.zeros(domain // WORKERS + 1, np.int64)
    rng = np.random.default_rng(me)
    # Making keys is not what is compared: a pool of them is used again and again.
    pool = [rng.integers(0, domain, n) for _ in range(16)]
    ones = np.ones(n, np.int64)
    ready[me] = 1
    while not ready.all():
        time.sleep(0)
    counted = turn = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if int(tail_out[0]) - int(head_out[0]) < SLOTS:
            keys = pool[turn % len(pool)]
            turn += 1
            mine = (keys & 1) == me
            theirs = keys[~mine]
            slot = int(tail_out[0]) % SLOTS
            records_out[slot, 0, : len(theirs)] = theirs
            records_out[slot, 1, : len(theirs)] = ones[: len(theirs)]
            lengths_out[slot] = len(theirs)
            tail_out[0] += np.uint64(1)
            own = keys[mine]
            np.add.at(counts, own >> 1, 1)
            counted += len(own)
        while int(tail_in[0]) != int(head_in[0]):
            slot = int(head_in[0]) % SLOTS
            length = int(lengths_in[slot])
            np.add.at(counts, records_in[slot, 0, :length] >> 1, 1)
            head_in[0] += np.uint64(1)
            counted += length
    if int(counts.sum()) != counted:
        message = f"{int(counts.sum())} counted, {counted} received"
        raise RuntimeError(message)
    return counted


def main() -> int:
    """Run once and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domain", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--batch-bytes", type=int, default=256 << 10)
    arguments = parser.parse_args()
    rate = run(arguments.domain, arguments.seconds, arguments.batch_bytes)
    sys.stdout.write(json.dumps({"records_per_s": rate, **vars(arguments)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
