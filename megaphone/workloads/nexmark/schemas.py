"""The three streams of NEXMark: names and dtypes of their columns, in order.

``seq`` is the event's number among all events of all workers; ``date_time`` and ``expires`` are event time in ns from
0; ``name``, ``city`` and ``state`` are codes whose texts stand in ``names``.
"""

from __future__ import annotations

from typing import Final

PERSON: Final[dict[str, str]] = {
    "seq": "u8",
    "id": "u8",
    "name": "u4",
    "city": "u1",
    "state": "u1",
    "date_time": "u8",
}
AUCTION: Final[dict[str, str]] = {
    "seq": "u8",
    "id": "u8",
    "initial_bid": "u8",
    "reserve": "u8",
    "date_time": "u8",
    "expires": "u8",
    "seller": "u8",
    "category": "u8",
}
BID: Final[dict[str, str]] = {
    "seq": "u8",
    "auction": "u8",
    "bidder": "u8",
    "price": "u8",
    "date_time": "u8",
}
STREAMS: Final[dict[str, dict[str, str]]] = {"person": PERSON, "auction": AUCTION, "bid": BID}
"""Columns of each stream by its name."""
