"""The ends of measured dataflows: what arrives is summed up in C, and shows how far time has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megaphone._core import ffi, lib
from megaphone.dataflow.operators.probe import Probe

if TYPE_CHECKING:
    from megaphone.dataflow.stream import Stream
    from megaphone.dataflow.worker import Worker


class Summing(Probe):
    """A probe that counts what passes and adds up a sum that does not depend on its order."""

    def __init__(self, stream: Stream, name: str) -> None:
        super().__init__(stream, name)
        self._sum = ffi.new("uint64_t[2]")

    def setup(self, worker: Worker) -> None:
        """Remember the slot."""
        super().setup(worker)
        self._slot_worker = worker

    @property
    def records(self) -> int:
        """Outputs that have passed on this worker."""
        return int(self._sum[0])

    @property
    def checksum(self) -> int:
        """Their sum, modulo 2**64; those of all workers add up."""
        return int(self._sum[1])


class Sink(Summing):
    """The end of a word count: takes (key, running count); the sum depends on the pairs alone.

    Attributes:
        from_time: outputs of earlier times (loading) are let go unseen.
    """

    def __init__(self, stream: Stream, name: str = "sink", from_time: int = 1) -> None:
        super().__init__(stream, name)
        self.from_time = from_time

    def task(self) -> tuple[Any, Any] | None:
        """Add up what arrives and let it go."""
        port = self.port
        ending = ffi.new("mp_word_ending *", [port.location, port.schema.c, self.from_time, self._sum])
        return ffi.addressof(lib, "mp_word_sink"), ending
