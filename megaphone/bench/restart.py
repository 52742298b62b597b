"""What users do today, beside what this engine does: stop and start again with other owners, or move the state.

    python -m megaphone.bench.restart --how restart --keys 10000000
    python -m megaphone.bench.restart --how migrate --keys 10000000

One of two workers owns all bins at first, and half of them in the end.  ``restart``: the first run ends, each worker
writes its keys and counts to a file, a second run starts with the new owners and reads them.  ``migrate``: one run, in
which the bins change their owner all at once.  Quoted is the longest time without output between the last record before
and the first after; records are offered on schedule all the while, a batch each millisecond.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from megaphone.dataflow.execute import execute
from megaphone.errors import InternalError, MegaphoneError, UsageError
from megaphone.migration.control import Move
from megaphone.state.stores import DenseArray
from megaphone.workloads.word_count import count_fold

if TYPE_CHECKING:
    from megaphone.dataflow.batch import Batch
    from megaphone.dataflow.graph import Graph
    from megaphone.dataflow.operators.input import Input
    from megaphone.dataflow.operators.probe import Probe
    from megaphone.dataflow.worker import Worker
    from megaphone.migration.operators.control import Control
    from megaphone.state.access import StoreAccess

WAYS: Final = ("migrate", "restart")
BIN_SHIFT: Final = 8
WORKERS: Final = 2
TICK_NS: Final = 1_000_000
TICK_RECORDS: Final = 1000
LOAD_RECORDS: Final = 1 << 16
LOADS_OUT_MAX: Final = 16


class Phase(NamedTuple):
    """One run.

    Attributes:
        keys: loaded before, in total.
        seconds: for which records are offered.
        seed: of their keys.
        owner: of each bin at the start.
        target: of each bin from the middle on; None: nothing moves.
        read: folder of files to load, else every key is loaded with a count of 1.
        write: folder to which the state goes in the end, or None.
    """

    keys: int
    seconds: float
    seed: int
    owner: tuple[int, ...]
    target: tuple[int, ...] | None
    read: str | None
    write: str | None


class Handles(NamedTuple):
    """What build gives to drive."""

    words: Input
    control: Control
    count: Any  # the operator that holds the state
    outputs: Outputs
    probe: Probe


class Part(NamedTuple):
    """What one worker brings home; times of the monotonic clock."""

    offered: int
    total: int
    first_ns: int
    last_ns: int
    gap_ns: int


class Outputs:
    """Sees every batch of results and remembers the longest time between two; nothing while state is loaded."""

    def __init__(self) -> None:
        self.first_ns = self.last_ns = self.gap_ns = 0
        self.from_time = 1 << 62

    def __call__(self, batch: Batch) -> None:
        """Look at the clock."""
        if batch.time < self.from_time or not batch.n:
            return
        now_ns = time.monotonic_ns()
        if self.last_ns:
            self.gap_ns = max(self.gap_ns, now_ns - self.last_ns)
        else:
            self.first_ns = now_ns
        self.last_ns = now_ns


def build(phase: Phase, graph: Graph) -> Handles:
    """Make the dataflow of a keyed count."""
    words, stream = graph.input("words", {"key": "u8", "value": "u8"})
    control = graph.control(words)
    counts = stream.stateful_unary(
        key="key", hash="dense", state=DenseArray({"count": "u8"}), fold=count_fold, control=control,
        columns={"key": "u8", "count": "u8"}, bin_shift=BIN_SHIFT, initial=np.array(phase.owner, np.uint32),
        name="count",
    )  # fmt: skip
    outputs = Outputs()
    return Handles(words, control, counts.operator, outputs, counts.inspect(outputs).probe())


def drive(phase: Phase, worker: Worker, handles: Handles) -> Part:
    """Load, offer records on schedule, move in the middle if the phase says so, and write the state."""
    words, control, _, outputs, probe = handles
    at = _load(phase, worker, words, probe)
    outputs.from_time = at
    rng = np.random.default_rng([phase.seed, worker.index])
    keys = rng.integers(0, phase.keys, (64, TICK_RECORDS), dtype=np.uint64)
    ones = np.ones(TICK_RECORDS, np.uint64)
    start_ns = due_ns = time.monotonic_ns()
    moved = phase.target is None or worker.index != 0
    ticks = int(phase.seconds * 1e9 / TICK_NS)
    for tick in range(ticks):
        if not moved and tick >= ticks // 2:
            assert phase.target is not None
            pairs = zip(phase.owner, phase.target, strict=True)
            control.send_instructions([Move(b, new) for b, (old, new) in enumerate(pairs) if old != new])
            moved = True
        words.send({"key": keys[tick % len(keys)], "value": ones})
        at += 1
        words.advance_to(at)
        due_ns = start_ns + tick * TICK_NS
        while (left_ns := due_ns - time.monotonic_ns()) > 0:
            if not worker.step():
                worker.park(left_ns)
            worker.raise_if_stopped()
        worker.step()
    words.close()
    worker.run()
    state: StoreAccess = handles.count.state
    total = _write(state, phase.write, worker.index)
    return Part(ticks * TICK_RECORDS, total, outputs.first_ns, outputs.last_ns, outputs.gap_ns)


def _load(phase: Phase, worker: Worker, words: Input, probe: Probe) -> int:
    """Send what the state begins with; returns the time from which on records count."""
    if phase.read is None:
        mine = np.arange(worker.index, phase.keys, WORKERS, dtype=np.uint64)
        counts = np.ones(len(mine), np.uint64)
    else:
        with np.load(Path(phase.read) / f"{worker.index}.npz") as file:
            mine, counts = file["key"], file["count"]
    for number, start in enumerate(range(0, len(mine), LOAD_RECORDS)):
        piece = slice(start, start + LOAD_RECORDS)
        words.send({"key": mine[piece], "value": counts[piece]})
        words.advance_to(number + 1)
        if number >= LOADS_OUT_MAX:
            worker.step_until(partial(probe.done, number - LOADS_OUT_MAX))
    # Workers load different numbers of pieces; records begin at a time that none of them has reached.
    begin = phase.keys // LOAD_RECORDS + 2
    words.advance_to(begin)
    worker.step_until(partial(probe.done, begin - 1))
    return begin


def _write(state: StoreAccess, folder: str | None, index: int) -> int:
    """Return the sum of this worker's counts, and write them to a file if there is a folder."""
    keys, counts = [], []
    for key, values in state.items():
        keys.append(np.array(key))
        counts.append(np.array(values["count"]))
    all_keys = np.concatenate(keys) if keys else np.zeros(0, np.uint64)
    all_counts = np.concatenate(counts) if counts else np.zeros(0, np.uint64)
    if folder is not None:
        np.savez(Path(folder) / f"{index}.npz", key=all_keys, count=all_counts)
    return int(all_counts.sum())


