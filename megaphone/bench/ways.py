"""One way of records through the engine at a time, and what it costs: copies, allocations, page faults, time.

    python -m megaphone.bench.ways --way exchange --batch 8192 --columns 2 -w 2 --records 20000000

    keep       loan -> filled in place -> read on the same worker           no copy: what making and reading costs
    exchange   loan -> filled in place -> scattered -> read                 1 copy
    arrays     the user's own arrays -> scattered -> read                   1 copy: straight from them
    own        as exchange; the reader takes writable copies of its own     2 copies
    broadcast  loan -> filled in place -> a reference for each worker -> read    no copy
    tee        loan -> filled in place -> read by two operators             no copy
    views      as exchange; the reader keeps views of its last 64 batches   1 copy, and memory that stays pinned
    jumbo      as exchange, in batches of four slabs                        1 copy, and an allocation for each batch

Sums of keys are compared at the end, so that no way is fast because it lost something.  Unless ``--no-times`` is given,
the time is divided, too.  All of it is ns per record, over all workers, after the warm-up::

    cpu_ns_per_record      processor time of the workers, user and system
      copies               kernels that copy a batch, each cause as ``scatter_ns_per_record``, too.  An exchange finds a
                           record's target in the pass that writes it: routing is included, without a time of its own
      allocation           slab_scan, slab_fresh, blocks: looking for a slab to use again, carving one, blocks
      rest                 all else: making records and reading them, Python, progress, parking
    system_ns_per_record   of the processor time, what the system had: page faults, calls, sleep and waking
    faults_ns_estimated    page faults x first touch of a page, by as many processes at once, up to two, right after

The parts of the first line are disjoint: kernels read their thread's processor clock at both ends, and the innermost
counts; see ``timing.h``.  Their sum is at most the processor time.  System time and faults are another cut through the
same time: a page fault happens within a copy, an allocation or the rest, so neither may be added to those.  No counter
tells the time of a page fault to whoever has no privilege (root has tracepoints): so there is the count, times what a
first touch costs.  That is too much for a page that is in memory and only has to be mapped.  System time is what the
kernel finds when it looks at each tick, every 4 ms or so: right on the average of a long run, and too coarse for one of
less than a second.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from megaphone._core import lib
from megaphone.bench.yardstick import measure
from megaphone.dataflow.execute import execute
from megaphone.errors import InternalError, MegaphoneError, UsageError
from megaphone.observe.ledger import ALLOCATION_PARTS, TIMED_PARTS, Ledger
from megaphone.workloads.driver import start_together

if TYPE_CHECKING:
    import numpy.typing as npt

    from megaphone.dataflow.batch import Batch
    from megaphone.dataflow.graph import Graph
    from megaphone.dataflow.operators.input import Input
    from megaphone.dataflow.operators.probe import Probe
    from megaphone.dataflow.result import Result
    from megaphone.dataflow.worker import Worker


WAYS: Final = ("keep", "exchange", "arrays", "own", "broadcast", "tee", "views", "jumbo")
BATCHES_OUT_MAX: Final = 8
VIEWS_KEPT: Final = 64
WARM_UP: Final = 10
"""Of all records, one in so many."""
FIRST_TOUCH_SECONDS: Final = 0.1
JUMBO_SLABS: Final = 4
SLABS_AHEAD: Final = 40


class Settings(NamedTuple):
    """What is sent, and how."""

    way: str
    records: int
    batch: int
    columns: int
    workers: int
    seed: int
    times: bool = True


class Reader:
    """Reads every batch once, as a user would with numpy, and lets it go or not, as the way says."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.records = self.key_sum = 0
        self.kept: deque[Any] = deque(maxlen=VIEWS_KEPT)

    def __call__(self, batch: Batch) -> None:
        """Look at the keys."""
        keys: npt.NDArray[np.uint64] = (batch.own() if self.way == "own" else batch)["key"]  # type: ignore[assignment]
        self.records += batch.n
        self.key_sum = (self.key_sum + int(keys.sum(dtype=np.uint64))) % 2**64
        if self.way == "views":
            self.kept.append(keys)


class Handles(NamedTuple):
    """What build gives to drive."""

    records: Input
    readers: list[Reader]
    probes: list[Probe]


