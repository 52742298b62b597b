"""Pacing: when the next step of a plan may be sent.

The driver on worker 0 asks after every round.  A step is due when

1. its file time is not after the present time of the control input (the file time only says "not before"; the step
   takes effect at the control's present time),
2. the step before is complete: the probe's frontier is beyond the time at which that one took effect, and
3. ``gap_ns`` have passed since it was seen to be complete, so that records that piled up can drain.

Steps with file time 0 set up the run: the driver sends them before the start, all at logical time 0.

This is a state machine without clock and without input or output: all times are given by the driver, on one clock that
counts nanoseconds from the start of the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from megaphone.errors import InternalError, UsageError
from megaphone.migration.plan import Plan, Step

U64Array = npt.NDArray[np.uint64]

_NOT_YET: Final = 2**64 - 1  # In the record columns: not sent, or not complete.


@dataclass(frozen=True)
class StepRecord:
    """What became of one step.

    Attributes:
        index: the step's place in the plan.
        time_ns: its file time.
        strategy: the strategy of its migration.
        bins: how many bins it really moved.
        sent_ns: the driver's clock when it was sent.
        effective_ns: the control's time at which it took effect.
        completed_ns: the driver's clock when the probe was seen beyond ``effective_ns``; None while it is in flight.
    """

    index: int
    time_ns: int
    strategy: str
    bins: int
    sent_ns: int
    effective_ns: int
    completed_ns: int | None


@dataclass(frozen=True)
class MigrationRecord:
    """What became of the consecutive steps that share a file time and a strategy, as far as they were sent.

    Attributes:
        time_ns: their file time.
        strategy: their strategy.
        steps: how many were sent.
        steps_planned: how many the plan has.
        bins: how many bins those sent really moved.
        sent_ns: the driver's clock when the first was sent.
        completed_ns: the driver's clock when the last was complete; None unless all planned ones are.
    """

    time_ns: int
    strategy: str
    steps: int
    steps_planned: int
    bins: int
    sent_ns: int
    completed_ns: int | None

    @property
    def duration_ns(self) -> int | None:
        """From the first step sent to the last one complete, gaps included; None unless all are complete."""
        return None if self.completed_ns is None else self.completed_ns - self.sent_ns


class Pacer:
    """Hands out the steps of a plan one at a time and keeps the record of each."""

    def __init__(self, plan: Plan, gap_ns: int = 0) -> None:
        """Begin before the first step.

        Args:
            plan: what to send.
            gap_ns: the least time between the completion of a step and the sending of the next, ns.

        Raises:
            UsageError: the gap is negative.
        """
        if gap_ns < 0:
            message = f"negative gap between steps, {gap_ns} ns; use 0 or more"
            raise UsageError(message)
        self._plan = plan
        self._gap_ns = gap_ns
        self._first = plan.initial_step_count
        self._next = self._first
        self._moved = plan.moved()
        self._sent_ns: U64Array = np.full(len(plan.steps), _NOT_YET, dtype=np.uint64)
        self._effective_ns = self._sent_ns.copy()
        self._completed_ns = self._sent_ns.copy()
        self._in_flight_ns: int | None = None  # The effective time of the step in flight.
        self._gap_end_ns = 0

    def initial_steps(self) -> tuple[Step, ...]:
        """Return the steps with file time 0, to be sent at logical time 0 before the start."""
        return self._plan.steps[: self._first]

    @property
    def next_step(self) -> Step | None:
        """The step to be sent next, so that its pages can be warmed; None when all are sent."""
        return None if self.all_sent else self._plan.steps[self._next]

    @property
    def next_time_ns(self) -> int | None:
        """The file time of the step to be sent next, on the plan's own scale; None when all are sent."""
        return None if self.all_sent else int(self._plan.steps.times_ns[self._next])

    @property
    def sent_count(self) -> int:
        """How many steps of the plan have been sent, initial ones included."""
        return self._next

    @property
    def all_sent(self) -> bool:
        """Whether nothing is left to send, so that the control input may be closed."""
        return self._next == len(self._plan.steps)

    @property
    def finished(self) -> bool:
        """Whether all steps are sent and complete."""
        return self.all_sent and self._in_flight_ns is None

    @property
    def in_flight_ns(self) -> int | None:
        """The effective time of the step that the probe has not passed yet; None if there is none."""
        return self._in_flight_ns

    @property
    def next_due_ns(self) -> int | None:
        """The earliest time at which a step can be due by the clock alone, for parking.

        None when all steps are sent, and while one is in flight: then the probe decides, and its move wakes the driver.
        """
        if self.all_sent or self._in_flight_ns is not None:
            return None
        return max(int(self._plan.steps.times_ns[self._next]), self._gap_end_ns)

    def completed(self, frontier: int, now_ns: int) -> StepRecord | None:
        """Note that the step in flight is complete, if the probe is beyond it.

        Args:
            frontier: the probe's frontier on the control's clock: the least time that may still appear; 2**64 - 1
                when nothing may.
            now_ns: the driver's clock.

        Returns:
            The record of the step that this call found to be complete, else None.
        """
        if self._in_flight_ns is None or frontier <= self._in_flight_ns:
            return None
        index = self._next - 1
        self._completed_ns[index] = now_ns
        self._in_flight_ns = None
        self._gap_end_ns = now_ns + self._gap_ns
        return self.record(index)

    def due(self, control_time_ns: int, frontier: int, now_ns: int | None = None) -> Step | None:
        """Return the step to be sent now, at ``control_time_ns``, or None; the driver must send what it gets.

        Args:
            control_time_ns: the present time of the control input: when the step would take effect.
            frontier: the probe's frontier on the same clock, as for ``completed``, which this calls first.
            now_ns: the driver's clock; None where it is the control's time.

        Cost: O(1) when nothing is due; a step's words when one is.
        """
        clock_ns = control_time_ns if now_ns is None else now_ns
        self.completed(frontier, clock_ns)
        if self.all_sent or self._in_flight_ns is not None:
            return None
        if control_time_ns < int(self._plan.steps.times_ns[self._next]) or clock_ns < self._gap_end_ns:
            return None
        if self._next > self._first and control_time_ns <= int(self._effective_ns[self._next - 1]):
            return None  # At one time two steps would merge into one update.
        index = self._next
        self._sent_ns[index] = clock_ns
        self._effective_ns[index] = control_time_ns
        self._in_flight_ns = control_time_ns
        self._next += 1
        return self._plan.steps[index]

    def record(self, index: int) -> StepRecord:
        """Return the record of a step that was sent by ``due``.

        Raises:
            InternalError: it was not; initial steps are not recorded.
        """
        if not self._first <= index < self._next:
            message = f"no record of step {index}: steps {self._first} to {self._next - 1} were sent"
            raise InternalError(message)
        return StepRecord(
            index=index,
            time_ns=int(self._plan.steps.times_ns[index]),
            strategy=self._plan.steps.strategy_of(index),
            bins=int(self._moved[index]),
            sent_ns=int(self._sent_ns[index]),
            effective_ns=int(self._effective_ns[index]),
            completed_ns=_or_none(self._completed_ns[index]),
        )

    @property
    def records(self) -> tuple[StepRecord, ...]:
        """The records of all steps sent, initial ones left out; O(steps)."""
        return tuple(self.record(index) for index in range(self._first, self._next))

    @property
    def migrations(self) -> tuple[MigrationRecord, ...]:
        """The migrations of which at least one step was sent, in order."""
        result: list[MigrationRecord] = []
        for begin, end in self._groups():
            sent = min(end, self._next)
            if sent > begin:
                result.append(
                    MigrationRecord(
                        time_ns=int(self._plan.steps.times_ns[begin]),
                        strategy=self._plan.steps.strategy_of(begin),
                        steps=sent - begin,
                        steps_planned=end - begin,
                        bins=int(self._moved[begin:sent].sum()),
                        sent_ns=int(self._sent_ns[begin]),
                        completed_ns=_or_none(self._completed_ns[end - 1]),
                    )
                )
        return tuple(result)

    def _groups(self) -> list[tuple[int, int]]:
        """Return the first step and the one past the last of each migration."""
        times_ns = self._plan.steps.times_ns
        cuts = np.flatnonzero(times_ns[1:] != times_ns[:-1]) + 1
        sections = np.cumsum([count for _, count in self._plan.steps.sections])
        inside = [at for at in {*cuts.tolist(), *sections.tolist()} if self._first < at < len(self._plan.steps)]
        edges = [self._first, *sorted(inside), len(self._plan.steps)]
        return [(begin, end) for begin, end in zip(edges[:-1], edges[1:], strict=True) if begin < end]


def _or_none(value: np.uint64) -> int | None:
    return None if int(value) == _NOT_YET else int(value)
