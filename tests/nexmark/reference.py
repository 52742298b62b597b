"""The nine queries once more, in plain Python and as the definitions read: slow, and a second opinion on the SQL.

Each row is found by looking at all events anew; nothing is kept from one row to the next, no order is relied on, and
nothing is shared with ``oracle`` but the names of windows. So a slip would have to be made twice, in two languages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from tests.nexmark.oracle import Windows

Row: TypeAlias = tuple[int | str, ...]

CALIFORNIA, IDAHO, OREGON = 1, 2, 3


class Person(NamedTuple):
    seq: int
    id: int
    name: int
    city: int
    state: int
    date_time: int


class Auction(NamedTuple):
    seq: int
    id: int
    initial_bid: int
    reserve: int
    date_time: int
    expires: int
    seller: int
    category: int


class Bid(NamedTuple):
    seq: int
    auction: int
    bidder: int
    price: int
    date_time: int


@dataclass(frozen=True)
class Events:
    """What has happened, in any order."""

    persons: Sequence[Person] = ()
    auctions: Sequence[Auction] = ()
    bids: Sequence[Bid] = ()
    windows: Windows = Windows()


class Closed(NamedTuple):
    """An auction that has closed with a winner."""

    expires: int
    id: int
    category: int
    seller: int
    price: int


def better(one: Bid, other: Bid) -> bool:
    """Return whether the one bid wins over the other: by price, then as the earlier, then by its number."""
    if one.price != other.price:
        return one.price > other.price
    if one.date_time != other.date_time:
        return one.date_time < other.date_time
    return one.seq < other.seq


def closed(events: Events) -> Iterator[Closed]:
    for auction in events.auctions:
        winner: Bid | None = None
        for bid in events.bids:
            if bid.auction != auction.id or bid.price < auction.reserve:
                continue
            if bid.date_time < auction.date_time or bid.date_time >= auction.expires:
                continue
            if winner is None or better(bid, winner):
                winner = bid
        if winner is not None:
            yield Closed(auction.expires, auction.id, auction.category, auction.seller, winner.price)


def window_end(date_time: int, size: int) -> int:
    """Return the first multiple of the size that is later than a date."""
    return date_time - date_time % size + size


def q0(events: Events) -> Iterator[Row]:
    for person in events.persons:
        yield person.date_time, "person", person.id
    for auction in events.auctions:
        yield auction.date_time, "auction", auction.id
    for bid in events.bids:
        yield bid.date_time, "bid", bid.auction


def q1(events: Events) -> Iterator[Row]:
    for bid in events.bids:
        yield bid.date_time, bid.auction, bid.bidder, (bid.price * 89 - bid.price * 89 % 100) // 100


def q2(events: Events) -> Iterator[Row]:
    for bid in events.bids:
        if not bid.auction % 123:
            yield bid.date_time, bid.auction, bid.price


def q3(events: Events) -> Iterator[Row]:
    for auction in events.auctions:
        for person in events.persons:
            local = person.state in (OREGON, IDAHO, CALIFORNIA)
            if auction.seller == person.id and auction.category == 10 and local:
                later = max(auction.date_time, person.date_time)
                yield later, person.name, person.city, person.state, auction.id


def q4(events: Events) -> Iterator[Row]:
    winners = list(closed(events))
    for time, category in {(winner.expires, winner.category) for winner in winners}:
        prices = [winner.price for winner in winners if winner.category == category and winner.expires <= time]
        yield time, category, sum(prices) // len(prices)


def q5(events: Events) -> Iterator[Row]:
    size, slide = events.windows.q5_size, events.windows.q5_slide
    dates = [bid.date_time for bid in events.bids]
    first, last = (min(dates), max(dates)) if dates else (0, 0)
    for end in range(window_end(first, slide), last + size + 1, slide):
        bids = Counter(bid.auction for bid in events.bids if end - size <= bid.date_time < end)
        for auction, count in bids.items():
            if count == max(bids.values()):
                yield end, auction, count


def q6(events: Events) -> Iterator[Row]:
    winners = list(closed(events))
    for this in winners:
        before = sorted(
            (winner.expires, winner.id, winner.price)
            for winner in winners
            if winner.seller == this.seller and (winner.expires, winner.id) <= (this.expires, this.id)
        )
        prices = [price for _, _, price in before][-10:]
        yield this.expires, this.seller, sum(prices) // len(prices)


def q7(events: Events) -> Iterator[Row]:
    size = events.windows.q7
    for bid in events.bids:
        end = window_end(bid.date_time, size)
        if all(other.price <= bid.price for other in events.bids if end - size <= other.date_time < end):
            yield end, bid.auction, bid.bidder, bid.price


def q8(events: Events) -> Iterator[Row]:
    size = events.windows.q8
    for person in events.persons:
        end = window_end(person.date_time, size)
        own = [
            auction.date_time
            for auction in events.auctions
            if auction.seller == person.id and end - size <= auction.date_time < end
        ]
        if own:
            yield max(person.date_time, min(own)), person.id, end


QUERIES: Final[dict[str, Callable[[Events], Iterator[Row]]]] = {
    "q0": q0, "q1": q1, "q2": q2, "q3": q3, "q4": q4, "q5": q5, "q6": q6, "q7": q7, "q8": q8,
}  # fmt: skip


def rows(query: str, events: Events, end: int | None = None) -> list[Row]:
    """Return the rows of a query, in ascending order; those before ``end`` where the run stops there."""
    return sorted(row for row in QUERIES[query](events) if end is None or int(row[0]) < end)
