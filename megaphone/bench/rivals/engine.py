"""This engine, asked what the rivals are asked: the same records, the same counts, the same checksum.

The count is an ordinary dataflow with all that the rivals leave out: keys are routed through bins, every batch has a
time, frontiers tell when it is done, and any bin could move at any moment.  What a worker makes is an array of its own,
as for the rivals, which is scattered straight into the batches of both workers.  Transport is a batch that is filled in
place and read where it lies.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from megaphone.bench.rivals.common import RECORD_BYTES, WORKERS, Rival, Share, Stream, Task, main, mixed
from megaphone.bench.rivals.pair import PING_WORDS, percentiles_us, transport_batches
from megaphone.dataflow.execute import execute
from megaphone.dataflow.operators.probe import NEVER
from megaphone.state.stores import DenseArray
from megaphone.version import __version__
from megaphone.workloads.sink import Sink
from megaphone.workloads.word_count import count_fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from megaphone.dataflow.batch import Batch
    from megaphone.dataflow.graph import Graph
    from megaphone.dataflow.operators.input import Input
    from megaphone.dataflow.operators.probe import Probe
    from megaphone.dataflow.worker import Worker

BATCHES_OUT_MAX: Final = 8


class Count(NamedTuple):
    """What the count's build gives to its drive."""

    records: Input
    count: Any  # the operator that holds the state
    sink: Sink


def build_count(graph: Graph) -> Count:
    """Make a keyed count over dense arrays, which can migrate."""
    records, stream = graph.input("records", {"key": "u8", "value": "u8"})
    counts = stream.stateful_unary(
        key="key", hash="dense", state=DenseArray({"count": "u8"}), fold=count_fold, control=graph.control(records),
        columns={"key": "u8", "count": "u8"}, name="count",
    )  # fmt: skip
    return Count(records, counts.operator, Sink(counts))


def drive_count(task: Task, worker: Worker, handles: Count) -> Share:
    """Send this worker's batches, a logical time each, at most so many of them under way."""
    records, count, sink = handles
    # The counters of the rivals are there, and touched, before their clocks start.
    _send_loading(task, worker, records, sink)
    stream = Stream(task, worker.index)
    ones = np.ones(task.batch_records, np.uint64)
    begin = at = records.time
    started_ns = time.monotonic_ns()
    while (keys := stream.next(time.monotonic_ns())) is not None:
        records.send({"key": keys, "value": ones[: len(keys)]})
        at += 1
        records.advance_to(at)
        worker.step()
        while at - begin > BATCHES_OUT_MAX and not sink.done(at - BATCHES_OUT_MAX):
            if not worker.step():
                worker.park(50_000_000)
            worker.raise_if_stopped()
    records.close()
    worker.run()
    ended_ns = time.monotonic_ns()
    total = counted = 0
    for key, values in count.state.items():
        # Each key was loaded with a record that the rivals do not have.
        counts = np.array(values["count"]) - np.uint64(1)
        total += int((mixed(np.array(key)) * counts).sum(dtype=np.uint64))
        counted += int(counts.sum())
    return Share(started_ns, ended_ns, stream.made, counted, total % 2**64)


