"""The loop that offers records to a dataflow and measures it: open loop by a schedule, closed loop as fast as it goes.

Open loop: record i of a worker is due at i * step, whatever the system does.  A batch has the input's time from before
it was made, which is not after the time at which any of its records was due; a record is done when the probe is
beyond its batch's time, and the clock is read after the probe.  So a stall is seen whole, and no sample ends early.

Closed loop: a few batches are kept in the dataflow; the next one follows as one is done.  Then latency means nothing.

Worker 0 also sends the steps of the migration plan as they fall due, and notes what each migration cost.
"""

from __future__ import annotations

import gc
import resource
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from megaphone._core import ffi, lib
from megaphone.migration.pacing import Pacer
from megaphone.observe.switch import SECOND_NS, SWITCHES_MAX, Switch
from megaphone.observe.timeline import Timeline, warm_up_ns
from megaphone.shm.counters import COUNTER_INDEX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from megaphone.dataflow.schema import Schema
    from megaphone.dataflow.worker import Worker
    from megaphone.migration.operators.control import Control
    from megaphone.migration.plan import Plan

NEVER: Final = 2**64 - 1
BATCH_RECORDS: Final = 16_384
CLOSED_BATCH_RECORDS: Final = 32_768
"""Closed loop: a step in Python costs as much as some thousands of records, so larger batches win (measured)."""
BATCHES_OUT_MAX: Final = 16
"""Closed loop: enough that every stage of the pipeline has one while another is on its way."""
SLABS_AHEAD: Final = 40
TICK_NS: Final = 200_000
"""Time moves at least so often, so that others need not wait for a worker that has nothing due."""
HOUSE_KEEPING_NS: Final = 50_000_000
WARM_BYTES: Final = 256 << 10
WARM_BYTES_MAX: Final = 16 << 20
"""At most so much between two steps of the worker: 4096 pages, about 1 ms in which it neither receives nor sends."""
WARM_BYTES_MIN: Final = 64 << 20
"""Less than that is mapped by the first records that touch it, 16 pages at a time: a millisecond in all, which no
latency shows, and which warming would cost as well."""
WARM_SHARE: Final = 0.75
"""Of the time that is left when warming begins."""
AFTER_NS: Final = 1_000_000_000
_SUMMED: Final = ("keys_moved", "bytes_moved", "copied_migrate", "warming_ns", "minor_faults")


class Source(Protocol):
    """Where a worker's records come from."""

    def send(self, records: int) -> int:
        """Send up to so many records at the input's current time; returns how many, fewer at the end."""

    @property
    def position(self) -> int | None:
        """How far the source is on the plan's scale; None: the plan goes by the clock."""

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left."""


class Inlet(Protocol):
    """What a worker's records go into, and its time: an input, or several that are one to the driver."""

    @property
    def time(self) -> int:
        """Of what is sent now."""

    @property
    def schema(self) -> Schema:
        """Of the widest batch that is sent."""

    @property
    def closed(self) -> bool:
        """Whether no more can be sent."""

    def advance_to(self, time: int) -> None:
        """Let time pass."""

    def close(self) -> None:
        """End it."""


class Frontier(Protocol):
    """Where records are done."""

    def frontier(self) -> int:
        """Return the least time that may still appear."""


class Warming(Protocol):
    """What maps pages ahead of a migration."""

    def step(self, now: int) -> None:
        """Map one piece if a migration is near."""


@dataclass
class MigrationNote:
    """What one migration cost, as worker 0 saw it; times in ns since the start of the run.

    ``lead_ns`` is how long after it was sent its first step takes effect, which is not before it was sent and not after
    it is complete; None where times are not the clock's.
    """

    time_ns: int
    strategy: str
    steps: int = 0
    bins: int = 0
    sent_ns: int = 0
    lead_ns: int | None = None
    completed_ns: int = 0
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)

    def cost(self) -> dict[str, int]:
        """Return the counters' differences."""
        return {name: self.after.get(name, 0) - self.before.get(name, 0) for name in _SUMMED}


