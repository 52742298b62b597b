"""Capabilities: the right to send at a time or later, kept for as long as the operator may still need it.

    batch at t ──> output.capability(t) ──> kept ── downgrade(t') ──> sends at t' or later ── drop

While one is held, no frontier downstream passes its time; so a capability that is forgotten stalls the dataflow, and
one that is garbage is dropped.  Taking one changes counts in the activation that is open; dropping, which may happen
in any thread, only leaves a note that the worker applies before it next publishes.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

from megaphone.dataflow.sending import checked_time
from megaphone.errors import MegaphoneError, TimeError

if TYPE_CHECKING:
    from megaphone.dataflow.graph import OutputPort
    from megaphone.dataflow.worker import Worker


class Capability:
    """The right to send at ``time`` or later at one output; made by ``output.capability(time)``.

    Attributes:
        time: the least time that it allows.
        held: whether it has not been dropped.

    ``drop`` may be called in any thread, everything else in the worker's. As a context manager it is dropped at the
    end of the block.
    """

    __slots__ = ("_lock", "_port", "_worker", "held", "time")

    def __init__(self, worker: Worker, port: OutputPort, time: int) -> None:
        """Take the capability; what justifies it has been checked by who makes it."""
        self.held = False
        self._lock = threading.Lock()  # a drop in another thread is of the old time or the new, never of none
        self._worker = worker
        self._port = port
        self.time = time
        worker.hold_capability(port.location, time)
        self.held = True

    def delayed(self, time: int) -> Capability:
        """Return a further capability, for a later time or the same.

        Raises:
            TimeError: the time is before this one's, or this one has been dropped.
        """
        return Capability(self._worker, self._port, self._checked(time))

    def downgrade(self, time: int) -> None:
        """Give up the times before ``time``.

        Raises:
            TimeError: the time is before this one's, or this one has been dropped.
        """
        time = self._checked(time)
        if time == self.time:
            return
        self._worker.hold_capability(self._port.location, time)
        with self._lock:
            # Dropped meanwhile, the old time is on its way already, and it is the new one that nobody holds.
            given_up = self.time if self.held else time
            self.time = time
        self._worker.drop_capability(self._port.location, given_up)

    def drop(self) -> None:
        """Give it up; in any thread, and as often as one likes."""
        with self._lock:
            was_held, self.held = self.held, False
            time = self.time
        if was_held:
            self._worker.drop_capability(self._port.location, time)

    def _checked(self, time: int) -> int:
        where = f"operator {self._port.operator.name!r}"
        time = checked_time(time, where)
        if not self.held:
            message = f"{where} uses a capability for time {self.time} that it has dropped: keep it until the last send"
            raise TimeError(message)
        if time < self.time:
            message = f"{where} holds a capability for time {self.time}, which allows none for {time}: times only rise"
            raise TimeError(message)
        if not self._worker.slot:
            message = f"{where} uses a capability after the run: use it while the worker runs"
            raise MegaphoneError(message)
        return time

    def __enter__(self) -> Capability:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    def __del__(self) -> None:
        if self.held:
            self.drop()

    def __repr__(self) -> str:
        return f"Capability({self._port.operator.name!r}, time={self.time}{'' if self.held else ', dropped'})"
