"""The rival that is an engine: Bytewax, a streaming engine for Python on timely dataflow.

      source (both workers) ── (target, numpy batch) ──> stateful_batch: one state per worker ──> sink, never used

Item by item, its idiom, it is hundreds of times slower; so here an item is a batch, keyed by the worker that it is
for, and the state of that key is the dense array of all its counts.  The workers are two processes, as everywhere
here: a batch for the other one is pickled and goes through a socket on the loopback.  A source has no credit in
Bytewax; so that what it sends does not pile up without limit, it looks at words that the workers share.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import mmap
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import numpy as np

from megaphone.bench.rivals.common import WORKERS, Rival, Share, Stream, Tally, Task, U64Array, main, routed
from megaphone.bench.rivals.pair import PING_WORDS, Patience, percentiles_us, run_pair, told, transport_batches
from megaphone.errors import MegaphoneError

# Bytewax places a key by its own hash of the string. These two go to worker 0 and to worker 1 of two; were it ever
# different, what arrives would be refused.
TARGETS: Final = ("4", "0")
WINDOW: Final = 32  # items on their way from one worker
PING_EVERY: Final = timedelta(milliseconds=1)

Items = list[tuple[str, Any]]


class Work(Protocol):
    """What one worker feeds into the dataflow, and what it does with what the dataflow brings."""

    awake: datetime | None

    def next_items(self) -> Items | None:
        """Return items, none when it is too early, or None at the end."""

    def take(self, item: Any) -> None:
        """Do with an item what the job says."""

    def share(self) -> Share:
        """Return what was done."""


class Window:
    """How many items of one worker are on their way.

    Owner: word (source, target) of the shared words is written by the target alone.
    """

    def __init__(self, taken: U64Array, me: int) -> None:
        self._taken, self._me = taken, me
        self.sent = 0
        self._patience = Patience()

    def on_their_way(self) -> int:
        """Return how many of my items have not been taken."""
        return self.sent - int(self._taken[self._me].sum())

    def is_full(self) -> bool:
        """Return whether to wait.

        Raises:
            MegaphoneError: it has been full for very long.
        """
        if self.on_their_way() < WINDOW:
            self._patience.renew()
            return False
        self._patience.lose()
        return True

    def take(self, source: int) -> None:
        """Say that an item of this source was taken here."""
        self._taken[source, self._me] += np.uint64(1)


class Counting:
    """The keyed count of one worker."""

    def __init__(self, task: Task, me: int, taken: U64Array) -> None:
        self._me, self._window = me, Window(taken, me)
        self._stream, self._tally = Stream(task, me), Tally(task, me)
        self._ones = np.ones(task.batch_records, np.uint64)
        self._started_ns = self._ended_ns = 0
        self.awake: datetime | None = None

    def next_items(self) -> Items | None:
        """Return a batch as an item for each worker."""
        now_ns = time.monotonic_ns()
        self._started_ns = self._started_ns or now_ns
        if self._window.is_full():
            self.awake = datetime.now(UTC)
            return []
        keys = self._stream.next(now_ns)
        if keys is None:
            return None
        own, theirs = routed(keys, self._me)
        items: Items = [
            (TARGETS[home], (self._me, part, self._ones[: len(part)]))
            for home, part in ((self._me, own), (1 - self._me, theirs))
            if len(part)
        ]
        self._window.sent += len(items)
        return items

    def take(self, item: Any) -> None:
        """Count the keys of an item."""
        source, keys, _values = item
        self._tally.add(keys)
        self._window.take(source)
        self._ended_ns = time.monotonic_ns()

    def share(self) -> Share:
        """Return what was made and counted, and when the last batch was."""
        ended_ns = max(self._ended_ns, self._started_ns)
        return Share(self._started_ns, ended_ns, self._stream.made, self._tally.records, self._tally.checksum())


class Transport:
    """Batches from worker 0 to worker 1, then one small item per millisecond that carries its time of sending."""

    def __init__(self, task: Task, me: int, taken: U64Array) -> None:
        self._me, self._window, self._task = me, Window(taken, me), task
        self._batches = transport_batches(task)
        self._sums = [int(batch.sum(dtype=np.uint64)) for batch in self._batches]
        self._started_ns = self._ended_ns = 0
        self._pings_until: datetime | None = None
        self._bytes = self._checksum = 0
        self._one_way_ns: list[int] = []
        self.awake: datetime | None = None

    def next_items(self) -> Items | None:
        """Return a batch, or what measures latency when there have been enough batches and all have arrived."""
        if self._me != 0:
            return None
        now_ns = time.monotonic_ns()
        self._started_ns = self._started_ns or now_ns
        self.awake = now = datetime.now(UTC)
        if self._window.is_full():
            return []
        if now_ns < self._started_ns + int(self._task.seconds * 1e9):
            turn = self._window.sent % len(self._batches)
            self._window.sent += 1
            self._bytes += self._task.batch_bytes
            self._checksum += self._sums[turn]
            return [(TARGETS[1], (0, self._batches[turn], None))]
        if self._window.on_their_way():
            return []
        if self._pings_until is None:
            self._pings_until = now + timedelta(seconds=self._task.seconds / 2)
        elif now > self._pings_until:
            return None
        self._window.sent += 1
        self.awake = now + PING_EVERY
        return [(TARGETS[1], (0, np.zeros(PING_WORDS, np.uint64), time.monotonic_ns()))]

    def take(self, item: Any) -> None:
        """Read a batch, or take the time."""
        now_ns = time.monotonic_ns()
        if self._me == 0:
            message = "worker 0 was brought what worker 1 is to read"
            raise MegaphoneError(message)
        source, words, sent_ns = item
        if sent_ns is None:
            self._started_ns = self._started_ns or now_ns
            self._checksum += int(words.sum(dtype=np.uint64))
            self._bytes += words.nbytes
            self._ended_ns = time.monotonic_ns()
        else:
            self._one_way_ns.append(now_ns - sent_ns)
        self._window.take(source)

    def share(self) -> Share:
        """Return what was sent, or what was read and how long small items took."""
        checksum = self._checksum % 2**64
        if self._me == 0:
            return Share(self._started_ns, self._started_ns, self._bytes, 0, checksum)
        return Share(self._started_ns, self._ended_ns, 0, self._bytes, checksum, percentiles_us(self._one_way_ns))


JOBS: Final[dict[str, Callable[[Task, int, U64Array], Work]]] = {"count": Counting, "transport": Transport}


def dataflow(work: Work, me: int, note: mmap.mmap) -> Any:
    """Return the dataflow, whose parts on this worker call `work`; what goes wrong there is written into `note`."""
    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.inputs import DynamicSource, StatelessSourcePartition
    from bytewax.operators import StatefulBatchLogic
    from bytewax.outputs import DynamicSink, StatelessSinkPartition

    # Bytewax passes an error on as its own, and the other worker's panic, which it causes, may well be heard first.
    @contextlib.contextmanager
    def noting() -> Iterator[None]:
        try:
            yield
        except Exception as error:
            note.seek(0)
            note.write(f"worker {me}: {told(error)}".encode()[: len(note)])
            raise

    class Partition(StatelessSourcePartition):
        def next_batch(self) -> Items:
            with noting():
                items = work.next_items()
            if items is None:
                raise StopIteration
            return items

        def next_awake(self) -> datetime | None:
            return work.awake

    class Source(DynamicSource):
        def build(self, _step_id: str, worker_index: int, worker_count: int) -> Partition:
            if (worker_index, worker_count) != (me, WORKERS):
                message = f"Bytewax calls this worker {worker_index} of {worker_count}; it is {me} of {WORKERS}"
                raise RuntimeError(message)
            return Partition()

    class State(StatefulBatchLogic):
        def on_batch(self, values: list[Any]) -> tuple[list[Any], bool]:
            with noting():
                for item in values:
                    work.take(item)
            return [], StatefulBatchLogic.RETAIN

        def snapshot(self) -> None:
            return None

    class Sink(DynamicSink):
        def build(self, _step_id: str, _worker_index: int, _worker_count: int) -> StatelessSinkPartition:
            return SinkPartition()

    class SinkPartition(StatelessSinkPartition):
        def write_batch(self, items: list[Any]) -> None:
            pass

    flow = Dataflow("rival")
    batches = op.input("batches", flow, Source())
    op.output("nothing", op.stateful_batch("state", batches, lambda _resume: State()), Sink())
    return flow


def run(task: Task) -> Sequence[Share]:
    """Do the task in a cluster of two processes."""
    addresses = _loopback_addresses()
    note = mmap.mmap(-1, mmap.PAGESIZE)
    taken = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.uint64, WORKERS * WORKERS).reshape(WORKERS, WORKERS)

    def work_in(me: int, start: Callable[[], None]) -> Share:
        from bytewax.testing import cluster_main

        work = JOBS[task.job](task, me, taken)
        flow = dataflow(work, me, note)
        start()
        cluster_main(flow, addresses, me)
        return work.share()

    try:
        return run_pair(task, work_in)
    except MegaphoneError:
        if why := bytes(note).rstrip(b"\0").decode(errors="replace"):
            raise MegaphoneError(why) from None
        raise


def _loopback_addresses() -> list[str]:
    """Return an address for each worker that nobody listened at a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return [f"127.0.0.1:{server.getsockname()[1]}" for server in (first, second)]


def version() -> str:
    """Import Bytewax and return its version."""
    import bytewax.dataflow  # noqa: F401 - whether it can be imported is the question

    return importlib.metadata.version("bytewax")


RIVAL: Final = Rival(
    name="bytewax",
    how={
        "count": "two processes of one worker; items are numpy batches keyed by the worker that counts them",
        "transport": "two processes of one worker; an item is a batch; latency from a time in one item per millisecond",
    },
    version=version,
    run=run,
)

if __name__ == "__main__":
    sys.exit(main(RIVAL))
