"""Notificator: tells an operator which of the times that it waits for are complete, in order.

It holds one capability, for the least time that it waits for, so that answers can be sent when that time is complete;
after the last notification it holds none.  At the end of the inputs every time is complete.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from megaphone.dataflow.sending import checked_time
from megaphone.errors import TimeError

if TYPE_CHECKING:
    from megaphone.dataflow.capability import Capability
    from megaphone.dataflow.operators.unary_frontier import FrontierInput, FrontierOutput


class FrontierNotificator:
    """Times, with data or without, that an operator wants to hear of when they are complete at all its inputs.

    Iterating yields ``(time, data)`` for each complete time in order, where data is the list of what was given with
    it, in the order of the calls. It stops between two times when output has to wait, and goes on in the next call of
    the operator's function. While a time is looked at, it may be sent at.
    """

    def __init__(self, inputs: Sequence[FrontierInput], output: FrontierOutput) -> None:
        self._inputs = tuple(inputs)
        self._output = output
        self._heap: list[tuple[int, int, Any]] = []
        self._count = 0  # keeps the order of calls among equal times
        self._capability: Capability | None = None
        self.is_cut = False
        """Whether complete times are left because output had to wait."""

    def __len__(self) -> int:
        """Return how many entries wait."""
        return len(self._heap)

    def notify_at(self, capability: Capability, data: Any = None, *, time: int | None = None) -> None:  # noqa: ANN401
        """Ask to be told when a time is complete.

        Args:
            capability: for that time or an earlier one; the notificator takes one of its own.
            data: to be given back with the time.
            time: the capability's by default.

        Raises:
            TimeError: the capability does not allow the time.
        """
        time = capability.time if time is None else checked_time(time, "notify_at")
        if not capability.held or time < capability.time:
            message = f"notify_at time {time} with {capability!r}: give one for that time or before, not dropped"
            raise TimeError(message)
        if self._capability is None or time < self._capability.time:
            before, self._capability = self._capability, capability.delayed(time)
            if before is not None:
                before.drop()
        heapq.heappush(self._heap, (time, self._count, data))
        self._count += 1

    def __iter__(self) -> Iterator[tuple[int, list[Any]]]:
        heap = self._heap
        self.is_cut = False
        while heap and all(source.done(heap[0][0]) for source in self._inputs):
            if self._output.must_wait:
                self.is_cut = True
                return
            time = heap[0][0]
            data = []
            while heap and heap[0][0] == time:
                data.append(heapq.heappop(heap)[2])
            self._output.time = time
            try:
                yield time, data
            finally:
                self._settle()

    def pending(self) -> list[tuple[int, Any]]:
        """Return what waits, by time and then in the order of the calls."""
        return [(time, data) for time, _, data in sorted(self._heap, key=lambda entry: entry[:2])]

    def _settle(self) -> None:
        """Keep the capability for the least time that still waits; a stalled frontier is what forgetting this gives."""
        if self._capability is None:
            return
        if self._heap:
            self._capability.downgrade(max(self._heap[0][0], self._capability.time))
        else:
            self._capability.drop()
            self._capability = None
