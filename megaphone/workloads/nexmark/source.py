"""The events of one worker on their way into its inputs, tick by tick; and the time of those inputs.

::

    generator --events of one tick--> loans of person, auction, bid --> inputs at the tick's time
    the clock --- x dilation -------> the same inputs advance, though not beyond the tick of the next event

All inputs of a worker are at one time.  An event's time is that of its tick, so it is never before the inputs' and a
batch holds the events of one tick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from megaphone.workloads.driver import Driver
from megaphone.workloads.nexmark.events import Generator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from megaphone.dataflow.operators.input import Input
    from megaphone.dataflow.schema import Schema
    from megaphone.dataflow.worker import Worker
    from megaphone.workloads.driver import Frontier
    from megaphone.workloads.nexmark.events import GeneratorKind
    from megaphone.workloads.nexmark.settings import NexmarkSettings

ABOVE_PLANS: Final = 1 << 62
"""More than any time of a plan."""
REST_NS: Final = 1_000_000
"""At most so long until the driver looks at its plan again."""


def make_generator(settings: NexmarkSettings, worker: int) -> Generator:
    """Return the events of one worker of a run."""
    kind: GeneratorKind = "exact" if settings.generator == "exact" else "fast"
    return Generator(kind, worker, settings.workers, settings.event_rate, settings.in_flight, settings.seed)


class EventSource:
    """One worker's events, and its inputs as the driver sees them: as one.

    Args:
        settings: of the run.
        worker: this worker's number.
        inputs: those of person, auction and bid that a query reads, by name.

    Attributes:
        generator: of this worker.
        time: of all inputs: the current tick, event time in ns.
        rows: sent so far, by stream.
    """

    def __init__(self, settings: NexmarkSettings, worker: int, inputs: Mapping[str, Input]) -> None:
        self.generator = make_generator(settings, worker)
        self._inputs = dict(inputs)
        self._tick, self._dilation = settings.tick, settings.time_dilation
        self._open_loop = settings.offered_per_worker is not None
        self._end = self.generator.end
        self._bounded = settings.events is not None
        if settings.events is not None:
            self._end = self.generator.share(settings.events)
        self._next_tick = 0
        self._note_next()
        self.time = 0
        self.rows = dict.fromkeys(self._inputs, 0)

    # -- as a source -------------------------------------------------------------------------------------------------

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left."""
        return self.generator.position >= self._end

    @property
    def position(self) -> int | None:
        """How far a bounded run is, in events; the migrations of others go by the clock."""
        return self.generator.position if self._bounded else None

    def send(self, records: int) -> int:
        """Advance the inputs to the next event's tick and send up to so many events of that tick; returns how many."""
        generator = self.generator
        if self.exhausted:
            return 0
        self._move_to(self._next_tick)
        events = min(records, generator.due(self.time + self._tick), self._end - generator.position)
        counts = generator.counts(events)._asdict()
        loans = {name: handle.loan(counts[name]) for name, handle in self._inputs.items() if counts[name]}
        generator.fill(events, **loans)
        self._note_next()
        for name, loan in loans.items():
            self.rows[name] += counts[name]
            self._inputs[name].send(loan)
        return events

    def ripe(self, now: int) -> int:
        """Return how many events are not sent yet whose tick is over on the clock.

        Args:
            now: ns of the clock since the start of the run.
        """
        return self.generator.due(now * self._dilation // self._tick * self._tick)

    def until_tick(self, now: int) -> int:
        """Return the ns of the clock until the current tick is over."""
        return -(-(self._tick - now * self._dilation % self._tick) // self._dilation)

    def end(self) -> None:
        """Say that no event follows: time then need not wait for the next one."""
        self._end = min(self._end, self.generator.position)

    def _note_next(self) -> None:
        """Find the tick of the next event; after the last one time goes on by single ticks."""
        if not self.exhausted:
            date = self.generator.date_time(self.generator.position)
            self._next_tick = date // self._tick * self._tick

    # -- as an input -------------------------------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        """The widest of the inputs' columns: that a batch of it fits a slab holds for the others, too."""
        return max((handle.schema for handle in self._inputs.values()), key=lambda schema: schema.row_bytes)

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return all(handle.closed for handle in self._inputs.values())

    def close(self) -> None:
        """End all inputs: what waits for a window's end or a close then need not wait for events."""
        for handle in self._inputs.values():
            handle.close()

    def advance_to(self, now: int) -> None:
        """Let time pass: to that of the clock in open loop, to the next event's tick in closed loop.

        Args:
            now: ns of the clock since the start of the run.
        """
        if self.exhausted:
            # Steps of a plan may still be due, and each takes effect at a time of its own.
            self._move_to(self.time + self._tick)
            return
        tick = self._next_tick
        if self._open_loop:
            tick = min(tick, now * self._dilation // self._tick * self._tick)
        self._move_to(tick)

    def _move_to(self, time: int) -> None:
        if time > self.time:
            for handle in self._inputs.values():
                handle.advance_to(time)
            self.time = time


class EventDriver(Driver):
    """The driver of a run whose inputs are at event time, which is not the clock.

    On schedule, events are sent when their tick is over or when they fill a batch: before its end nothing of a tick can
    be complete, and a tick in many small batches costs the operators as many times as much.
    """

    lift = ABOVE_PLANS

    def __init__(self, worker: Worker, data: EventSource, probe: Frontier, **options: Any) -> None:
        super().__init__(worker, data, probe, data, **options)
        self._events = data

    def _due(self, now: int) -> int:
        due = super()._due(now)
        if due >= self.batch_records or (self.duration_ns is not None and now >= self.duration_ns):
            return due
        return min(due, self._events.ripe(now))

    def _rest(self) -> None:
        if self.data.closed or self.step_ns is None:
            super()._rest()
        else:
            self.worker.park(min(self._events.until_tick(self.now()), REST_NS))

    def _may_close(self) -> bool:
        # What is still open is closed at the end, all at once; no event need wait for that.
        return super()._may_close() and (self.step_ns is None or not self.out)

    def _advance(self, now: int) -> None:
        self._advanced = now
        if self.duration_ns is not None and now >= self.duration_ns and (self.step_ns is None or not self._due(now)):
            self._events.end()
        self.data.advance_to(now)