def _send_loading(task: Task, worker: Worker, records: Input, sink: Sink) -> None:
    mine = np.arange(worker.index, task.domain, WORKERS, dtype=np.uint64)
    for piece in np.array_split(mine, len(mine) // (1 << 16) + 1):
        records.send({"key": piece, "value": np.ones(len(piece), np.uint64)})
        worker.step()
    records.advance_to(1)
    worker.step_until(partial(sink.done, 0))


class Seen:
    """Reads what comes to one worker of a broadcast."""

    def __init__(self) -> None:
        self.words = self.total = self.count = 0
        self.listens = True

    def __call__(self, batch: Batch) -> None:
        """Add all words up, where this worker is meant."""
        if self.listens:
            words: Any = batch["word"]
            self.total = (self.total + int(words.sum(dtype=np.uint64))) % 2**64
            self.words += batch.n
            self.count += 1


class Lane(NamedTuple):
    """One input whose batches go to all workers by reference."""

    made: Input
    seen: Seen
    probe: Probe


class Transport(NamedTuple):
    """What transport's build gives to its drive."""

    batches: Lane
    pings: Lane
    pongs: Lane


def build_transport(graph: Graph) -> Transport:
    """Make three lanes."""

    def lane(name: str) -> Lane:
        made, stream = graph.input(name, {"word": "u8"})
        seen = Seen()
        return Lane(made, seen, stream.broadcast(name=f"{name} to all").inspect(seen, name=f"read {name}").probe(name))

    return Transport(lane("batches"), lane("pings"), lane("pongs"))


def drive_transport(task: Task, worker: Worker, handles: Transport) -> Share:
    """Send batches one way and read every byte of them; then 64 bytes to and fro, halved."""
    handles.batches.seen.listens = handles.pings.seen.listens = worker.index == 1
    handles.pongs.seen.listens = worker.index == 0
    worker.prepare_slabs(40)
    share = _stream(task, worker, handles) if worker.index == 0 else _read(worker, handles)
    worker.run()
    return share


def _stream(task: Task, worker: Worker, handles: Transport) -> Share:
    batches, _, probe = handles.batches
    made = transport_batches(task)
    sums = [int(batch.sum(dtype=np.uint64)) for batch in made]
    handles.pongs.made.close()
    started_ns = time.monotonic_ns()
    end_ns = started_ns + int(task.seconds * 1e9)
    sent = total = 0
    while time.monotonic_ns() < end_ns:
        turn = sent % len(made)
        loan = batches.loan(made.shape[1])
        loan["word"][:] = made[turn]
        batches.send(loan)
        total += sums[turn]
        sent += 1
        batches.advance_to(sent)
        worker.step()
        while sent > BATCHES_OUT_MAX and not probe.done(sent - BATCHES_OUT_MAX):
            if not worker.step():
                worker.park(50_000_000)
            worker.raise_if_stopped()
    batches.close()
    worker.step_until(partial(probe.done, sent))
    ended_ns = time.monotonic_ns()
    one_way_us = _ping(worker, handles, ended_ns + int(task.seconds / 2 * 1e9))
    return Share(started_ns, ended_ns, sent * task.batch_bytes, 0, total % 2**64, one_way_us)


def _ping(worker: Worker, handles: Transport, end_ns: int) -> tuple[float, float]:
    ping = np.arange(PING_WORDS, dtype=np.uint64)
    taken_ns: list[float] = []
    while not taken_ns or time.monotonic_ns() < end_ns:
        answers, before_ns = handles.pongs.seen.count, time.monotonic_ns()
        handles.pings.made.send({"word": ping})
        while handles.pongs.seen.count == answers:
            _poll(worker)
        taken_ns.append((time.monotonic_ns() - before_ns) / 2)
    handles.pings.made.close()
    return percentiles_us(np.array(taken_ns))


def _poll(worker: Worker) -> None:
    """Step without ever sleeping, as the rivals do."""
    if not worker.step():
        worker.raise_if_stopped()
        os.sched_yield()


def _read(worker: Worker, handles: Transport) -> Share:
    """Read, and answer each ping, until the other side has closed its pings."""
    handles.batches.made.close()
    handles.pings.made.close()
    pong = np.arange(PING_WORDS, dtype=np.uint64)
    started_ns = time.monotonic_ns()
    answered = 0
    while handles.pings.probe.frontier() != NEVER:
        _poll(worker)
        if handles.pings.seen.count > answered:
            answered += 1
            handles.pongs.made.send({"word": pong})
    handles.pongs.made.close()
    # The clock of the other side ends when its last batch has been read here.
    return Share(started_ns, started_ns, 0, 8 * handles.batches.seen.words, handles.batches.seen.total)


def run(task: Task) -> Sequence[Share]:
    """Do the task with two workers."""
    if task.job == "count":
        return list(execute(build_count, workers=WORKERS, drive=partial(drive_count, task)).returned)
    return list(execute(build_transport, workers=WORKERS, drive=partial(drive_transport, task)).returned)


RIVAL: Final = Rival(
    name="engine",
    how={
        "count": f"this engine: records of {RECORD_BYTES} bytes through bins, with times and frontiers, state can move",
        "transport": "this engine: batches filled in place and read where they lie; latency by ping-pong, halved",
    },
    version=lambda: __version__,
    run=run,
)

if __name__ == "__main__":
    sys.exit(main(RIVAL))
