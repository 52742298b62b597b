"""Latency over the run: one histogram per window of the *scheduled* time.

A record counts in the window in which it was due, not in the one in which it was done.  So a stall is seen whole: the
windows that it delayed show it, however late their records come out.

Only windows are recorded.  The summary after the warm-up, and what happened around a migration, are sums of windows;
that is exact up to the window's edges and keeps the recording at one call per batch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from megaphone._core import ffi, lib
from megaphone.errors import UsageError
from megaphone.observe.histogram import COUNT_WORD, MAX_WORD, WORD_COUNT, Histogram, merge_words, quantiles_of

if TYPE_CHECKING:
    from megaphone.observe.histogram import U64Array

WINDOW_NS = 250_000_000
WARM_UP_NS_MIN = 2_000_000_000
AROUND_NS = 1_000_000_000
"""How much before and after a migration is compared with it."""

_WINDOW_COUNT_START = 64
_WINDOW_COUNT_MAX = 4096
"""17 minutes of 250 ms windows, 32 MB; a longer run is shown in windows of twice the width rather than in more."""
_ROW_QUANTILES = (0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0)


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """A distribution in the figures that reports print; latencies in ns, ``samples`` in records."""

    p50: int
    p90: int
    p99: int
    p999: int
    max: int
    samples: int

    @classmethod
    def of(cls, histogram: Histogram) -> LatencySummary:
        """Return the figures of one histogram; all 0 if it is empty."""
        p50, p90, p99, p999 = histogram.quantiles((0.5, 0.9, 0.99, 0.999))
        return cls(p50=p50, p90=p90, p99=p99, p999=p999, max=histogram.max, samples=histogram.count)

    def to_dict(self) -> dict[str, int]:
        """Return the figures by name, in the order of the report."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LatencyAround:
    """Latency of what was due in the second before a migration, during it, and in the second after.

    A part without records is None.
    """

    before: LatencySummary | None
    during: LatencySummary | None
    after: LatencySummary | None