@dataclass
class Measured:
    """What one worker brings home."""

    records: int
    end_ns: int
    timeline: Any
    window_ns: int
    at_warm_up: dict[str, int]
    migrations: list[MigrationNote]
    steps_done: list[tuple[int, int, int]]
    control_times: list[int]
    switches: list[tuple[int, Any]]
    extra: dict[str, Any] = field(default_factory=dict)


class Driver:
    """One worker's part of a measured run.

    Args:
        worker: whose step is called.
        data: the input that the source sends to.
        probe: where a record is done.
        source: of records.
        rate: records/s of this worker; None is closed loop.
        duration_ns: how long to offer records; None: until the source is exhausted.
        plan: migrations, on the source's scale or on the clock; None: none.
        control: where they are sent.
        gap_ns: rest between two steps.
        first_time: the input's time at the start; times on the plan's scale are relative to it.
        warm_at: without a duration, the position at which the warm-up ends.
        switches_ns: times of the run, by the clock, around which latency is kept in narrow slices; see `switch_times`.

    Attributes:
        lift: added to logical times where the plan is on another scale: above all that a plan can name, so that the
            clock or the position alone says when a step is due.
    """

    lift: int = 0

    def __init__(
        self,
        worker: Worker,
        data: Inlet,
        probe: Frontier,
        source: Source,
        *,
        rate: float | None,
        duration_ns: int | None,
        plan: Plan | None = None,
        control: Control | None = None,
        gap_ns: int = 0,
        first_time: int = 1,
        warmer: Warming | None = None,
        batch_records: int = BATCH_RECORDS,
        warm_at: int = 0,
        switches_ns: Sequence[int] = (),
    ) -> None:
        self.worker, self.data, self.probe, self.source = worker, data, probe, source
        self.step_ns = None if rate is None else max(1, round(1e9 / rate))
        self.duration_ns = duration_ns
        self.first_time = first_time
        self._offset = self.lift - first_time
        self.control = control if control is not None and not control.closed else None
        self.pacer = Pacer(plan, gap_ns) if plan is not None and self.control is not None else None
        self.warmer = warmer
        self.warm_at = warm_at
        self.control_times: list[int] = []
        # A batch of more than a slab would take chunks of its own, and a fresh allocation each.
        per_slab = worker.records_per_slab(data.schema.row_bytes, len(data.schema))
        self.batch_records = min(batch_records, per_slab)
        self.closed_batch_records = min(CLOSED_BATCH_RECORDS, per_slab)
        self.timeline = Timeline()
        self.switches = [Switch(time_ns) for time_ns in switches_ns]
        self.sent = 0
        self.out: deque[tuple[int, int, int]] = deque()  # (batch time, first due ns, records)
        self.notes: list[MigrationNote] = []
        self.steps_done: list[tuple[int, int, int]] = []
        self._watch: list[tuple[int, MigrationNote]] = []
        self._faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        self._at_warm_up: dict[str, int] = {}
        self._next_house_keeping = 0
        self._step_sent = 0
        self._advanced = 0

    def now(self) -> int:
        """Return ns since the start of the run."""
        return int(lib.mp_now_ns()) - self.origin

    def run(self) -> Measured:
        """Offer records until the end, then wait for the last of them."""
        worker, data, source = self.worker, self.data, self.source
        # A run whose batches in flight are bounded then never carves again.
        worker.prepare_slabs(SLABS_AHEAD)
        self.origin = start_together(worker)
        crowded = worker.peers > _cores()
        closed = self.step_ns is None
        while True:
            now = self.now()
            finished = self._observe()
            if self.pacer is not None:
                self._pace(now)
            if self.warmer is not None:
                self.warmer.step(now if source.position is None else source.position)
            sent = 0
            if not data.closed:
                over = self.duration_ns is not None and now >= self.duration_ns
                if not closed or not over:
                    sent = self._offer_closed(now) if closed else self._offer_open(now)
                ending = source.exhausted or (over and (closed or self._due(now) == 0))
                if ending and self._may_close():
                    data.close()
            if not data.closed and (sent or now - self._advanced >= TICK_NS):
                self._advance(now)
            if now >= self._next_house_keeping:
                self._keep_house(now)
            active = worker.step()
            worker.raise_if_stopped()
            if data.closed and not self.out and worker.done():
                break
            if crowded:
                lib.mp_yield()
            if not active and not sent and not finished:
                self._rest()
        end = self.now()
        self._observe()
        self._keep_house(end, last=True)
        return Measured(
            self.sent, end, self.timeline.to_array(), self.timeline.window_ns, self._at_warm_up, self.notes,
            self.steps_done, self.control_times, [(one.time_ns, one.to_array()) for one in self.switches],
        )  # fmt: skip

    def _may_close(self) -> bool:
        """Whether the input may end, now that it has nothing more to offer."""
        return not self._steps_left()

    def _steps_left(self) -> bool:
        """Whether steps of the plan that belong to this run have not been sent or are not complete."""
        pacer = self.pacer
        if pacer is None:
            return False
        end = self.duration_ns if self.source.position is None else self.source.position
        next_time = pacer.next_time_ns
        return pacer.in_flight_ns is not None or (next_time is not None and end is not None and next_time <= end)

    # -- offering ------------------------------------------------------------------------------------------------------

    def _due(self, now: int) -> int:
        assert self.step_ns is not None
        end = now if self.duration_ns is None else min(now, self.duration_ns - 1)
        # Record i is due at 1 + i * step.
        return max(0, (end - 1) // self.step_ns + 1) - self.sent if end >= 1 else 0

    def _offer_open(self, now: int) -> int:
        due, total = self._due(now), 0
        while due > 0:
            count = self.source.send(min(due, self.batch_records))
            if count == 0:
                break
            self.out.append((self.data.time, 1 + self.sent * (self.step_ns or 0), count))
            self.sent += count
            total += count
            due -= count
        return total

    def _offer_closed(self, now: int) -> int:
        if len(self.out) >= BATCHES_OUT_MAX:
            return 0
        count = self.source.send(self.closed_batch_records)
        if count:
            self.out.append((self.data.time, now, count))
            self.sent += count
        return count

    def _advance(self, now: int) -> None:
        self._advanced = now
        time = self.first_time + now
        if time > self.data.time:
            self.data.advance_to(time)

    def _rest(self) -> None:
        if self.data.closed or self.step_ns is None:
            over = self.source.exhausted or (self.duration_ns is not None and self.now() >= self.duration_ns)
            # Nothing is sent any more, and yet steps wait for time to pass: only `_advance` lets it.
            waits = TICK_NS if over else 50_000_000
            self.worker.park(1_000_000 if self.data.closed else waits)
            return
        due_in = 1 + self.sent * self.step_ns - self.now()
        if due_in > 0:
            self.worker.park(min(due_in, TICK_NS))

    # -- observing -----------------------------------------------------------------------------------------------------

    def _observe(self) -> bool:
        """Note the batches that are done; returns whether there were any."""
        if not self.out:
            return False
        frontier = self.probe.frontier()
        if self.out[0][0] >= frontier:
            return False
        now = self.now()  # after the probe: no sample ends before its batch
        while self.out and self.out[0][0] < frontier:
            _, first, count = self.out.popleft()
            if self.step_ns is not None:
                self.timeline.record_schedule(now, first, self.step_ns, count)
                for switch in self.switches:
                    switch.record_schedule(now, first, self.step_ns, count)
        return True

    def _pace(self, now: int) -> None:
        """Send the plan's next step when it is due."""
        pacer, control = self.pacer, self.control
        assert pacer is not None
        assert control is not None
        if pacer.in_flight_ns is not None:
            done = pacer.completed(self._frontier_on_scale(), now)
            if done is not None and self.notes:
                note = self.notes[-1]
                note.completed_ns = now
                note.after = self._sums()
                self._watch.append((now + AFTER_NS, note))
                self.steps_done.append((now, now - self._step_sent, done.bins))
        if control.closed:
            return
        position = self.source.position
        file_time = now if position is None else position
        # The step takes effect at the control's time, which is ahead of the data; its file time is "not before".
        due_at = pacer.next_time_ns
        if due_at is None or file_time < due_at:
            return
        by_clock = position is None and not self.lift
        if by_clock and pacer.in_flight_ns is None and control.time < self.first_time + now:
            # The last step of this worker took longer than control is ahead.  What is sent now takes effect now and not
            # in the past: its lead, and with it what the hand-over took, would be wrong by as much.
            control.advance_to(self.first_time + now)
        step = pacer.due(max(0, control.time + self._offset), self._frontier_on_scale(), now)
        if step is None:
            return
        record = pacer.record(pacer.sent_count - 1)
        if not self.notes or self.notes[-1].time_ns != record.time_ns or self.notes[-1].strategy != record.strategy:
            before = self._sums()
            # Pages are mapped ahead of a migration: its warming began when the one before it was over.
            before["warming_ns"] = self.notes[-1].after.get("warming_ns", 0) if self.notes else 0
            lead = control.time - self.first_time - now if by_clock else None
            note = MigrationNote(record.time_ns, record.strategy, sent_ns=now, lead_ns=lead, before=before)
            self.notes.append(note)
        self.notes[-1].steps += 1
        self.notes[-1].bins += record.bins
        self._step_sent = now
        self.control_times.append(now)
        control.send_instructions(step.instructions)

    def _frontier_on_scale(self) -> int:
        """Return the probe's frontier as a time of the plan."""
        frontier = self.probe.frontier()
        return NEVER if frontier == NEVER else max(0, frontier + self._offset)

    def _sums(self) -> dict[str, int]:
        control, peers = self.worker.memory.control, self.worker.peers
        return {
            name: sum(int(lib.mp_counter_read(control, slot, COUNTER_INDEX[name])) for slot in range(peers))
            for name in _SUMMED
        }

    def _keep_house(self, now: int, *, last: bool = False) -> None:
        """Note faults and pinned memory, take the snapshot at the end of the warm-up."""
        slot = self.worker.slot
        self._next_house_keeping = now + HOUSE_KEEPING_NS
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        lib.mp_counter_add(slot, COUNTER_INDEX["minor_faults"], faults - self._faults)
        self._faults = faults
        lib.mp_slab_pinned_bytes(slot)
        position = self.source.position
        warm = now >= warm_up_ns(self.duration_ns) if self.duration_ns is not None else (position or 0) >= self.warm_at
        if not self._at_warm_up and warm:
            self._at_warm_up = self.worker.counters()
        while self._watch and (last or now >= self._watch[0][0]):
            _, note = self._watch.pop(0)
            note.after["minor_faults"] = self._sums()["minor_faults"]


def _planned_times(plan: Plan, duration_ns: int) -> list[int]:
    times = plan.steps.times_ns[plan.initial_step_count :]
    if not len(times):
        return [duration_ns // 3, 2 * duration_ns // 3]
    return [int(time_ns) for time_ns in np.unique(times)[: SWITCHES_MAX + 1]]


def switch_times(plan: Plan, duration_ns: int) -> list[int]:
    """Return when the migrations of a plan by the clock are due, the first `SWITCHES_MAX` of them.

    A plan in which nothing moves has the times at which the built-in strategies move, so that it can be compared.
    """
    return _planned_times(plan, duration_ns)[:SWITCHES_MAX]


def switch_covers(plan: Plan, duration_ns: int) -> list[int]:
    """Return how much of the second after each of `switch_times` is its own, ns: to the next or to the run's end."""
    times = _planned_times(plan, duration_ns)
    return [
        max(0, min(time_ns + SECOND_NS, duration_ns, *times[index + 1 : index + 2]) - time_ns)
        for index, time_ns in enumerate(times[:SWITCHES_MAX])
    ]


def start_together(worker: Worker) -> int:
    """Wait for the moment that the first worker sets and return it, their common zero on CLOCK_MONOTONIC, in ns.

    The ledger's longest pause of growth counts from there: what grows before, nobody waits for.  A worker that is late,
    since it had more to prepare, comes here after its zero, and what it grows in between does count.
    """
    control = worker.memory.control
    # What exists now lives as long as the run: the collector need not walk it again in the middle of a measurement.
    gc.collect()
    gc.freeze()
    if worker.index == 0:
        lib.mp_origin_set(control, int(lib.mp_now_ns()) + 2_000_000)
        lib.mp_wake_all(control)
    while not (origin := int(lib.mp_origin_get(control))):
        if not worker.step():
            worker.park(1_000_000)
        worker.raise_if_stopped()
    while int(lib.mp_now_ns()) < origin:
        if not worker.step():
            worker.park(max(1, origin - int(lib.mp_now_ns())))
        worker.raise_if_stopped()
    lib.mp_pause_restart(worker.slot)
    return origin


class Warmer:
    """Maps, a little at a time, the pages of the bins that each migration will bring to this worker.

    A migration's pages are mapped in the second half of the time before it: early enough to be done, late enough that
    most blocks that it finds are those that will come.  How much at a time follows the clock and not the number of
    calls: a worker that is behind makes few steps, and would come to the switch with most pages cold.  But no piece is
    larger than `WARM_BYTES_MAX`, however long the worker was away: the steps that follow catch up, and what they cannot
    is mapped by the records that touch it.
    """

    def __init__(self, worker: Worker, op: Any, plan: Plan) -> None:  # noqa: ANN401 - a cffi struct
        self._worker, self._op = worker, op
        times, first = plan.steps.times_ns, plan.initial_step_count
        cuts = [first, *(np.flatnonzero(times[first + 1 :] != times[first:-1]) + first + 1).tolist(), len(times)]
        self._groups: deque[tuple[int, int, Any]] = deque()
        before = 0
        for begin, end in zip(cuts, cuts[1:], strict=False):
            if begin < end:
                at = int(times[begin])
                self._groups.append(((before + at) // 2, at, plan.owner_after(end).astype(np.uint8)))
                before = at
        self._position = ffi.new("mp_warming *")
        self._bytes = self._warmed = 0
        self._since = 0

    def step(self, now: int) -> None:
        """Map one piece if a migration is near."""
        while self._groups and now >= self._groups[0][1]:
            self._next()
        if self._groups and now >= self._groups[0][0]:
            _, at, owners = self._groups[0]
            owner = ffi.from_buffer("uint8_t[]", owners)
            if not self._bytes:
                self._bytes = int(lib.mp_warm_bytes(self._worker.slot, self._op, owner))
                self._since = now
                if self._bytes < WARM_BYTES_MIN:
                    self._next()
                    return
            due = int(self._bytes * (now - self._since) / max(1.0, WARM_SHARE * (at - self._since)))
            budget = min(max(WARM_BYTES, due - self._warmed), WARM_BYTES_MAX)
            mapped = int(lib.mp_warm(self._worker.slot, self._op, owner, self._position, budget))
            self._warmed += mapped
            if not mapped:
                self._next()

    def _next(self) -> None:
        self._groups.popleft()
        self._bytes = self._warmed = 0
        self._position = ffi.new("mp_warming *")


def _cores() -> int:
    import os  # noqa: PLC0415 - once per run

    return len(os.sched_getaffinity(0))
