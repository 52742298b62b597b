"""Word count over generated keys: the original's benchmark, with migratable state or, as a rival, without.

::

    keys (uniform over the domain, made in C) -> F -> S: count[key] += 1, emit (key, running count) -> sink

All keys are loaded before the clock starts.  Each worker follows its own schedule; histograms and sums are merged.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from megaphone._core import ffi, lib
from megaphone.dataflow.execute import execute
from megaphone.errors import InternalError
from megaphone.migration.operators.adding import AddEmit
from megaphone.observe.ledger import Ledger
from megaphone.observe.machine import describe_machine
from megaphone.observe.report import Memory, Migration, Report, Trace
from megaphone.observe.switch import Switch
from megaphone.observe.timeline import Timeline
from megaphone.state.stores import DenseArray, HashTable
from megaphone.version import __version__
from megaphone.workloads.driver import BATCH_RECORDS, Driver, Measured, Warmer, switch_covers, switch_times
from megaphone.workloads.native_count import NativeCount
from megaphone.workloads.progress_line import ProgressLine
from megaphone.workloads.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from megaphone.dataflow.execute import Result
    from megaphone.dataflow.graph import Graph
    from megaphone.dataflow.operators.input import Input
    from megaphone.dataflow.supervisor import Running
    from megaphone.dataflow.worker import Worker
    from megaphone.migration.operators.control import Control
    from megaphone.state.access import StoreAccess
    from megaphone.workloads.settings import CountSettings, MigratingSettings, WordCountSettings

FIRST_TIME: Final = 1
"""Loading is time 0."""
LEAD_NS: Final = 1_000_000
"""Control is that far ahead, so that workers whose clocks are read at different moments need not wait for it."""
_OUT: Final = {"key": "u8", "count": "u8"}
count_fold: Final = AddEmit("key", "value")
"""Adds each record to its key's count and sends the running count."""


class Handles(NamedTuple):
    """What build gives to drive."""

    words: Input
    control: Control | None
    count: Any  # the operator that holds the state: Applier or NativeCount
    sink: Sink
    seen: list[tuple[int, Any, Any]]
    sent: list[tuple[int, Any]]


def build(settings: WordCountSettings, graph: Graph) -> Handles:
    """Make the dataflow of a word count."""
    words, stream = graph.input("words", {"key": "u8", "value": "u8"})
    dense = settings.backend.startswith("vec")
    state = DenseArray({"count": "u8"}) if dense else HashTable("u8", {"count": "u8"})
    hash_name = "dense" if dense else settings.hash
    control = None
    if settings.is_native:
        count: Any = NativeCount(stream, key="key", hash_name=hash_name, state=state, columns=_OUT, name="count")
        counts = type(stream)(graph, count.out)
    else:
        control = graph.control(words, lead=LEAD_NS)
        counts = stream.stateful_unary(
            key="key", hash=hash_name, state=state, fold=count_fold, columns=_OUT, control=control,
            bin_shift=settings.bin_shift, transfer=settings.transfer, initial=first_owner(settings), name="count",
        )  # fmt: skip
        count = counts.operator
    seen: list[tuple[int, Any, Any]] = []
    if settings.validate:
        counts = counts.inspect(partial(_note, seen))
    return Handles(words, control, count, Sink(counts), seen, [])


def first_owner(settings: MigratingSettings) -> Any:  # noqa: ANN401 - uint32[bins]
    """Return the owners at the start: the initial map, after the steps of the plan that have time 0."""
    plan = settings.plan(3)
    return plan.owner_after(plan.initial_step_count)


def _note(seen: list[tuple[int, Any, Any]], batch: Any) -> None:  # noqa: ANN401 - a Batch
    if batch.time >= FIRST_TIME:
        columns = batch.own()
        seen.append((batch.time, columns["key"], columns["count"]))


class KeySource:
    """One worker's keys."""

    def __init__(self, words: Input, worker: Worker, settings: WordCountSettings, sent: list[tuple[int, Any]]) -> None:
        self._words, self._domain = words, settings.domain
        self._seed = settings.seed * 1_000_003 + worker.index
        self._next = 0
        self._sent = sent if settings.validate else None
        self.exhausted = False
        self.position = None

    def send(self, records: int) -> int:
        """Make keys in place and send them."""
        loan = self._words.loan(records)
        fill_keys(loan, records, self._seed, self._next, self._domain, 1)
        if self._sent is not None:
            self._sent.append((self._words.time, loan["key"].copy()))
        self._next += records
        self._words.send(loan)
        return records


def fill_keys(loan: Any, n: int, seed: int, first: int, domain: int, value: int) -> None:  # noqa: ANN401 - a Loan
    """Fill the columns of a loan with keys of the sequence, each with one value."""
    keys, values = ffi.cast("uint64_t *", loan.pointer("key")), ffi.cast("uint64_t *", loan.pointer("value"))
    lib.mp_word_keys(keys, values, n, seed & (2**64 - 1), first, domain, value)


