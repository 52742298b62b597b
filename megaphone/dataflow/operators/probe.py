"""Probe: shows how far time has come at a point of the dataflow, and lets records go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megaphone._core import ffi, lib
from megaphone.dataflow.graph import Operator
from megaphone.dataflow.stream import Stream, stream_method
from megaphone.errors import MegaphoneError

if TYPE_CHECKING:
    from megaphone.dataflow.worker import Worker

NEVER = 2**64 - 1


class Probe(Operator):
    """Handle to a point of the dataflow: which times may still appear there."""

    messages_alone = True

    def __init__(self, stream: Stream, name: str) -> None:
        super().__init__(stream.graph, name)
        self.port = self.add_input(stream)

    def setup(self, worker: Worker) -> None:
        """Remember the slot."""
        self._worker = worker

    def task(self) -> tuple[Any, Any] | None:
        """Let go of what arrives; a probe that looks at it first has an ``activate`` of its own."""
        if type(self).activate is not Operator.activate:
            return None
        return ffi.addressof(lib, "mp_drain_run"), ffi.new("uint32_t *", self.port.location)

    def frontier(self) -> int:
        """Return the least time that may still appear here; 2**64 - 1 when none can."""
        if not self._worker.slot:
            message = f"probe {self.name!r} is read after the run: read it while the worker runs"
            raise MegaphoneError(message)
        return int(lib.mp_frontier(self._worker.slot, self.port.location))

    def done(self, time: int) -> bool:
        """Return whether everything at or before ``time`` has passed."""
        return self.frontier() > time


@stream_method
def probe(stream: Stream, name: str = "probe") -> Probe:
    """Add a probe at the end of a stream; it keeps nothing."""
    return Probe(stream, name)