class Part(NamedTuple):
    """What one worker brings home; figures are of after the warm-up, sums of the whole."""

    sent: int
    key_sum: int
    received: int
    received_sum: int
    counted: int
    batches: int
    wall_ns: int
    cpu_ns: int
    faults: int
    system_ns: int
    nanoseconds: dict[str, int]
    at_warm_up: dict[str, int]


def build(settings: Settings, graph: Graph) -> Handles:
    """Make the way."""
    columns = {"key": "u8", **{f"c{index}": "u8" for index in range(1, settings.columns)}}
    records, stream = graph.input("records", columns)
    if settings.way == "broadcast":
        stream = stream.broadcast()
    elif settings.way not in ("keep", "tee"):
        stream = stream.exchange("key")
    readers = [Reader(settings.way) for _ in range(2 if settings.way == "tee" else 1)]
    seen = [stream.inspect(reader, name=f"reader {number}") for number, reader in enumerate(readers)]
    probes = [stream.probe(f"probe {number}") for number, stream in enumerate(seen)]
    return Handles(records, readers, probes)


def drive(settings: Settings, worker: Worker, handles: Handles) -> Part:
    """Send this worker's share in a closed loop; warm up first, then count."""
    records, readers, probes = handles
    share = settings.records // worker.peers + (worker.index < settings.records % worker.peers)
    batch = settings.batch
    if settings.way == "jumbo":
        batch = JUMBO_SLABS * worker.records_per_slab(records.schema.row_bytes, 2 * settings.columns)
    made = np.random.default_rng([settings.seed, worker.index]).integers(0, 2**63, batch, dtype=np.uint64)
    others = {f"c{index}": np.ones(batch, np.uint64) for index in range(1, settings.columns)}
    made_sum = int(made.sum(dtype=np.uint64))
    worker.prepare_slabs(SLABS_AHEAD)
    start = _Moment(start_together(worker), 0, 0, worker)
    if settings.times:
        worker.times.measure()
    sent = at = key_sum = 0
    while sent < share:
        if not start.sent and sent >= share // WARM_UP:
            start = _Moment(int(lib.mp_now_ns()), sent, at, worker)
        while at >= BATCHES_OUT_MAX and not all(probe.done(at - BATCHES_OUT_MAX) for probe in probes):
            if not worker.step():
                worker.park(50_000_000)
            worker.raise_if_stopped()
        n = min(batch, share - sent)
        if settings.way == "arrays":
            records.send({"key": made[:n], **{name: ones[:n] for name, ones in others.items()}})
        else:
            loan = records.loan(n)
            loan["key"][:] = made[:n]
            for name, ones in others.items():
                loan[name][:] = ones[:n]
            records.send(loan)
        key_sum = (key_sum + (made_sum if n == batch else int(made[:n].sum(dtype=np.uint64)))) % 2**64
        sent += n
        at += 1
        if at % 8 == 0:
            lib.mp_slab_pinned_bytes(worker.slot)  # a sample of the gauge
        records.advance_to(at)
        worker.step()
    records.close()
    worker.run()
    end = _Moment(int(lib.mp_now_ns()), sent, at, worker)
    return Part(
        sent, key_sum, sum(reader.records for reader in readers), sum(reader.key_sum for reader in readers) % 2**64,
        end.sent - start.sent, end.batches - start.batches, end.now_ns - start.now_ns, end.cpu_ns - start.cpu_ns,
        end.faults - start.faults, end.system_ns - start.system_ns,
        {part: end.counters[f"ns_{part}"] - start.counters[f"ns_{part}"] for part in TIMED_PARTS}, start.counters,
    )  # fmt: skip


class _Moment:
    """The clocks and counters of one worker at one moment."""

    def __init__(self, now_ns: int, sent: int, batches: int, worker: Worker) -> None:
        self.now_ns, self.sent, self.batches = now_ns, sent, batches
        self.cpu_ns = time.process_time_ns()
        usage = getrusage(RUSAGE_SELF)
        self.faults, self.system_ns = usage.ru_minflt, int(1e9 * usage.ru_stime)
        self.counters = worker.counters()


