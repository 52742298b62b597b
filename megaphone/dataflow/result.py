"""What a run gives back to whoever called ``execute``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from megaphone.errors import UsageError
from megaphone.shm.counters import COUNTER_INDEX

if TYPE_CHECKING:
    from megaphone.dataflow.graph import Graph


SAMPLE_NS: Final = 250_000_000
"""Between two looks at what a run occupies."""
SAMPLES_MAX: Final = 2048
"""Of one run, however long: the first 8 minutes look by look."""


@dataclass(frozen=True, slots=True)
class MemorySample:
    """What a run occupied: at one moment, or in a long run at most, from that moment until the next sample's.

    Attributes:
        time_ns: of the monotonic clock.
        pss_bytes: of all processes together; None at most moments, because the kernel walks page tables for it.
        committed_bytes: of the data region: what has memory behind it; never falls.
        state_bytes: in blocks: stores, queues, lists of times.
        pinned_bytes: in slabs that a batch, a message or a view still names; each worker counts its own about as often
            while it steps, so the figure of one that does not step is an older one.
    """

    time_ns: int
    pss_bytes: int | None
    committed_bytes: int
    state_bytes: int
    pinned_bytes: int

    def merged(self, later: MemorySample) -> MemorySample:
        """Return one for the time of both: the maximum of each figure, from the beginning of this one."""
        told = [pss_bytes for pss_bytes in (self.pss_bytes, later.pss_bytes) if pss_bytes is not None]
        return MemorySample(
            self.time_ns,
            max(told, default=None),
            max(self.committed_bytes, later.committed_bytes),
            max(self.state_bytes, later.state_bytes),
            max(self.pinned_bytes, later.pinned_bytes),
        )


class MemoryHistory:
    """The samples of a run, in a bounded number of which no peak is lost.

    When there are too many, neighbours become one, and from then on one stands for twice the time: so a run of any
    length is told from its beginning to its end in even steps.

    Attributes:
        samples: in the order of time, at most `SAMPLES_MAX`.
    """

    __slots__ = ("_span_ns", "samples")

    def __init__(self) -> None:
        self.samples: list[MemorySample] = []
        self._span_ns = 0  # nothing is merged before there are too many

    def add(self, sample: MemorySample) -> None:
        """Add a look; O(1), or O(SAMPLES_MAX) once in so many."""
        samples = self.samples
        if samples and sample.time_ns < samples[-1].time_ns + self._span_ns:
            samples[-1] = samples[-1].merged(sample)
            return
        if len(samples) == SAMPLES_MAX:
            samples[:] = [samples[at].merged(samples[at + 1]) for at in range(0, SAMPLES_MAX, 2)]
            self._span_ns = 2 * max(self._span_ns, SAMPLE_NS)
        samples.append(sample)


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a run, with everything in the order of the workers.

    Attributes:
        returned: what ``drive`` returned in each worker; None for each where there was no drive.
        captures: what operators collected, by operator name, merged over the workers as their class says; a list of
            one per worker where it says nothing.
        counters: of each worker, by name, at the end.
        seconds: from the moment when all workers were ready until the dataflow was empty.
        memory_samples: about four in a second, of a run of more than 8 minutes the maxima of longer times, as evenly;
            none where they were not asked for.
        origin_ns: of the same clock, when the workers' timed part began together; 0 where it has none.
        pss_bytes_max: the peak of what the workers and the caller occupied together, as far as it was sampled; 0
            where it was not asked for.
        committed_bytes: of the data region, at the end; it never shrinks.
        huge_bytes: of these, in huge pages; the kernel grants them on request, or not.
        region_bytes: size of both regions, whether memory is behind them or not.
    """

    returned: list[Any]
    captures: dict[str, Any]
    counters: list[dict[str, int]]
    seconds: float
    memory_samples: tuple[MemorySample, ...]
    origin_ns: int
    pss_bytes_max: int
    committed_bytes: int
    huge_bytes: int
    region_bytes: int

    def counter(self, name: str) -> int:
        """Return the sum of a counter over all workers.

        Raises:
            UsageError: there is no counter of this name; the message has all.
        """
        if name not in COUNTER_INDEX:
            message = f"no counter {name!r}: there are {', '.join(COUNTER_INDEX)}"
            raise UsageError(message)
        return sum(counters[name] for counters in self.counters)


def collect(graph: Graph) -> dict[str, Any]:
    """Return in a worker what its operators have collected, by operator name.

    An operator takes part by an attribute ``collects`` that is true and a method ``result()``.
    """
    collectors: list[Any] = [operator for operator in graph.operators if getattr(operator, "collects", False)]
    return {collector.name: collector.result() for collector in collectors}


def merge_captures(graph: Graph, collected: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put together what all workers collected.

    Args:
        graph: the caller's own; its operators' classes may have a static method ``merge(results)``.
        collected: of each worker, as ``collect`` returned it.
    """
    merged: dict[str, Any] = {}
    for operator in graph.operators:
        if getattr(operator, "collects", False):
            results = [captures[operator.name] for captures in collected]
            merge = getattr(type(operator), "merge", None)
            merged[operator.name] = results if merge is None else merge(results)
    return merged
