"""q1: every bid, its price in another currency.

::

    bid --by auction--> (time, auction, bidder, price * 89 // 100)

A row for each bid: its event time, auction and bidder, and 89 hundredths of its price, rounded down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from megaphone.dataflow.stream import Stream
    from megaphone.workloads.nexmark.style import Streams, Style

COLUMNS: Final = {"time": "u8", "auction": "u8", "bidder": "u8", "price": "u8"}
READS: Final = {"bid": ("auction", "bidder", "price", "date_time")}
PER_HUNDRED: Final = np.uint64(89)


def q1(events: Streams, how: Style) -> Stream:
    """Build the query."""
    bids = how.distribute(events.bid, "auction")
    return bids.map(_converted, columns=COLUMNS, loan=True, name=how.name("convert"))


def _converted(bid: Any, loan: Any) -> Any:  # noqa: ANN401 - a Batch, and what makes a Loan
    """Convert the prices, in place."""
    made = loan()
    made["time"][:] = bid["date_time"]
    made["auction"][:] = bid["auction"]
    made["bidder"][:] = bid["bidder"]
    price = made["price"]
    np.multiply(bid["price"], PER_HUNDRED, out=price)
    np.floor_divide(price, np.uint64(100), out=price)
    return made
