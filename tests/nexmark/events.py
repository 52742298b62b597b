"""Random events for NEXMark, and their two forms: tuples for the reference, columns for the rest.

Numbers are drawn from few, so that what is rare in a generated stream is common here: equal prices and dates, bids
before their auction and at its close, auctions that close together, sellers and auctions that nobody has heard of,
persons who come after their auctions, windows whose edges are dates. The number of an event says nothing about its
date, which keeps "earlier" and "of lower number" apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tests.nexmark.oracle import AUCTION, BID, PERSON, Windows
from tests.nexmark.reference import Auction, Bid, Events, Person

WIDTHS = {"name": np.uint32, "city": np.uint8, "state": np.uint8}
LATE = 1 << 61
"""Added to dates: where a float, or a number of 32 bits, is no longer exact."""

DATES = st.one_of(st.integers(0, 12), st.integers(0, 12), st.sampled_from([0, 10, 20, 40]), st.integers(0, 60))
LENGTHS = st.one_of(st.integers(1, 8), st.sampled_from([10, 20, 25]))
PRICES = st.one_of(st.sampled_from([0, 1, 2, 2, 3]), st.integers(0, 300), st.sampled_from([2**53 + 1, 2**56 - 1]))
AUCTION_IDS = st.one_of(st.integers(1, 4), st.integers(1, 4), st.sampled_from([41, 123, 246]))
PERSON_IDS = st.integers(1, 5)


@st.composite
def windows(draw: st.DrawFn) -> Windows:
    """Small windows; q5's size is now a multiple of its slide, now less than it, now neither."""
    slide = draw(LENGTHS)
    size = draw(st.one_of(st.integers(1, 4).map(lambda slides: slides * slide), LENGTHS))
    return Windows(size, slide, draw(LENGTHS), draw(LENGTHS))


@st.composite
def events(draw: st.DrawFn, *, bids_max: int = 25) -> Events:
    """Events of all kinds, any of which may be none; numbers are a permutation of 0, 1, 2, ..."""
    person_ids = draw(st.lists(PERSON_IDS, unique=True, max_size=5))
    auction_ids = draw(st.lists(AUCTION_IDS, unique=True, max_size=7))
    bid_count = draw(st.integers(0, bids_max))
    count = len(person_ids) + len(auction_ids) + bid_count
    numbers = iter(draw(st.permutations(range(count))))
    base = draw(st.sampled_from([0, 0, 0, LATE]))
    persons = [
        Person(next(numbers), of, draw(st.integers(0, 3)), draw(st.integers(0, 9)), draw(st.integers(0, 5)), base + at)
        for of, at in ((of, draw(DATES)) for of in person_ids)
    ]
    auctions: list[Auction] = []
    for of in auction_ids:
        at = draw(DATES)
        # At its own date it closes before any bid can be valid; dates and closes share a few values.
        expires = max(at, draw(st.one_of(DATES, st.sampled_from([10, 10, 20]))))
        seller, category = draw(PERSON_IDS), draw(st.sampled_from([10, 10, 11]))
        reserve = draw(st.one_of(st.just(0), PRICES))
        auctions.append(Auction(next(numbers), of, draw(PRICES), reserve, base + at, base + expires, seller, category))
    bids = []
    # Mostly bids on what exists, at or around the dates that decide whether they count.
    for _ in range(bid_count):
        at = base + draw(DATES)
        of = draw(AUCTION_IDS)
        if auctions and draw(st.integers(0, 3)) > 0:
            there = auctions[draw(st.integers(0, len(auctions) - 1))]
            of, opened, closes = there.id, there.date_time, there.expires
            at = draw(st.sampled_from([at, opened, opened, max(base, opened - 1), max(base, closes - 1), closes]))
        bids.append(Bid(next(numbers), of, draw(PERSON_IDS), draw(PRICES), at))
    return Events(persons, auctions, bids, draw(windows()))


def columns_of(rows: Sequence[tuple[int, ...]], names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Return tuples as columns of the widths that streams have."""
    return {
        name: np.array([row[index] for row in rows], WIDTHS.get(name, np.uint64)) for index, name in enumerate(names)
    }


def streams_of(happened: Events) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """Return events as the columns of the three streams."""
    return {
        "person": columns_of(happened.persons, PERSON),
        "auction": columns_of(happened.auctions, AUCTION),
        "bid": columns_of(happened.bids, BID),
    }