def run(settings: Settings) -> dict[str, Any]:
    """Send records one way and return its account, per record and after the warm-up.

    Raises:
        UsageError: the settings cannot be run.
        InternalError: what was read is not what was sent.
    """
    _check(settings)
    result = _run(settings)
    parts: list[Part] = result.returned
    readings = {"broadcast": settings.workers, "tee": 2}.get(settings.way, 1)
    sent, key_sum = readings * sum(part.sent for part in parts), readings * sum(part.key_sum for part in parts) % 2**64
    received, received_sum = sum(part.received for part in parts), sum(part.received_sum for part in parts) % 2**64
    if (sent, key_sum) != (received, received_sum):
        message = f"{settings.way}: {received} records with key sum {received_sum} were read, not {sent} with {key_sum}"
        raise InternalError(message)
    ledger = Ledger.of(result.counters, [part.at_warm_up for part in parts])
    recycled = ledger.allocations_recycled - sum(part.at_warm_up["allocations_recycled"] for part in parts)
    counted = sum(part.counted for part in parts)
    wall_ns = max(part.wall_ns for part in parts)
    batches = max(1, sum(part.batches for part in parts))
    return {
        **settings._asdict(),
        "rate_m_s": counted / wall_ns * 1e3,
        "cpu_ns_per_record": sum(part.cpu_ns for part in parts) / counted,
        "copies_per_record": ledger.copies_per_record,
        "bytes_copied": dict(ledger.bytes_copied),
        "fresh_per_k_batches": 1e3 * ledger.fresh_after_warmup / batches,
        "recycled_per_k_batches": 1e3 * recycled / batches,
        "faults_per_m_records": 1e6 * sum(part.faults for part in parts) / counted,
        "pinned_mb_max": ledger.pinned_bytes_max / 1e6,
        "checksum": f"{received_sum:016x}",
        **(_split(parts, counted) if settings.times else {}),
    }


def _split(parts: list[Part], counted: int) -> dict[str, Any]:
    """Return where the time went; see the head of this file."""
    per_record = {name: sum(part.nanoseconds[name] for part in parts) / counted for name in TIMED_PARTS}
    page = f"first_touch_us_per_page_{min(2, len(parts))}"
    touch_ns = 1e3 * measure([page], FIRST_TOUCH_SECONDS)[page]
    return {
        "copies_ns_per_record": sum(per_record[name] for name in TIMED_PARTS if name not in ALLOCATION_PARTS),
        "allocation_ns_per_record": sum(per_record[name] for name in ALLOCATION_PARTS),
        "system_ns_per_record": sum(part.system_ns for part in parts) / counted,
        "faults_ns_estimated": sum(part.faults for part in parts) * touch_ns / counted,
        "first_touch_ns": touch_ns,
        **{f"{part}_ns_per_record": ns for part, ns in per_record.items()},
    }


def _run(settings: Settings) -> Result:
    return execute(partial(build, settings), workers=settings.workers, drive=partial(drive, settings))


def _check(settings: Settings) -> None:
    least = {"records": 100, "batch": 1, "columns": 1, "workers": 1}
    for name, lowest in least.items():
        if (value := getattr(settings, name)) < lowest:
            message = f"--{name}: {value} is too few: give {lowest} or more"
            raise UsageError(message)


def main() -> int:
    """Send records one way and tell what that cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=WAYS, default="exchange", help="see the head of this file (default exchange)")
    parser.add_argument("--records", type=int, default=20_000_000, help="over all workers (default 20000000)")
    parser.add_argument("--batch", type=int, default=8192, help="records in a batch (default 8192)")
    parser.add_argument("--columns", type=int, default=2, help="of 8 bytes each (default 2)")
    parser.add_argument("-w", "--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--no-times", dest="times", action="store_false", help="read no clocks: what measuring the time costs"
    )
    parser.add_argument("--report", type=Path, help="a file for the account, as JSON")
    given = vars(parser.parse_args())
    report = given.pop("report")
    try:
        told = run(Settings(**given))
    except MegaphoneError as error:
        sys.stderr.write(f"ways: {error}\n")
        return error.exit_code
    for name, value in told.items():
        sys.stdout.write(f"{name:24}{f'{value:.3f}' if isinstance(value, float) else value}\n")
    if report is not None:
        report.write_text(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