def warm_up_ns(duration_ns: int) -> int:
    """Return how much of the beginning of a run its summary leaves out.

    That is 2 s or 10 % of the run, whichever is longer; a run that is not longer than its warm-up has none, because
    a summary of nothing helps nobody.
    """
    warm_up = max(WARM_UP_NS_MIN, duration_ns // 10)
    return warm_up if warm_up < duration_ns else 0


class Timeline:
    """Histograms of latency, one per window of the scheduled time.

    Times count from the start of the run, in ns.  Memory is bounded: beyond 4096 windows, neighbours are added up and
    ``window_ns`` doubles.

    Args:
        window_ns: width of a window at the start.

    Raises:
        UsageError: ``window_ns`` is not positive.
    """

    __slots__ = ("_pointer", "_words", "window_ns")

    def __init__(self, window_ns: int = WINDOW_NS) -> None:
        if window_ns <= 0:
            message = f"a window of {window_ns} ns holds nothing: give at least 1"
            raise UsageError(message)
        self.window_ns = window_ns
        self._adopt(np.zeros((_WINDOW_COUNT_START, WORD_COUNT), dtype=np.uint64))

    @classmethod
    def from_array(cls, words: U64Array, window_ns: int) -> Timeline:
        """Return a timeline with what `to_array` of another one gave, for example in another process; copied.

        Args:
            words: uint64[n, WORD_COUNT].
            window_ns: width of the windows in ``words``.

        Raises:
            UsageError: ``words`` has another shape or type.
        """
        if words.ndim != 2 or words.shape[1] != WORD_COUNT or words.dtype != np.uint64:
            message = (
                f"a timeline needs uint64[n, {WORD_COUNT}], this is {words.dtype}{list(words.shape)}: "
                "use what to_array returned"
            )
            raise UsageError(message)
        timeline = cls(window_ns)
        count = max(len(words), 1)
        own = np.zeros((count, WORD_COUNT), dtype=np.uint64)
        own[: len(words)] = words
        timeline._adopt(own)
        return timeline

    def to_array(self) -> U64Array:
        """Return a copy of the windows up to the last that holds a record, uint64[n, WORD_COUNT]."""
        return self._words[: self._used()].copy()

    def record_schedule(self, now_ns: int, first_ns: int, step_ns: int, count: int) -> None:
        """Record the latencies of ``count`` records that were due at first_ns, first_ns + step_ns, ... and are done.

        A record that was due after ``now_ns`` counts as 0.

        Cost: O(windows touched + buckets touched in each), not O(count); one C call, unless the timeline grows.
        """
        if count <= 0:
            return
        self._reach(first_ns + (count - 1) * step_ns)
        lib.mp_timeline_schedule(self._pointer, len(self._words), self.window_ns, now_ns, first_ns, step_ns, count)

    def merge(self, other: Timeline) -> None:
        """Add all that ``other`` holds, for example what another worker measured of its own schedule.

        Raises:
            UsageError: the windows differ by something else than a power of two.
        """
        narrow, wide = sorted((self.window_ns, other.window_ns))
        if wide % narrow or (wide // narrow).bit_count() != 1:
            message = (
                f"windows of {other.window_ns} ns do not nest with windows of {self.window_ns} ns: "
                "record both with the same width"
            )
            raise UsageError(message)
        theirs, their_window_ns = other.to_array(), other.window_ns
        while self.window_ns < their_window_ns:
            self._widen()
        while True:
            # Making room below may widen our windows; theirs follow.
            while their_window_ns < self.window_ns:
                theirs, their_window_ns = _widened(theirs), 2 * their_window_ns
            if len(theirs) <= len(self._words):
                break
            self._reach(len(theirs) * their_window_ns - 1)
        mine = self._words[: len(theirs)]
        maxima = np.maximum(mine[:, MAX_WORD], theirs[:, MAX_WORD])
        mine += theirs
        mine[:, MAX_WORD] = maxima

    def rows(self) -> list[list[int]]:
        """Return ``[start_ns, p25, p50, p75, p95, p99, p999, max]`` of every window that holds a record."""
        return [
            [index * self.window_ns, *quantiles_of(self._words[index], _ROW_QUANTILES)]
            for index in map(int, np.flatnonzero(self._words[:, COUNT_WORD]))
        ]

    def between(self, start_ns: int, end_ns: int) -> Histogram:
        """Return what was due in the windows that [start_ns, end_ns) touches; whole windows, so up to one more."""
        first = max(start_ns, 0) // self.window_ns
        end = max(-(-end_ns // self.window_ns), first)
        return Histogram(merge_words(self._words[first:end]))

    def after_warm_up(self, duration_ns: int) -> Histogram:
        """Return what was due after the warm-up of a run of that length.

        The warm-up is `warm_up_ns`, rounded up to a whole window, so that no part of it leaks into the summary.
        """
        first = -(-warm_up_ns(duration_ns) // self.window_ns)
        return Histogram(merge_words(self._words[first:]))

    def around(self, time_ns: int, duration_ns: int) -> LatencyAround:
        """Return latency before, during and after what began at ``time_ns`` and took ``duration_ns``.

        *During* is every window that it touches, also where it is far shorter than a window; *before* and *after* are
        a second each and have no window in common with it.
        """
        start_ns = max(time_ns, 0) // self.window_ns * self.window_ns
        end_ns = (max(time_ns, 0) + max(duration_ns, 0)) // self.window_ns * self.window_ns + self.window_ns
        return LatencyAround(
            before=_summary_or_none(self.between(start_ns - AROUND_NS, start_ns)),
            during=_summary_or_none(self.between(start_ns, end_ns)),
            after=_summary_or_none(self.between(end_ns, end_ns + AROUND_NS)),
        )

    def _used(self) -> int:
        """Return how many windows there are up to the last that holds a record."""
        filled = np.flatnonzero(self._words[:, COUNT_WORD])
        return int(filled[-1]) + 1 if len(filled) else 0

    def _reach(self, time_ns: int) -> None:
        """Grow, or widen the windows, until one of them holds ``time_ns``."""
        while time_ns // self.window_ns >= len(self._words):
            if len(self._words) >= _WINDOW_COUNT_MAX:
                self._widen()
                continue
            wanted = time_ns // self.window_ns + 1
            count = min(max(2 * len(self._words), wanted), _WINDOW_COUNT_MAX)
            grown = np.zeros((count, WORD_COUNT), dtype=np.uint64)
            used = self._used()
            grown[:used] = self._words[:used]
            self._adopt(grown)

    def _widen(self) -> None:
        """Add up neighbours; the number of windows stays, the upper half is empty."""
        words = np.zeros_like(self._words)
        halved = _widened(self._words[: self._used()])
        words[: len(halved)] = halved
        self._adopt(words)
        self.window_ns *= 2

    def _adopt(self, words: U64Array) -> None:
        """Count in ``words`` from now on."""
        self._words = words
        self._pointer = ffi.from_buffer("uint64_t[]", words, require_writable=True)


def _widened(words: U64Array) -> U64Array:
    """Return windows of twice the width: uint64[ceil(n / 2), WORD_COUNT]."""
    even, odd = words[0::2], words[1::2]
    wide = even.copy()
    wide[: len(odd)] += odd
    wide[: len(odd), MAX_WORD] = np.maximum(even[: len(odd), MAX_WORD], odd[:, MAX_WORD])
    return wide


def _summary_or_none(histogram: Histogram) -> LatencySummary | None:
    """Return the figures, or None where nothing was recorded."""
    return LatencySummary.of(histogram) if histogram.count else None
