"""Closed auctions, each with the price that won it: what q4 and q6 are made of.

::

    auction --F by id-------> S: ask[id], begins, expires ... --when it expires--> (expires, id, ..., price)
    bid ------F by auction--> S: raises ask

The winner of an auction is the bid with the highest price, of those not below the reserve, made at a date with
begins <= date < expires; of equal ones the earliest.  Which of equal bids wins shows in neither query, so a row keeps
prices alone: ``ask`` is the lowest price that would still lead, which is the reserve at first and one more than the
highest bid after it.

What the order of folds makes simple (an event's logical time is its tick, a monotone function of its date):

* A valid bid has a tick not before its auction's, and at one tick auctions go first.  So a bid whose auction is
  unknown is early, late, or for nothing, and never counts: no bid waits.
* A valid bid has a tick before that of the auction's closing, which is the first one not before ``expires``.  Bids of
  that tick and of later ones may be folded earlier than the closing; their dates tell.

An auction waits for its closing as a post-dated record in its bin, and moves with it; at the closing its row goes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from megaphone.state.stores import HashTable

if TYPE_CHECKING:
    from megaphone.dataflow.stream import Stream
    from megaphone.workloads.nexmark.style import Streams, Style

AUCTION_READS: Final = ("id", "reserve", "date_time", "expires")
BID_READS: Final = ("auction", "price", "date_time")


def closed_auctions(events: Streams, how: Style, carried: str) -> Stream:
    """Return each auction that closes with a winner, at the tick in which it does: expires, id, carried, price.

    Args:
        events: of which auctions and bids are read: `AUCTION_READS` and ``carried``, `BID_READS`.
        how: the style of the query that this is part of.
        carried: the column of the auction that goes with it: category or seller.
    """
    state = {"ask": "u8", "begins": "u8", "expires": "u8", carried: "u8", "won": "u1"}
    # With many times in a call a consume may come to bids of times whose closings are still to be folded, and may find
    # rows that should be gone: dates tell, see above. It is what makes an end with a million closings quick.
    return events.auction.stateful_binary_input(
        events.bid, left_key="id", right_key="auction", state=HashTable("u8", state),
        consume=partial(_open_and_raise, events, carried), fold=partial(_close, events, carried),
        columns={"expires": "u8", "id": "u8", carried: "u8", "price": "u8"}, pending={"id": "u8"}, per_time=False,
        **how.options("close"),
    )  # fmt: skip


def _open_and_raise(events: Streams, carried: str, context: Any) -> None:  # noqa: ANN401 - a BinaryContext
    """Open auctions, which will close by themselves; then let bids raise what is asked."""
    _open(events, carried, context)
    _raise(context.state, *(context.right_column(name) for name in BID_READS))


def _open(events: Streams, carried: str, context: Any) -> None:  # noqa: ANN401 - a BinaryContext
    auction = {name: context.left_column(name) for name in (*AUCTION_READS, carried)}
    if not len(auction["id"]):
        return
    lasting = auction["expires"] > auction["date_time"]
    if not lasting.all():  # nobody can bid on the others
        auction = {name: values[lasting] for name, values in auction.items()}
    state = context.state
    rows = state.rows(auction["id"])
    for column, name in (("ask", "reserve"), ("begins", "date_time"), ("expires", "expires"), (carried, carried)):
        state.put(rows, column, auction[name])
    context.post_date({"id": auction["id"]}, events.ceil_tick(auction["expires"]))


def _raise(state: Any, auction: Any, price: Any, date: Any) -> None:  # noqa: ANN401 - a StoreAccess, uint64[n]
    """Let bids raise what their auctions ask.

    Cost: a look-up per bid on an auction that is open; what follows is for the few that lead.
    """
    at, rows = state.reached(auction, "ask", price)
    if not len(at):
        return
    date = date[at]
    valid = np.flatnonzero((state.gather(rows, "begins") <= date) & (date < state.gather(rows, "expires")))
    # Of a row that is put twice the last value stays, so the highest price of each comes last.  Which of equal prices
    # does is nothing to a row, so the sort need not be a stable one, which takes several times as long.
    best = price[at[valid]]
    order = np.argsort(best)
    rows = rows[valid[order]]
    state.put(rows, "ask", best[order] + np.uint64(1))
    state.put(rows, "won", 1)


def _close(events: Streams, carried: str, context: Any) -> None:  # noqa: ANN401 - a BinaryContext
    """Send the winners of auctions that close, and forget the auctions."""
    state, ids = context.state, context.pending_column("id")
    rows = state.rows(ids, insert=False)
    won = np.flatnonzero(state.gather(rows, "won"))
    winners = rows[won]
    expires = state.gather(winners, "expires")
    values = {
        "expires": expires, "id": ids[won], carried: state.gather(winners, carried),
        "price": state.gather(winners, "ask") - np.uint64(1),
    }  # fmt: skip
    send_at(context, values, events.ceil_tick(expires))
    state.remove(rows)


def send_at(context: Any, values: dict[str, Any], times: Any) -> None:  # noqa: ANN401 - a FoldContext, uint64[n]
    """Send rows at times of their own; mostly that is one time for all, and then a batch without a column of times."""
    if not len(times):
        return
    first = int(times.min())
    context.output.send(values, time=first, times=None if first == int(times.max()) else times)
