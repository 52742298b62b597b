"""The oracle of NEXMark against a reference in plain Python, and what must hold of it whatever the events are."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nexmark import events as of
from tests.nexmark import oracle, reference
from tests.nexmark.oracle import COLUMNS, KIND, QUERIES, SECOND, Windows, difference, expected
from tests.nexmark.reference import Auction, Bid, Events, Person

ENDS = st.one_of(st.none(), st.none(), of.DATES, of.DATES.map(lambda date: date + of.LATE))


def rows_of(columns: oracle.Columns) -> list[reference.Row]:
    """Return columns as tuples of Python's own numbers and texts."""
    return list(zip(*(values.tolist() for values in columns.values()), strict=True))


def given_by(query: str, happened: Events, end: int | None = None) -> list[reference.Row]:
    return rows_of(expected(of.streams_of(happened), happened.windows, end, [query])[query])


# --- SQL and reference agree ------------------------------------------------------------------------------------------


@given(happened=of.events(), end=ENDS)
@settings(max_examples=100)
def test_sql_gives_what_the_definitions_say(happened: Events, end: int | None) -> None:
    found = expected(of.streams_of(happened), happened.windows, end)
    for query in QUERIES:
        assert rows_of(found[query]) == reference.rows(query, happened, end), query


@given(happened=of.events(bids_max=60), ties=st.integers(1, 2))
@settings(max_examples=30)
def test_sql_gives_what_the_definitions_say_of_a_seller_with_many_auctions(happened: Events, ties: int) -> None:
    """More than ten winners of one seller and category, closing in groups: what q4 and q6 remember."""
    auctions = [Auction(1000 + n, 500 - n, 0, 0, 0, 5 + n // ties, 3, 10) for n in range(14)]
    bids = [Bid(2000 + n, auction.id, 1, 7 * n * n % 31, n % 5) for n, auction in enumerate(auctions)]
    more = Events(happened.persons, [*happened.auctions, *auctions], [*happened.bids, *bids], happened.windows)
    for query in ("q4", "q6"):
        assert given_by(query, more) == reference.rows(query, more), query


@pytest.mark.parametrize("query", QUERIES)
def test_no_events_give_no_rows_of_the_same_columns(query: str) -> None:
    found = expected(of.streams_of(Events()))[query]
    assert {name: values.size for name, values in found.items()} == dict.fromkeys(COLUMNS[query], 0)
    assert {name: values.dtype for name, values in found.items()} == {
        name: KIND if name == "kind" else np.dtype(np.uint64) for name in COLUMNS[query]
    }


# --- rules, one by one ------------------------------------------------------------------------------------------------

OPEN = Auction(seq=0, id=1, initial_bid=0, reserve=5, date_time=10, expires=20, seller=7, category=10)


def winner_of(*bids: Bid) -> list[int]:
    """Return the winning price of the one auction, or nothing."""
    both = [[int(row[2]) for row in given_by(query, Events(auctions=[OPEN], bids=bids))] for query in ("q4", "q6")]
    assert both[0] == both[1]
    return both[0]


def bid(price: int, at: int, seq: int = 1, auction: int = 1, bidder: int = 3) -> Bid:
    return Bid(seq, auction, bidder, price, at)


def test_a_bid_below_the_reserve_never_wins() -> None:
    assert winner_of(bid(4, 15)) == []
    assert winner_of(bid(5, 15)) == [5]


def test_a_bid_counts_from_the_auctions_date_until_before_its_close() -> None:
    assert [winner_of(bid(9, at)) for at in (9, 10, 19, 20)] == [[], [9], [9], []]


def test_the_highest_valid_price_wins_whatever_comes_later() -> None:
    assert winner_of(bid(6, 11), bid(8, 12), bid(7, 13), bid(99, 20), bid(99, 9)) == [8]


def test_an_auction_without_a_valid_bid_gives_nothing() -> None:
    assert winner_of() == []
    assert winner_of(bid(9, 15, auction=2)) == []


def test_of_equal_prices_the_earliest_wins_then_the_lowest_number() -> None:
    """No column shows which of the equals has won, so it is asked of the view that q4 and q6 read."""
    with duckdb.connect(":memory:") as connection:
        connection.register("auction", of.columns_of([OPEN], oracle.AUCTION))
        bids = [bid(8, 12, seq=1), bid(8, 11, seq=9), bid(8, 11, seq=4)]
        connection.register("bid", of.columns_of(bids, oracle.BID))
        closed = oracle._CLOSED.replace("b.price\n", "b.price, b.date_time, b.seq\n")
        assert connection.execute(f"WITH {closed} SELECT date_time, seq FROM closed").fetchall() == [(11, 4)]


def test_q0_names_a_bid_by_its_auction() -> None:
    happened = Events([Person(0, 1, 0, 0, 0, 5)], [OPEN], [bid(1, 6, auction=44)])
    assert given_by("q0", happened) == [(5, "person", 1), (6, "bid", 44), (10, "auction", 1)]


def test_q1_rounds_down_and_is_exact_where_a_float_is_not() -> None:
    price = 2**53 + 1
    assert given_by("q1", Events(bids=[bid(99, 1), bid(price, 2)])) == [(1, 1, 3, 88), (2, 1, 3, price * 89 // 100)]


@pytest.mark.parametrize(("state", "joined"), [(0, False), (1, True), (2, True), (3, True), (4, False), (5, False)])
def test_q3_joins_sellers_of_three_states(state: int, joined: bool) -> None:
    happened = Events([Person(1, 7, 0, 2, state, 25)], [OPEN])
    assert given_by("q3", happened) == [(25, 0, 2, state, 1)] * joined


def test_q3_joins_all_auctions_of_a_seller_at_the_later_of_both_dates() -> None:
    auctions = [OPEN._replace(id=1, date_time=3), OPEN._replace(id=2), OPEN._replace(id=3, category=11)]
    happened = Events([Person(0, 7, 4, 2, 3, 5)], auctions)
    assert given_by("q3", happened) == [(5, 4, 2, 3, 1), (10, 4, 2, 3, 2)]


def test_q4_gives_one_row_for_all_auctions_of_a_category_that_close_together() -> None:
    auctions = [OPEN, OPEN._replace(id=2), OPEN._replace(id=3, expires=30), OPEN._replace(id=4, category=11)]
    auctions.append(OPEN._replace(id=5, expires=40))
    bids = [bid(price, 15, auction=id_) for id_, price in ((1, 10), (2, 21), (3, 100), (4, 8), (5, 6))]
    means = [(20, 10, 15), (20, 11, 8), (30, 10, 43), (40, 10, 34)]
    assert given_by("q4", Events(auctions=auctions, bids=bids)) == means


def test_q5_gives_every_slide_end_until_the_last_bid_has_left_the_window() -> None:
    happened = Events(bids=[bid(1, 7)], windows=Windows(q5_size=20, q5_slide=5))
    assert given_by("q5", happened) == [(10, 1, 1), (15, 1, 1), (20, 1, 1), (25, 1, 1)]


def test_q5_counts_a_bid_at_a_slide_end_in_the_next_window_and_gives_all_ties() -> None:
    bids = [bid(1, 0, auction=3), bid(1, 9, auction=4), bid(1, 10, auction=4)]
    happened = Events(bids=bids, windows=Windows(q5_size=10, q5_slide=10))
    assert given_by("q5", happened) == [(10, 3, 1), (10, 4, 1), (20, 4, 1)]


def test_q5_has_no_row_for_a_window_without_bids() -> None:
    happened = Events(bids=[bid(1, 0), bid(1, 50)], windows=Windows(q5_size=10, q5_slide=10))
    assert [row[0] for row in given_by("q5", happened)] == [10, 60]


def test_q6_is_over_the_last_ten_by_close_and_then_by_id() -> None:
    auctions = [OPEN._replace(id=n, expires=20 + n // 2) for n in range(12, 0, -1)]
    bids = [bid(5 + 10 * n, 15, auction=n) for n in range(1, 13)]
    means = [(sum(5 + 10 * m for m in range(max(1, n - 9), n + 1))) // min(n, 10) for n in range(1, 13)]
    found = given_by("q6", Events(auctions=auctions, bids=bids))
    assert found == [(20 + n // 2, 7, means[n - 1]) for n in range(1, 13)]


def test_q7_gives_every_bid_with_the_highest_price_of_its_window_even_twice() -> None:
    bids = [bid(9, 0), bid(9, 9, seq=2), bid(8, 5), bid(1, 10), bid(9, 3, auction=2)]
    found = given_by("q7", Events(bids=bids, windows=Windows(q7=10)))
    assert found == [(10, 1, 3, 9), (10, 1, 3, 9), (10, 2, 3, 9), (20, 1, 3, 1)]


@pytest.mark.parametrize(
    ("person_at", "auctions_at", "given"),
    [
        (3, [5, 4], [(4, 7, 10)]),  # the first auction, once
        (8, [5, 9], [(8, 7, 10)]),  # the person is the later
        (10, [9], []),  # either side of an edge
        (9, [10], []),
        (10, [19], [(19, 7, 20)]),
        (10, [9, 20], []),
    ],
)
def test_q8_gives_a_person_once_with_an_auction_in_the_same_window(
    person_at: int, auctions_at: list[int], given: list[reference.Row]
) -> None:
    auctions = [OPEN._replace(id=n, date_time=at) for n, at in enumerate(auctions_at)]
    happened = Events([Person(0, 7, 0, 0, 0, person_at)], auctions, windows=Windows(q8=10))
    assert given_by("q8", happened) == given


def test_windows_are_the_originals_by_default() -> None:
    assert Windows() == Windows(60 * SECOND, SECOND, 10 * SECOND, 43_200 * SECOND)


# --- the oracle is a function of the events alone ---------------------------------------------------------------------


def same(first: dict[str, dict[str, Any]], second: dict[str, dict[str, Any]]) -> None:
    """Equal to the bit, order and widths included."""
    for query in QUERIES:
        for name in COLUMNS[query]:
            one, other = first[query][name], second[query][name]
            assert one.dtype == other.dtype, (query, name)
            np.testing.assert_array_equal(one, other, err_msg=f"{query} {name}", strict=True)


@given(happened=of.events(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_rows_of_events_may_come_in_any_order(happened: Events, seed: int) -> None:
    streams = of.streams_of(happened)
    draw = np.random.default_rng(seed)
    mixed = {}
    for name, columns in streams.items():
        order = draw.permutation(len(columns["seq"]))
        mixed[name] = {column: values[order] for column, values in columns.items()}
    same(expected(streams, happened.windows), expected(mixed, happened.windows))


@given(happened=of.events())
@settings(max_examples=10)
def test_the_same_events_give_the_same_rows_again(happened: Events) -> None:
    same(*(expected(of.streams_of(happened), happened.windows) for _ in range(2)))


@given(happened=of.events(), end=of.DATES)
@settings(max_examples=30)
def test_rows_before_an_end_do_not_know_what_happens_after_it(happened: Events, end: int) -> None:
    """What the time of a row means: nothing that happens from then on can change it."""
    before = Events(
        [person for person in happened.persons if person.date_time < end],
        [auction for auction in happened.auctions if auction.date_time < end],
        [bid for bid in happened.bids if bid.date_time < end],
        happened.windows,
    )
    same(*(expected(of.streams_of(events), happened.windows, end) for events in (happened, before)))


def many_events(count: int, seed: int) -> dict[str, dict[str, Any]]:
    """Return events by the thousand, with ties all over."""
    draw = np.random.default_rng(seed)
    whole = count // 50
    sizes = {"person": whole, "auction": 3 * whole, "bid": count - 4 * whole}
    streams: dict[str, dict[str, Any]] = {}
    for stream, columns in oracle.STREAMS.items():
        size = sizes[stream]
        streams[stream] = {
            column: draw.integers(0, 40, size).astype(of.WIDTHS.get(column, np.uint64)) for column in columns
        }
        streams[stream]["date_time"] = np.sort(draw.integers(0, count, size).astype(np.uint64))
    streams["person"]["id"] = np.arange(sizes["person"], dtype=np.uint64)
    streams["person"]["state"] %= 6
    auction = streams["auction"]
    auction["id"] = np.arange(sizes["auction"], dtype=np.uint64)
    auction["expires"] = auction["date_time"] + draw.integers(1, 40, sizes["auction"]).astype(np.uint64) * np.uint64(20)
    auction["category"] = 10 + auction["category"] % np.uint64(5)
    near = np.searchsorted(auction["date_time"], streams["bid"]["date_time"])
    streams["bid"]["auction"] = np.maximum(0, near - draw.integers(-2, 12, near.size)).astype(np.uint64)
    streams["bid"]["seq"] = np.arange(near.size, dtype=np.uint64)
    return streams


def test_many_events_give_the_same_rows_in_any_order_and_as_the_definitions_say() -> None:
    """Enough rows for DuckDB to work in several vectors; the definitions are asked of what is quadratic in little."""
    streams = many_events(12_000, seed=4)
    windows = Windows(q5_size=600, q5_slide=60, q7=500, q8=3000)
    found = expected(streams, windows)
    assert all(rows["time"].size for rows in found.values())
    backwards = {
        stream: {name: values[::-1] for name, values in columns.items()} for stream, columns in streams.items()
    }
    same(found, expected(backwards, windows))
    kinds = {"person": Person, "auction": Auction, "bid": Bid}
    tuples = {
        stream: [kinds[stream](*row) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]
        for stream, columns in streams.items()
    }
    happened = Events(tuples["person"], tuples["auction"], tuples["bid"], windows)
    for query in ("q0", "q1", "q2", "q3", "q8"):
        assert rows_of(found[query]) == reference.rows(query, happened), query


# --- what is refused --------------------------------------------------------------------------------------------------


def test_events_whose_ids_are_not_unique_are_refused() -> None:
    with pytest.raises(ValueError, match="auction 1 occurs 2 times"):
        expected(of.streams_of(Events(auctions=[OPEN, OPEN])))


def test_streams_that_lack_a_column_or_have_short_ones_are_refused() -> None:
    streams = of.streams_of(Events(bids=[bid(1, 1)]))
    with pytest.raises(ValueError, match="different lengths"):
        expected({**streams, "bid": streams["bid"] | {"price": np.zeros(2, np.uint64)}})
    del streams["bid"]["price"]
    with pytest.raises(ValueError, match="bid lacks price"):
        expected(streams)


def test_numbers_that_do_not_fit_are_an_error_and_no_row() -> None:
    for price, at in ((2**63, 1), (2**62, 1), (1, 2**63 - 1)):
        with pytest.raises(duckdb.Error):
            expected(of.streams_of(Events(bids=[bid(price, at)])))


def test_windows_without_length_are_refused() -> None:
    with pytest.raises(ValueError, match="q5_slide"):
        Windows(q5_slide=0)


# --- difference -------------------------------------------------------------------------------------------------------


def columns(*rows: tuple[int, str, int]) -> dict[str, Any]:
    times, kinds, ids = ([row[index] for row in rows] for index in range(3))
    return {"time": np.array(times, np.uint64), "kind": np.array(kinds, KIND), "id": np.array(ids, np.uint64)}


THREE = [(1, "bid", 5), (1, "bid", 5), (2, "person", 2**63 + 1)]


def test_equal_multisets_do_not_differ_whatever_their_order_and_widths() -> None:
    got = columns(*THREE[::-1])
    got["time"] = got["time"].astype(np.int16)
    assert difference(columns(*THREE), got) is None
    assert difference(columns(), columns()) is None


@pytest.mark.parametrize(
    ("came", "told"),
    [
        (THREE[1:], "1 missing, 0 too many\n  time=1 kind=bid id=5: 2 expected, 1 came"),
        ([*THREE, THREE[2]], "0 missing, 1 too many\n  time=2 kind=person id=9223372036854775809: 1 expected, 2 came"),
        ([*THREE[:2], (2, "person", 2**63)], "1 missing, 1 too many\n  time=2 kind=person id=9223372036854775808: 0 e"),
        ([*THREE[:2], (2, "bid", 2**63 + 1)], "1 missing, 1 too many\n  time=2 kind=bid id=9223372036854775809: 0 ex"),
        ([], "3 missing, 0 too many"),
    ],
)
def test_rows_that_differ_are_told_with_their_counts(came: list[tuple[int, str, int]], told: str) -> None:
    message = difference(columns(*THREE), columns(*came), "q0")
    assert message is not None
    assert message.startswith(f"q0: 3 expected, {len(came)} came: ")
    assert told in message


def test_only_the_first_rows_that_differ_are_told() -> None:
    message = difference(columns(*((n, "bid", n) for n in range(100))), columns())
    assert message is not None
    assert message.count("\n") == oracle.ROWS_SHOWN + 1
    assert message.endswith(f"and {100 - oracle.ROWS_SHOWN} other rows that differ")


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("id", np.array([5.0]), "float64"),
        ("id", np.array([-1]), "below 0"),
        ("kind", np.array([2]), "is no text"),
        ("kind", np.array(["bid and more"]), "too long"),
        ("id", np.array([5, 5]), "different lengths"),
    ],
)
def test_columns_that_cannot_be_compared_differ(column: str, values: Any, told: str) -> None:
    message = difference(columns(THREE[0]), columns(THREE[0]) | {column: values})
    assert message is not None
    assert told in message


def test_columns_of_other_names_or_order_differ() -> None:
    got = columns(THREE[0])
    assert "should be time, kind, id" in str(difference(got, {"time": got["time"], "id": got["id"]}))
    assert "should be time, kind, id" in str(difference(got, dict(reversed(got.items()))))


ROWS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["bid", "person"]), st.integers(0, 2)), max_size=12)


@given(must=ROWS, came=ROWS)
def test_a_difference_is_one_of_multisets(must: list[tuple[int, str, int]], came: list[tuple[int, str, int]]) -> None:
    assert (difference(columns(*must), columns(*came)) is None) == (sorted(must) == sorted(came))
