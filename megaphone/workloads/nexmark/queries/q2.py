"""q2: the bids on some auctions.

::

    bid --by auction--> auction % 123 == 0 --> (time, auction, price)

A row for each bid on an auction whose id is divisible by 123: its event time, auction and price.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from megaphone.dataflow.stream import Stream
    from megaphone.workloads.nexmark.style import Streams, Style

COLUMNS: Final = {"time": "u8", "auction": "u8", "price": "u8"}
READS: Final = {"bid": ("auction", "price", "date_time")}
DIVISOR: Final = np.uint64(123)


def q2(events: Streams, how: Style) -> Stream:
    """Build the query."""
    bids = how.distribute(events.bid, "auction").filter(_wanted, name=how.name("select"))
    return bids.map(_row, columns=COLUMNS, name=how.name("project"))


def _wanted(bid: Any) -> Any:  # noqa: ANN401 - a Batch, bool[n]
    """Tell which bids are on an auction whose id is divisible."""
    auction = bid["auction"]
    # numpy divides by a constant eight times as fast as it takes the remainder.
    return auction // DIVISOR * DIVISOR == auction


def _row(bid: Any) -> dict[str, Any]:  # noqa: ANN401 - a Batch
    """Keep what is asked for."""
    return {"time": bid["date_time"], "auction": bid["auction"], "price": bid["price"]}
