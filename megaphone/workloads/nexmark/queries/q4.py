"""q4: the average price for which auctions of a category are won.

::

    auction, bid --> closed auctions --F by category--> S: prices[category], winners --> (time, category, average)

For each category and each date at which auctions of it close with a winner, a row: the date, the category, and the
average of all winning prices of the category so far, those of that date included, rounded down.

The state of closed auctions is in `closed`; here it is two numbers for each category.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from megaphone.state.stores import HashTable
from megaphone.workloads.nexmark.queries.closed import AUCTION_READS, BID_READS, closed_auctions, send_at

if TYPE_CHECKING:
    from megaphone.dataflow.stream import Stream
    from megaphone.workloads.nexmark.style import Streams, Style

COLUMNS: Final = {"time": "u8", "category": "u8", "average": "u8"}
READS: Final = {"auction": (*AUCTION_READS, "category"), "bid": BID_READS}


def q4(events: Streams, how: Style) -> Stream:
    """Build the query."""
    closed = closed_auctions(events, how, "category")
    return closed.stateful_unary(
        key="category", state=HashTable("u8", {"prices": "u8", "winners": "u8"}), fold=partial(_average, events),
        columns=COLUMNS, **how.options("average"),
    )  # fmt: skip


def _average(events: Streams, context: Any) -> None:  # noqa: ANN401 - a FoldContext
    """Add the winners of each date to their category's sum and count, and send the averages.

    A call has all winners of a date, since a date has one tick, and ticks come in order; so a call may have many.
    """
    category, expires, price = (context.column(name) for name in ("category", "expires", "price"))
    order = np.lexsort((expires, category))
    category, expires = category[order], expires[order]
    next_category = category[1:] != category[:-1]
    last_of_date = np.flatnonzero(np.r_[next_category | (expires[1:] != expires[:-1]), True])
    first = np.flatnonzero(np.r_[True, next_category])
    state, rows = context.state, context.state.rows(category[first])
    # Running sums over the call; what is before a category's first is taken off, what was before the call is added.
    running = np.r_[np.uint64(0), np.cumsum(price[order])]
    prices_before = state.gather(rows, "prices") - running[first]
    winners_before = state.gather(rows, "winners") - first.astype(np.uint64)
    number = np.searchsorted(first, last_of_date, side="right") - 1
    prices = running[last_of_date + 1] + prices_before[number]
    winners = (last_of_date + 1).astype(np.uint64) + winners_before[number]
    last = np.r_[np.flatnonzero(number[1:] != number[:-1]), len(number) - 1]
    state.put(rows, "prices", prices[last])
    state.put(rows, "winners", winners[last])
    time = expires[last_of_date]
    values = {"time": time, "category": category[last_of_date], "average": prices // winners}
    send_at(context, values, events.ceil_tick(time))
