"""q7: the highest bid of each window.

::

    bid --per batch: the highest of each window--> F by window --> S: price[window]
                                                                   | a bid that is beaten already is dropped,
                                                                   | others wait for the end of the window
                                                                   +--> (time, auction, bidder, price)

Windows tumble: [k * size, (k + 1) * size) of event time.  For each window in which there is a bid, a row for every bid
with its highest price: the end of the window, auction, bidder and price.

A window's bids wait as post-dated records in the bin of its end, and move with it; with them goes the highest price so
far.  Both are gone when the window has been answered.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from megaphone.state.stores import HashTable

if TYPE_CHECKING:
    from megaphone.dataflow.stream import Stream
    from megaphone.workloads.nexmark.style import Streams, Style

COLUMNS: Final = {"time": "u8", "auction": "u8", "bidder": "u8", "price": "u8"}
READS: Final = {"bid": ("auction", "bidder", "price", "date_time")}


def q7(events: Streams, how: Style) -> Stream:
    """Build the query."""
    size = np.uint64(events.windows.q7)
    highest = events.bid.flat_map(partial(_highest_of_batch, size), columns=COLUMNS, name=how.name("highest-of-batch"))
    return highest.stateful_unary_input(
        key="time", state=HashTable("u8", {"price": "u8"}), consume=partial(_wait, events), fold=_answer,
        columns=COLUMNS, pending=COLUMNS, **how.options("highest"),
    )  # fmt: skip


def _highest_of_batch(size: Any, bid: Any) -> Any:  # noqa: ANN401 - uint64; a Batch; one mapping
    """Keep the bids with the highest price of their window in this batch; their time is the window's end."""
    end = (bid["date_time"] // size + np.uint64(1)) * size
    keep = np.flatnonzero(is_highest(end, bid["price"]))
    yield {"time": end[keep], **{name: bid[name][keep] for name in ("auction", "bidder", "price")}}


def _wait(events: Streams, context: Any) -> None:  # noqa: ANN401 - a FoldContext
    """Drop what a known bid of its window beats; let the others wait for the window's end."""
    for bid in context.segments:
        keep = np.flatnonzero(is_highest(bid["time"], bid["price"]))
        end, price = bid["time"][keep], bid["price"][keep]
        rows = context.state.rows(end)
        best = context.state.gather(rows, "price")
        keep, rows = keep[price >= best], rows[price >= best]
        context.state.put(rows, "price", bid["price"][keep])
        context.post_date({name: bid[name][keep] for name in COLUMNS}, events.ceil_tick(bid["time"][keep]))


def _answer(context: Any) -> None:  # noqa: ANN401 - a FoldContext
    """Send the bids of the windows that end, with the highest price there was."""
    rows = context.state.rows(context.column("time"), insert=False)
    best = context.state.gather(rows, "price")
    keep = np.flatnonzero(context.column("price") == best)
    context.output.send({name: context.column(name)[keep] for name in COLUMNS})
    context.state.remove(rows)


def is_highest(group: Any, value: Any) -> Any:  # noqa: ANN401 - uint64[n] all three: groups, values, bool[n]
    """Tell which values are the highest of their group; equal ones all are.

    Cost: O(n) for one group, else a sort of the groups.
    """
    if not len(group) or (group == group[0]).all():
        return value == value.max(initial=0)
    _, number = np.unique(group, return_inverse=True)
    best = np.zeros(int(number.max()) + 1, value.dtype)
    np.maximum.at(best, number, value)
    return value == best[number]
