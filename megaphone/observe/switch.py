"""Latency around a switch: exactly the second that begins at it, and the worst 10 ms of that second.

::

    250 ms before         the second after the switch          of the time at which records were due
    |..|..|..|..|..|..|..|X.|..|..|..|..|..|..|..|..|..|       slices of 10 ms, a histogram each
                          ^ planned time: the same in a run in which nothing moves

A timeline has windows that lie where they lie, and a switch falls into the middle of one; these slices begin at it.
The switch is at its *planned* time: a run without a migration has that too, so the two can be compared record by
record, and whatever the control of a migration is late by counts as part of what it costs.

A slice scores the p99 of its own records.  Its highest latency would be one record's, which on a shared machine belongs
to whoever else runs there; its mean would let a pause of 1 ms vanish among 9 ms of calm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from megaphone._core import ffi, lib
from megaphone.observe.histogram import COUNT_WORD, MAX_WORD, WORD_COUNT, Histogram, merge_words, quantiles_of
from megaphone.observe.timeline import LatencySummary

if TYPE_CHECKING:
    from megaphone.observe.histogram import U64Array

SLICE_NS: Final = 10_000_000
SECOND_NS: Final = 1_000_000_000
BEFORE_NS: Final = 250_000_000
"""Shown before each switch, so that a chart has something to compare with; no figure is made of it."""
SWITCHES_MAX: Final = 16
"""Of one run, the first ones: each takes a megabyte in every worker."""
_SLICES_BEFORE: Final = BEFORE_NS // SLICE_NS
_SLICES: Final = _SLICES_BEFORE + SECOND_NS // SLICE_NS
_SLICE_QUANTILES: Final = (0.5, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class SwitchLatency:
    """What was due around one switch; times and latencies in ns.

    Attributes:
        time_ns: planned time of the switch, since the start of the run.
        covered_ns: how much of the second after it is this switch's: less than a second where the run ended sooner, or
            the next switch was due.
        latency: of what was due in [time_ns, time_ns + 1 s); None where the second is not whole.
        worst_start_ns: begin of the slice of that second whose p99 is the highest; the first of equals; None likewise.
        worst_p99: of that slice; None likewise.
        slices: ``[start_ns, p50, p99, max]`` of each slice that has records, from a quarter of a second before, to a
            second after, whether that is whole or not.
    """

    time_ns: int
    covered_ns: int
    latency: LatencySummary | None
    worst_start_ns: int | None
    worst_p99: int | None
    slices: list[list[int]]

    def to_dict(self) -> dict[str, object]:
        """Return the switch as the JSON report has it."""
        worst = None if self.latency is None else {"start": self.worst_start_ns, "p99": self.worst_p99}
        return {
            "time_ns": self.time_ns,
            "covered_ns": self.covered_ns,
            "latency_ns": None if self.latency is None else self.latency.to_dict(),
            "slice_ns": SLICE_NS,
            "worst_slice_ns": worst,
            "slices": self.slices,
        }


class Switch:
    """Records latency around one planned time.

    Args:
        time_ns: planned time of the switch, since the start of the run.
        words: what `to_array` of another one gave, for example in another process; copied.
    """

    __slots__ = ("_end_ns", "_pointer", "_start_ns", "_words", "time_ns")

    def __init__(self, time_ns: int, words: U64Array | None = None) -> None:
        self.time_ns = time_ns
        self._start_ns, self._end_ns = time_ns - BEFORE_NS, time_ns + SECOND_NS
        self._words = np.zeros((_SLICES, WORD_COUNT), np.uint64) if words is None else words.copy()
        self._pointer = ffi.from_buffer("uint64_t[]", self._words, require_writable=True)

    def to_array(self) -> U64Array:
        """Return a copy of the slices, uint64[125, WORD_COUNT]."""
        return self._words.copy()

    def record_schedule(self, now_ns: int, first_ns: int, step_ns: int, count: int) -> None:
        """Record those of ``count`` records, due at first_ns, first_ns + step_ns, ... and done now, that were due here.

        Cost: a comparison where none was; else as `Timeline.record_schedule`.
        """
        if count <= 0 or first_ns >= self._end_ns or first_ns + (count - 1) * step_ns < self._start_ns:
            return
        early = -(-max(0, self._start_ns - first_ns) // step_ns) if step_ns else 0
        first_ns += early * step_ns
        # Beyond the last slice the core records nothing.
        lib.mp_timeline_schedule(
            self._pointer, _SLICES, SLICE_NS, max(0, now_ns - self._start_ns), first_ns - self._start_ns, step_ns,
            count - early,
        )  # fmt: skip

    def merge(self, other: Switch) -> None:
        """Add what another worker measured of its own schedule around the same time."""
        maxima = np.maximum(self._words[:, MAX_WORD], other._words[:, MAX_WORD])
        self._words += other._words
        self._words[:, MAX_WORD] = maxima

    def latency(self, covered_ns: int = SECOND_NS) -> SwitchLatency | None:
        """Return the figures; None where nothing was due in the second after the switch.

        Args:
            covered_ns: how much of that second is this switch's.
        """
        whole = Histogram(merge_words(self._words[_SLICES_BEFORE:]))
        if not whole.count:
            return None
        slices = [
            [self._start_ns + index * SLICE_NS, *quantiles_of(self._words[index], _SLICE_QUANTILES)]
            for index in map(int, np.flatnonzero(self._words[:, COUNT_WORD]))
        ]
        if covered_ns < SECOND_NS:
            # A figure of half a second is no smaller or larger one of a second: it is not to be compared with any.
            return SwitchLatency(self.time_ns, covered_ns, None, None, None, slices)
        worst = max((one for one in slices if one[0] >= self.time_ns), key=lambda one: one[2])
        return SwitchLatency(self.time_ns, covered_ns, LatencySummary.of(whole), worst[0], worst[2], slices)