def drive(settings: WordCountSettings, worker: Worker, handles: Handles) -> Measured:
    """Load, measure, and bring home what was measured."""
    words, control, count, sink, seen, sent = handles
    loaded = load(worker, words, count.state, settings) if settings.preload else 0
    words.advance_to(FIRST_TIME)
    worker.step_until(lambda: sink.frontier() >= FIRST_TIME)
    planned = settings.plan(settings.duration_ns)
    plan = planned if control is not None else None
    driver = Driver(
        worker, words, sink, KeySource(words, worker, settings, sent),
        rate=settings.rate_per_worker, duration_ns=settings.duration_ns, plan=plan, control=control,
        gap_ns=settings.gap_ns, first_time=FIRST_TIME, batch_records=BATCH_RECORDS,
        warmer=Warmer(worker, count.op, plan) if plan is not None and settings.transfer == "handover" else None,
        switches_ns=switch_times(planned, settings.duration_ns) if settings.slices else (),
    )  # fmt: skip
    measured = driver.run()
    measured.extra = {
        "loaded": loaded,
        "checksum_outputs": sink.checksum,
        "outputs": sink.records,
        "checksum_state": int(lib.mp_store_checksum(worker.slot, count.state.c)),
        "seen": seen,
        "sent": sent,
    }
    return measured


def load(worker: Worker, words: Input, state: StoreAccess, settings: WordCountSettings) -> int:
    """Put every key of the domain into the state with count 0: arrays at once, tables through the dataflow.

    Returns:
        The keys that this worker has sent, or has made room for.
    """
    why = ffi.new("mp_outcome *")
    rc = lib.mp_word_reserve(worker.slot, state.c, settings.domain, why)
    if rc:
        worker.check(rc)
    first = settings.domain * worker.index // worker.peers
    end = settings.domain * (worker.index + 1) // worker.peers
    if settings.backend.startswith("vec"):
        return end - first
    for at in range(first, end, BATCH_RECORDS):
        n = min(BATCH_RECORDS, end - at)
        loan = words.loan(n)
        loan["key"][:] = np.arange(at, at + n, dtype=np.uint64)
        loan["value"][:] = 0
        words.send(loan)
        worker.step()
    return end - first


# -- the report --------------------------------------------------------------------------------------------------------


def run_synthetic(settings: WordCountSettings) -> Report:
    """Run a word count of generated keys and report it.

    Raises:
        UsageError: the settings cannot be run.
        SharedMemoryError: the domain does not fit.
        InternalError: ``validate`` found outputs that an independent count does not have.
    """
    settings.check()
    rate = settings.rate_total
    total = None if rate is None else round(rate * settings.duration_s)
    if total is not None and settings.preload and not settings.backend.startswith("vec"):
        total += settings.domain
    with ProgressLine(total, "records") as line:
        result = execute(
            partial(build, settings), workers=settings.workers, drive=partial(drive, settings),
            memory=settings.memory_bytes, measure_memory=True, pss_seconds=settings.pss_interval_s,
            on_tick=partial(show_records, line),
        )  # fmt: skip
    if settings.validate:
        validate(result.returned)
    return make_report("word-count", settings, result, settings.duration_ns)


def show_records(line: ProgressLine, running: Running) -> None:
    """Draw how many records have come in."""
    line.update(sum(counters["input_records"] for counters in running.counters()))


def make_report(command: str, settings: CountSettings, result: Result, duration_ns: int) -> Report:
    """Merge what the workers measured into one report."""
    parts: Sequence[Measured] = result.returned
    report = measured_report(command, settings, result, duration_ns)
    demo = settings.migration == "none" and getattr(settings, "demo", False)
    return replace(
        report,
        bin_shift=None if settings.is_native else settings.bin_shift,
        backend=settings.backend,
        hash="dense" if settings.backend.startswith("vec") else settings.hash,
        migration="demo" if demo else settings.migration,
        checksum_outputs=sum(part.extra["checksum_outputs"] for part in parts) % 2**64,
        checksum_state=sum(part.extra["checksum_state"] for part in parts) % 2**64,
    )


