"""What a query is built of: the streams that it reads, and a style that says how its operators keep their state.

A query is one definition.  Its style makes of it ``qN``, on plain operators whose bins have one owner for good, or
``qN-flex``, whose bins move as the run's control says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from megaphone.dataflow.stream import Stream
    from megaphone.migration.operators.control import Control
    from megaphone.workloads.nexmark.settings import NexmarkSettings, Windows


class Streams:
    """The events that a run has, and the parameters of its queries.

    Args:
        streams: person, auction and bid by name, those that a query of the run reads.
        settings: of the run.

    Attributes:
        tick_ns: event time that shares one logical time.
        windows: sizes of the queries' windows, ns of event time.
        settings: of the run.
    """

    def __init__(self, streams: Mapping[str, Stream], settings: NexmarkSettings) -> None:
        self._streams = dict(streams)
        self.tick_ns = settings.tick
        self.windows: Windows = settings.windows
        self.settings = settings

    @property
    def person(self) -> Stream:
        """People who come to the auction house."""
        return self._streams["person"]

    @property
    def auction(self) -> Stream:
        """Auctions that open."""
        return self._streams["auction"]

    @property
    def bid(self) -> Stream:
        """Bids on auctions."""
        return self._streams["bid"]

    def ceil_tick(self, times: Any) -> Any:  # noqa: ANN401 - an int, or uint64[n]
        """Return the logical time at which all events before an event time have come: the first tick not before it."""
        if isinstance(times, int):
            return -(-times // self.tick_ns) * self.tick_ns
        tick = times.dtype.type(self.tick_ns)
        return (times + (tick - 1)) // tick * tick


@dataclass(frozen=True)
class Style:
    """How the operators of one query keep their state.

    Attributes:
        query: the query's name with its ending, which the names of its operators begin with.
        flex: whether bins may move.
        control: where migrations come from, for bins that may.
        bin_shift: log2 of the bins.
        transfer: how a bin changes its owner.
        initial: the owners at the start; None is the usual map.
    """

    query: str
    flex: bool = False
    control: Control | None = None
    bin_shift: int = 8
    transfer: str = "handover"
    initial: Any = None

    def name(self, operator: str) -> str:
        """Return the name of an operator of this query."""
        return f"{self.query}.{operator}"

    def options(self, operator: str) -> dict[str, Any]:
        """Return what a stateful operator of this query is told beside what it does."""
        if not self.flex:
            return {"name": self.name(operator), "bin_shift": self.bin_shift, "plain": True}
        return {
            "name": self.name(operator), "bin_shift": self.bin_shift, "control": self.control,
            "transfer": self.transfer, "initial": self.initial,
        }  # fmt: skip

    def distribute(self, stream: Stream, key: str, operator: str = "distribute") -> Stream:
        """Send records to the owner of their key's bin; the plain style has no such step, and they stay.

        Args:
            stream: what is distributed.
            key: the column that chooses the bin.
            operator: its name.
        """
        if not self.flex:
            return stream
        return stream.distribute(
            key, name=self.name(operator), bin_shift=self.bin_shift, control=self.control, initial=self.initial
        )
