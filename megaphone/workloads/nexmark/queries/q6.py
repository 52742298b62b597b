"""q6: the average price that a seller's last auctions were won for.

::

    auction, bid --> closed auctions --F by seller--> S: last ten prices[seller] --> (time, seller, average)

For each closed auction with a winner, in the order of (date, id), a row: the date at which it closes, its seller, and
the average of the winning prices of the seller's last ten, this one included, rounded down.

The state of closed auctions is in `closed`; here it is a list of at most ten prices for each seller.  A list goes when
the generator cannot name its seller any more and all that it did name are closed: a post-dated record waits for that
in the seller's bin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from megaphone.state.stores import Rows
from megaphone.workloads.nexmark.events import AUCTIONS_PER_EPOCH, EPOCH
from megaphone.workloads.nexmark.queries.closed import AUCTION_READS, BID_READS, closed_auctions, send_at
from megaphone.workloads.nexmark.source import make_generator

if TYPE_CHECKING:
    from megaphone.dataflow.stream import Stream
    from megaphone.workloads.nexmark.style import Streams, Style

COLUMNS: Final = {"time": "u8", "seller": "u8", "average": "u8"}
READS: Final = {"auction": (*AUCTION_READS, "seller"), "bid": BID_READS}
LAST: Final = 10
"""Auctions of a seller that an average is over."""
FIRST_PERSON_ID: Final = 1000
ACTIVE_PEOPLE: Final = 1000
"""A seller is one of the last so many persons, or, if hot, of the last hundred; see ``generator.h``."""


def q6(events: Streams, how: Style) -> Stream:
    """Build the query."""
    closed = closed_auctions(events, how, "seller")
    last = LastTen(events)
    # In one call for many times: the fold forgets sellers of whom nothing comes any more, so it may do that late.
    return closed.stateful_unary_input(
        key="seller", state=Rows("u8", {"price": "u8"}, cell_rows=LAST), consume=last.average, fold=_forget,
        columns=COLUMNS, pending={"seller": "u8"}, per_time=False, **how.options("average"),
    )  # fmt: skip


class LastTen:
    """What keeps the sellers' last prices: one per worker and query.

    Args:
        events: for the ticks, and for how long a seller may be named.
    """

    def __init__(self, events: Streams) -> None:
        self._events = events
        generator = make_generator(events.settings, 0)
        self._delay_ns = generator.delay_ns
        # An auction closes within twice the time in which the auctions in flight open; the 2 are for rounding.
        ahead = generator.in_flight * EPOCH // AUCTIONS_PER_EPOCH
        self._open_ns_max = 2 * (int(ahead * self._delay_ns) + 2)

    def average(self, context: Any) -> None:  # noqa: ANN401 - a FoldContext
        """Append prices to the lists of their sellers, send the averages, and keep the last ten.

        A call has all that close at one tick, and ticks come in order; so a call may have many.
        """
        seller, expires, price, auction = (context.column(name) for name in ("seller", "expires", "price", "id"))
        order = np.lexsort((auction, expires, seller))
        seller, price, expires = seller[order], price[order], expires[order]
        starts = np.flatnonzero(np.r_[True, seller[1:] != seller[:-1]])
        keys, counts = seller[starts], np.diff(np.r_[starts, len(seller)])
        bounds, known = context.state.lists(keys)
        bounds = bounds.astype(np.int64)
        known_counts = np.diff(bounds)
        # merged: of each seller the known prices, then the new ones; `at` is where each seller's begin.
        at = np.r_[0, np.cumsum(known_counts + counts)]
        merged = np.empty(at[-1], np.uint64)
        merged[np.arange(bounds[-1]) + np.repeat(at[:-1] - bounds[:-1], known_counts)] = known["price"]
        new = np.arange(len(seller)) + np.repeat(at[:-1] + known_counts - starts, counts)
        merged[new] = price
        running = np.r_[np.uint64(0), np.cumsum(merged)]
        first = np.maximum(np.repeat(at[:-1], counts), new + 1 - LAST)
        average = (running[new + 1] - running[first]) // (new + 1 - first).astype(np.uint64)
        send_at(context, {"time": expires, "seller": seller, "average": average}, self._events.ceil_tick(expires))
        kept = np.minimum(np.diff(at), LAST)
        ends = np.r_[0, np.cumsum(kept)]
        last = np.arange(ends[-1]) + np.repeat(at[1:] - ends[1:], kept)
        context.state.replace(keys, ends, {"price": merged[last]})
        fresh = keys[known_counts == 0]
        if len(fresh):
            context.post_date({"seller": fresh}, self._events.ceil_tick(self.over(fresh)))

    def over(self, seller: Any) -> Any:  # noqa: ANN401 - uint64[n] both
        """Return the event time by which every auction of a seller has closed.

        Event n names persons from ``n // EPOCH + 1 - ACTIVE_PEOPLE`` on, counted from the first.
        """
        last_named = (seller - np.uint64(FIRST_PERSON_ID) + np.uint64(ACTIVE_PEOPLE)) * np.uint64(EPOCH)
        return (last_named * self._delay_ns).astype(np.uint64) + np.uint64(self._open_ns_max + 1)


def _forget(context: Any) -> None:  # noqa: ANN401 - a FoldContext
    """Forget sellers who are done."""
    context.state.remove(context.column("seller"))