def measured_report(command: str, settings: MigratingSettings, result: Result, duration_ns: int) -> Report:
    """Return what any workload's report has: what the drivers measured, merged."""
    parts: Sequence[Measured] = result.returned
    timeline = Timeline.from_array(parts[0].timeline, parts[0].window_ns)
    for part in parts[1:]:
        timeline.merge(Timeline.from_array(part.timeline, part.window_ns))
    switches = [Switch(time_ns, words) for time_ns, words in parts[0].switches]
    for part in parts[1:]:
        for switch, (time_ns, words) in zip(switches, part.switches, strict=True):
            switch.merge(Switch(time_ns, words))
    covers = switch_covers(settings.plan(duration_ns), duration_ns) if switches else []
    offered = settings.offered_per_worker
    open_loop = offered is not None
    step_ns = max(1, round(1e9 / offered)) if offered else 0
    rate = 1e9 / step_ns if open_loop else None
    at_warm_up = [part.at_warm_up for part in parts]
    seconds = max(part.end_ns for part in parts) / 1e9
    return Report(
        command=command,
        version=__version__,
        machine=describe_machine(),
        workers=settings.workers,
        records=sum(part.records for part in parts),
        seconds=seconds,
        ledger=Ledger.of(result.counters, at_warm_up if all(at_warm_up) else None),
        memory=Memory.of(result),
        bin_shift=settings.bin_shift,
        transfer=settings.transfer,
        migration=settings.migration,
        rate_per_worker=rate,
        rate_total=None if rate is None else rate * settings.workers,
        latency=timeline.after_warm_up(duration_ns) if open_loop else None,
        timeline=timeline if open_loop else None,
        migrations=[report_migration(note, timeline if open_loop else None) for note in parts[0].migrations],
        switches=[found for switch, own in zip(switches, covers, strict=True) if (found := switch.latency(own))],
        trace=Trace(
            control_times_ns=parts[0].control_times,
            loaded=[(index, part.extra["loaded"]) for index, part in enumerate(parts) if "loaded" in part.extra],
            moves=moves_of(settings, duration_ns, len(parts[0].control_times)),
            steps_done=[(done, duration) for done, duration, _ in parts[0].steps_done],
        ),
    )


MOVES_STEPS_MAX: Final = 4096
"""Steps whose moves are listed bin by bin in the tab-separated report."""


def moves_of(settings: MigratingSettings, duration_ns: int, sent: int) -> list[tuple[int, int, int, int]]:
    """Return (bin, old worker, new worker, wire elements) of each bin that the steps sent have moved.

    A bin that is handed over is not serialised, so the wire elements are 0.
    """
    if not sent or getattr(settings, "demo", False) or getattr(settings, "is_native", False):
        return []
    plan = settings.plan(duration_ns)
    first = plan.initial_step_count
    moves: list[tuple[int, int, int, int]] = []
    before = plan.owner_after(first)
    for step in range(first, min(first + sent, first + MOVES_STEPS_MAX)):
        after = plan.owner_after(step + 1)
        moves += [(int(b), int(before[b]), int(after[b]), 0) for b in np.flatnonzero(before != after)]
        before = after
    return moves


def report_migration(note: Any, timeline: Timeline | None) -> Migration:  # noqa: ANN401 - a MigrationNote
    """Return a migration as reports have it."""
    cost = note.cost()
    duration = max(0, note.completed_ns - note.sent_ns)
    return Migration(
        time_ns=note.sent_ns,
        strategy=note.strategy,
        steps=note.steps,
        bins=note.bins,
        keys=cost["keys_moved"],
        bytes_moved=cost["bytes_moved"],
        bytes_copied=cost["copied_migrate"],
        duration_ns=duration,
        lead_ns=note.lead_ns,
        warming_ns=cost["warming_ns"],
        minor_faults=cost["minor_faults"],
        latency=timeline.around(note.sent_ns, duration) if timeline is not None else None,
    )


def validate(parts: Sequence[Measured]) -> None:
    """Compare all outputs, time by time, with an independent count of what was sent.

    The k-th record of a key in the order of times has the running count k; within a time the order is open, and the
    counts are the same set whatever it is. So inputs sorted by (key, time) and outputs sorted by (key, count) must be
    the same pairs of key and time.

    Raises:
        InternalError: they differ.
    """
    sent = [(time, keys) for part in parts for time, keys in part.extra["sent"]]
    seen = [entry for part in parts for entry in part.extra["seen"]]
    in_key = np.concatenate([keys for _, keys in sent]) if sent else np.empty(0, np.uint64)
    in_time = np.concatenate([np.full(len(keys), time, np.uint64) for time, keys in sent]) if sent else in_key
    out_key = np.concatenate([keys for _, keys, _ in seen]) if seen else np.empty(0, np.uint64)
    out_count = np.concatenate([counts for _, _, counts in seen]) if seen else out_key
    out_time = np.concatenate([np.full(len(keys), time, np.uint64) for time, keys, _ in seen]) if seen else out_key
    if len(in_key) != len(out_key):
        message = f"validate: {len(in_key)} records in, {len(out_key)} out"
        raise InternalError(message)
    order_in, order_out = np.lexsort((in_time, in_key)), np.lexsort((out_count, out_key))
    in_key, in_time = in_key[order_in], in_time[order_in]
    out_key, out_time, out_count = out_key[order_out], out_time[order_out], out_count[order_out]
    starts = np.flatnonzero(np.r_[True, in_key[1:] != in_key[:-1]]) if len(in_key) else np.empty(0, np.int64)
    lengths = np.diff(np.r_[starts, len(in_key)])
    running = np.arange(len(in_key)) - np.repeat(starts, lengths) + 1
    wrong = np.flatnonzero((in_key != out_key) | (in_time != out_time) | (running != out_count))
    if len(wrong):
        at = int(wrong[0])
        message = (
            f"validate: key {in_key[at]} at time {in_time[at]} should have count {running[at]}; "
            f"found key {out_key[at]}, time {out_time[at]}, count {out_count[at]}"
        )
        raise InternalError(message)