def measure(how: str, keys: int, seconds: float, seed: int) -> dict[str, Any]:
    """Return the time without output, and what was counted.

    Raises:
        UsageError: there are too few keys, or no time.
        InternalError: something was lost on the way.
    """
    if keys < 1 << BIN_SHIFT or seconds < 0.1:
        message = f"--keys {keys} --seconds {seconds:g}: give {1 << BIN_SHIFT} keys or more, and 0.1 s or more"
        raise UsageError(message)
    before = (0,) * (1 << BIN_SHIFT)
    after = tuple(bin_id % WORKERS for bin_id in range(1 << BIN_SHIFT))
    if how == "migrate":
        parts = _run(Phase(keys, seconds, seed, before, after, None, None))
        gap_ns = max(part.gap_ns for part in parts if part.offered)
        offered = sum(part.offered for part in parts)
    else:
        with tempfile.TemporaryDirectory(prefix="megaphone-") as folder:
            first = _run(Phase(keys, seconds / 2, seed, before, None, None, folder))
            parts = _run(Phase(keys, seconds / 2, seed + 1, after, None, folder, None))
        starts, ends = [part.first_ns for part in parts], [part.last_ns for part in first]
        gap_ns = min(start for start in starts if start) - max(ends)
        offered = sum(part.offered for part in (*first, *parts))
    total = sum(part.total for part in parts)
    if total != keys + offered:
        message = f"{how}: counts add up to {total}, not to {keys + offered}"
        raise InternalError(message)
    return {"how": how, "keys": keys, "without_output_ms": gap_ns / 1e6, "counted": total}


def _run(phase: Phase) -> list[Part]:
    returned: list[Part] = execute(partial(build, phase), workers=WORKERS, drive=partial(drive, phase)).returned
    return returned


def main() -> int:
    """Measure once and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--how", choices=WAYS, default="migrate", help="migrate, or restart (default migrate)")
    parser.add_argument("--keys", type=int, default=1_000_000, help="of the state (default 1000000)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for which records are offered (default 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="a file for the figures, as JSON")
    arguments = parser.parse_args()
    try:
        told = measure(arguments.how, arguments.keys, arguments.seconds, arguments.seed)
    except MegaphoneError as error:
        sys.stderr.write(f"restart: {error}\n")
        return error.exit_code
    for name, value in told.items():
        sys.stdout.write(f"{name:20}{f'{value:.3f}' if isinstance(value, float) else value}\n")
    if arguments.report is not None:
        arguments.report.write_text(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
