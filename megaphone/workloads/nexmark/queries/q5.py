"""q5: the auctions with most bids, over a window that slides.

::

    bid --per batch: bids of each auction and slide--> F by auction --> S: bids[auction]
                                                                        | + now, or at the slide's end
                                                                        | - when the slide leaves the window
                                                   at each slide end: the most in the bins here, with ties
                                                                        +--> F by slide end --> S: the most of all
                                                                                              +--> (time, auction, bids)

Slides end at the multiples T of the slide; the window is [T - size, T) of event time.  For each T whose window has a
bid, a row for every auction with the most bids in it: T, the auction and its bids.  A window that nothing has changed
since the slide before is answered again.

Deletions wait as post-dated records in the bin of their auction and move with it; an auction whose last bid has left
the window is removed.  Of what a batch counts, all that changes at one slide end in one bin is one such record, a
*bundle*: a heap of records bid by bid would cost more than all the rest.  A bin with auctions in it also has a bundle
without changes for the next slide end, its *alarm*: nothing else may be due then, and still the window is to be
answered.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.hashing import bins_of, hash_keys
from megaphone.state.greatest import greatest
from megaphone.state.stores import HashTable
from megaphone.workloads.nexmark.queries.q7 import is_highest

if TYPE_CHECKING:
    from megaphone.dataflow.stream import Stream
    from megaphone.workloads.nexmark.style import Streams, Style

COLUMNS: Final = {"time": "u8", "auction": "u8", "bids": "u8"}
READS: Final = {"bid": ("auction", "date_time")}
_COUNTED: Final = {"auction": "u8", "bids": "i8", "enters": "u8", "leaves": "u8"}
"""Bids of one auction that count at the slide ends in [enters, leaves)."""
_BUNDLE: Final = {"auction": "u8", "at": "u8", "changes": "bytes"}
"""What changes counts of one bin from a slide end on: an auction of the bin, the slide end, and pairs of 8 bytes each,
an auction and the bids that come or, below 0, go. Without pairs it is an alarm."""
_PAIR_BYTES: Final = 16
_RADIX_BITS: Final = 16
_TRUE: Final = np.ones(1, np.bool_)


def q5(events: Streams, how: Style) -> Stream:
    """Build the query."""
    size, slide = events.windows.q5_size, events.windows.q5_slide
    counted = events.bid.flat_map(partial(_count_batch, size, slide), columns=_COUNTED, name=how.name("count-of-batch"))
    most = counted.stateful_unary(
        key="auction", state=HashTable("u8", {"bids": "i8"}), fold=SlidingCount(slide, events).fold, columns=COLUMNS,
        pending=_BUNDLE, **how.options("count"),
    )  # fmt: skip
    return most.stateful_unary(
        key="time", state=HashTable("u8", {"unused": "u8"}), fold=_most_of_all, columns=COLUMNS, per_time=True,
        **how.options("most"),
    )  # fmt: skip


def _count_batch(size: int, slide: int, bid: Any) -> Any:  # noqa: ANN401 - a Batch; one mapping
    """Count the bids of a batch by auction and by the slide ends at which they count."""
    auction, date = bid["auction"], bid["date_time"]
    first, last = int(date.min()), int(date.max())
    enters, leaves = ((first // slide + 1) * slide, ((first + size) // slide + 1) * slide)
    if last < enters and last + size < leaves:
        keys, bids = np.unique(auction, return_counts=True)
        if enters < leaves:
            yield _constant(keys, bids, enters, leaves)
        return
    starts = (date // np.uint64(slide) + np.uint64(1)) * np.uint64(slide)
    ends = ((date + np.uint64(size)) // np.uint64(slide) + np.uint64(1)) * np.uint64(slide)
    order = np.lexsort((ends, starts, auction))
    auction, starts, ends = auction[order], starts[order], ends[order]
    new = np.r_[True, (auction[1:] != auction[:-1]) | (starts[1:] != starts[:-1]) | (ends[1:] != ends[:-1])]
    at = np.flatnonzero(new)
    bids = np.diff(np.r_[at, len(order)])
    # A window shorter than the slide leaves gaps, and what happens in them never counts.
    seen = starts[at] < ends[at]
    at, bids = at[seen], bids[seen]
    yield {"auction": auction[at], "bids": bids, "enters": starts[at], "leaves": ends[at]}


def _constant(keys: Any, bids: Any, enters: int, leaves: int) -> dict[str, Any]:  # noqa: ANN401 - arrays
    n = len(keys)
    return {
        "auction": keys, "bids": bids, "enters": np.full(n, enters, np.uint64), "leaves": np.full(n, leaves, np.uint64)
    }  # fmt: skip


class SlidingCount:
    """The fold that keeps the counts: one per worker and query.

    Args:
        slide: ns of event time.
        events: for the ticks.
    """

    def __init__(self, slide: int, events: Streams) -> None:
        self._slide, self._events = slide, events
        # By bin, the last slide end for which this worker has set the bin's alarm. An alarm stays in its bin until it
        # goes off, wherever the bin moves meanwhile; so this saves records, and forgetting it costs one each.
        self._alarm_set: Any = None

    def fold(self, context: Any) -> None:  # noqa: ANN401 - a FoldContext
        """Answer the windows that end at or before this time; then count what has happened since."""
        due = [segment for segment in context.segments if "at" in segment.schema.index]
        if due:
            self._answer(context, due)
        for counted in context.segments[len(due) :]:
            self._count(context, counted)

    def _next_end(self, time: int) -> int:
        """Return the first slide end after a logical time."""
        return (time // self._slide + 1) * self._slide

    def _answer(self, context: Any, due: Any) -> None:  # noqa: ANN401 - a FoldContext, Batches of bundles
        """Change the counts and send the most, slide end by slide end: mostly there is one."""
        after = self._next_end(context.time)
        hosts, at = (np.concatenate([segment[name] for segment in due]) for name in ("auction", "at"))
        pairs, pairs_at = _unbundled([segment["changes"] for segment in due], at)
        first = int(at.min())
        for end in range(first, after, self._slide):
            now = pairs if pairs_at is None else pairs[pairs_at == end]
            if len(now) and (pairs_at is not None or end == first):
                _change(context.state, np.ascontiguousarray(now[:, 0]), now[:, 1].astype(np.int64))
            most = greatest(context.state, "bids")
            if len(most.keys):
                n = len(most.keys)
                values = {"time": np.full(n, end, np.uint64), "bids": np.full(n, most.value, np.uint64)}
                context.output.send({**values, "auction": most.keys})
        bins = self._bins(context, hosts)
        filled = most.of_bin[bins] > 0
        self._set_alarms(context, hosts[filled], bins[filled], after)

    def _count(self, context: Any, counted: Any) -> None:  # noqa: ANN401 - a FoldContext, a Batch
        """Count bids whose first window is the next one to be answered; post-date others, and all that will leave."""
        auction, bids, enters, leaves = (counted[name] for name in _COUNTED)
        after = self._next_end(context.time)
        now = enters == after
        hosts, bins = self._post_date(context, auction, -bids, leaves)
        if now.all():
            context.state.add_emit(auction, bids)
        else:
            context.state.add_emit(auction[now], bids[now])
            self._post_date(context, auction[~now], bids[~now], enters[~now])
            hosts = auction[now]
            bins = self._bins(context, hosts)
        self._set_alarms(context, hosts, bins, after)

    def _post_date(self, context: Any, auction: Any, bids: Any, at: Any) -> tuple[Any, Any]:  # noqa: ANN401 - as above
        """Post-date changes in bundles; returns an auction of each bundle, and its bin."""
        bins = self._bins(context, auction)
        one_end = (at == at[0]).all()
        order = np.argsort(bins, kind="stable") if one_end else np.lexsort((at, bins))
        bins, pairs = bins[order], np.empty((len(order), 2), np.uint64)
        np.take(auction, order, out=pairs[:, 0])
        np.take(bids.view(np.uint64), order, out=pairs[:, 1])
        begins = bins[1:] != bins[:-1]
        if not one_end:
            at = at[order]
            begins |= at[1:] != at[:-1]
        first = np.flatnonzero(np.concatenate((_TRUE, begins)))
        changes = BytesColumn(
            np.concatenate((first, [len(order)])).astype(np.uint32) * np.uint32(_PAIR_BYTES),
            pairs.reshape(-1).view(np.uint8),
        )
        hosts, ends = pairs[first, 0], at[first]
        context.post_date({"auction": hosts, "at": ends, "changes": changes}, self._events.ceil_tick(ends))
        return hosts, bins[first]

    def _bins(self, context: Any, auction: Any) -> Any:  # noqa: ANN401 - a FoldContext, arrays
        state = context.state
        if self._alarm_set is None:
            self._alarm_set = np.zeros(1 << state.bin_shift, np.uint64)
        bins = bins_of(hash_keys(auction, state.hash_name), state.bin_shift)
        return bins.astype(np.uint16) if state.bin_shift <= _RADIX_BITS else bins  # numpy sorts those by radix

    def _set_alarms(self, context: Any, auction: Any, bins: Any, end: int) -> None:  # noqa: ANN401 - as above
        """See that bins have something due at a slide end; an auction of each stands for it."""
        unset = np.flatnonzero(self._alarm_set[bins] < end)
        if not len(unset):
            return
        bins, first = np.unique(bins[unset], return_index=True)
        n = len(bins)
        nothing = BytesColumn(np.zeros(n + 1, np.uint32), np.empty(0, np.uint8))
        alarm = {"auction": auction[unset][first], "at": np.full(n, end, np.uint64), "changes": nothing}
        context.post_date(alarm, self._events.ceil_tick(end))
        self._alarm_set[bins] = end


def _unbundled(bundles: Any, at: Any) -> tuple[Any, Any]:  # noqa: ANN401 - BytesColumns; arrays
    """Return the pairs of bundles, uint64[n, 2], and the slide end of each pair; None for it if it is one for all."""
    parts = [bundle.data[int(bundle.offsets[0]) : int(bundle.offsets[-1])].view(np.uint64) for bundle in bundles]
    pairs = (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(-1, 2)
    if (at == at[0]).all():
        return pairs, None
    lengths = np.concatenate([np.diff(bundle.offsets) for bundle in bundles])
    return pairs, np.repeat(at, lengths // _PAIR_BYTES)


def _change(state: Any, auction: Any, bids: Any) -> None:  # noqa: ANN401 - a StoreAccess, arrays
    """Add to counts, and remove auctions that have none left."""
    left = state.add_emit(auction, bids)
    rows = state.rows(auction[left == 0], insert=False)
    # An auction may have been at none in passing, or several times.
    state.remove(rows[state.gather(rows, "bids") == 0])


def _most_of_all(context: Any) -> None:  # noqa: ANN401 - a FoldContext
    """Of what the workers have sent for a slide end, keep the most; all of it is here at once, so nothing is stored."""
    columns = {name: context.column(name) for name in COLUMNS}
    keep = np.flatnonzero(is_highest(columns["time"], columns["bids"]))
    context.output.send({name: column[keep] for name, column in columns.items()})
