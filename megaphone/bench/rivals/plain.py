"""No rival but the ceiling: numpy in two processes that exchange nothing.

Count: each process is given the keys of its own home, routed before the time starts, and counts them.  Transport: one
copies batches into a buffer of its own, the other sums batches of its own; the slower of the two is the rate.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from megaphone.bench.rivals.common import POOL_RECORDS, Rival, Share, Tally, Task, main, pool
from megaphone.bench.rivals.pair import run_pair, transport_batches


def count_alone(task: Task, me: int, start: Callable[[], None]) -> Share:
    """Count the records of one home, in batches."""
    keys = pool(task)
    mine = (keys & np.uint64(1)) == np.uint64(me)
    own = keys[mine]
    # Of a fixed sequence of records, those of this home are this home's keys again and again, and part of a last time.
    left: int | None = None
    if task.records is not None:
        rounds, rest = divmod(task.records, POOL_RECORDS)
        left = rounds * len(own) + int(np.count_nonzero(mine[:rest]))
    n = task.batch_records
    own_twice = np.resize(own, len(own) + n) if len(own) else own
    tally = Tally(task, me)
    start()
    started_ns = time.monotonic_ns()
    end_ns = started_ns + int(task.seconds * 1e9)
    while len(own) and (tally.records < left if left is not None else time.monotonic_ns() < end_ns):
        at = tally.records % len(own)
        tally.add(own_twice[at : at + (n if left is None else min(n, left - tally.records))])
    return Share(started_ns, time.monotonic_ns(), tally.records, tally.records, tally.checksum())


def copy_or_sum(task: Task, me: int, start: Callable[[], None]) -> Share:
    """Copy batches, or sum batches, for some seconds; both say how many bytes."""
    batches = transport_batches(task)
    buffer = np.zeros_like(batches)
    start()
    started_ns = time.monotonic_ns()
    end_ns = started_ns + int(task.seconds * 1e9)
    turns = 0
    while time.monotonic_ns() < end_ns:
        turn = turns % len(batches)
        if me == 0:
            buffer[turn] = batches[turn]
        else:
            batches[turn].sum(dtype=np.uint64)
        turns += 1
    return Share(started_ns, time.monotonic_ns(), turns * task.batch_bytes, 0, 0)


def run(task: Task) -> Sequence[Share]:
    """Do the task without any exchange."""
    if task.job == "count":
        return run_pair(task, lambda me, start: count_alone(task, me, start))
    shares = run_pair(task, lambda me, start: copy_or_sum(task, me, start))
    slower = min(share.made for share in shares)
    return [shares[0]._replace(made=slower), shares[1]._replace(made=0, done=slower)]


RIVAL: Final = Rival(
    name="plain",
    how={
        "count": "two processes, keys routed beforehand, nothing exchanged",
        "transport": "one process copies, the other sums, nothing is exchanged: the slower of the two; no latency",
    },
    version=lambda: f"numpy {np.__version__}",
    run=run,
)

if __name__ == "__main__":
    sys.exit(main(RIVAL))
