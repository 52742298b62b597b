"""The fast generator: bit-equal to numpy, any event by itself, and distributed as the exact one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megaphone.workloads.nexmark.events import EVENTS_MAX, Events, Generator, price_tables
from megaphone.workloads.nexmark.names import CITIES, NAMES, STATES
from megaphone.workloads.nexmark.numpy_events import fast_events
from tests.unit.workloads.nexmark import golden

EVENTS = 100_000
IN_FLIGHT = 500


def assert_same(one: Events, other: Events) -> None:
    for columns, others in zip(one, other, strict=True):
        assert columns.keys() == others.keys()
        for name, array in columns.items():
            assert array.dtype == others[name].dtype
            np.testing.assert_array_equal(array, others[name], err_msg=name)


@given(
    workers=st.integers(1, 255),
    data=st.data(),
    rate=st.floats(0.5, 1e8),
    seed=st.integers(0, 2**64 - 1),
    count=st.integers(0, 1500),
)
def test_the_events_of_c_and_of_numpy_are_bit_equal(
    workers: int, data: st.DataObject, rate: float, seed: int, count: int
) -> None:
    worker = data.draw(st.integers(0, workers - 1))
    in_flight = data.draw(st.integers(1, min(1 << 34, int(rate * 1e8))))
    generator = Generator("fast", worker, workers, rate, in_flight, seed)
    count = min(count, generator.end)
    first = data.draw(st.integers(0, min(generator.end, 1 << 45) - count))
    generator.seek(first)
    numbers = (np.arange(first, first + count, dtype=np.uint64) * np.uint64(workers)) + np.uint64(worker)
    assert_same(generator.take(count), fast_events(numbers, rate, in_flight, seed))


def test_the_last_events_there_are_have_numbers_and_times_like_the_first() -> None:
    generator = Generator("fast", 0, 1, 1e8, in_flight=10)
    generator.seek(generator.end - 100)
    made = generator.take(100)
    assert int(made.bid["seq"][-1]) < EVENTS_MAX
    assert (np.diff(made.bid["date_time"].astype(np.int64)) >= 0).all()
    assert_same(made, fast_events(np.arange(generator.end - 100, generator.end, dtype=np.uint64), 1e8, 10))


@pytest.mark.parametrize("workers", [2, 3, 4, 7])
def test_the_events_do_not_depend_on_how_many_workers_share_them(workers: int) -> None:
    whole = golden.rows(Generator("fast", 0, 1, 5000.0, in_flight=40, seed=3).take(2100))
    parts = {}
    for worker in range(workers):
        generator = Generator("fast", worker, workers, 5000.0, in_flight=40, seed=3)
        parts.update(golden.rows(generator.take(generator.share(2100))))
    assert parts == whole


def test_any_event_can_be_made_by_itself() -> None:
    generator = Generator("fast", 0, 1, 1000, seed=9)
    whole = golden.rows(generator.take(700))
    for k in (699, 0, 350, 51, 350):
        generator.seek(k)
        assert golden.rows(generator.take(1)) == {k: whole[k]}


def test_a_price_is_a_hundred_times_ten_to_the_power_of_six_u() -> None:
    tables = [np.array(row) for row in price_tables()]
    bits = np.arange(0, 1 << 24, 97)
    product = tables[0][bits >> 16] * tables[1][bits >> 8 & 255] * tables[2][bits & 255]
    np.testing.assert_allclose(product, 100 * 10.0 ** (6 * bits / 2**24), rtol=1e-14)
    assert product[0] == 100
    assert (tables[0][-1] * tables[1][-1]) * tables[2][-1] < 1e8


# -- distributions: fast beside exact, with fixed seeds, so that what passes once passes always ------------------------


@pytest.fixture(scope="module")
def both() -> tuple[Events, Events]:
    exact = Generator("exact", 0, 1, 1000, IN_FLIGHT, seed=1)
    fast = Generator("fast", 0, 1, 1000, IN_FLIGHT, seed=1)
    return exact.take(EVENTS), fast.take(EVENTS)


def bound(freedoms: int) -> float:
    """Return a bound that chi-square stays below but once in a hundred million."""
    return freedoms + 6 * float(np.sqrt(2 * freedoms)) + 8


def chi_square(one: npt.NDArray[Any], other: npt.NDArray[Any], cells: int) -> float:
    """Return the distance of two samples of one size, of numbers below ``cells``."""
    assert len(one) == len(other)
    a, b = (np.bincount(sample.astype(np.int64), minlength=cells).astype(float) for sample in (one, other))
    assert len(a) == len(b) == cells, "a value that is out of range"
    there = a + b > 0
    return float(((a - b)[there] ** 2 / (a + b)[there]).sum())


def spread(values: npt.NDArray[Any], least: npt.NDArray[Any] | int, count: npt.NDArray[Any] | int) -> npt.NDArray[Any]:
    """Return in which of fifty equal parts of least ... least + count each value lies; 50 is out of range."""
    place = (values.astype(float) - least) / count
    parts: npt.NDArray[Any] = np.where((place >= 0) & (place < 1), np.floor(place * 50), 50)
    return parts


def hot_auction(bid: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    hot: npt.NDArray[Any] = (bid["seq"] // 50 * 3 + 2) // 100 * 100 + 1000
    return hot


def hot_bidder(bid: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    hot: npt.NDArray[Any] = bid["seq"] // 50 // 100 * 100 + 1001
    return hot


MEASURES: dict[str, tuple[int, Callable[[Events], npt.NDArray[Any]]]] = {
    "city": (len(CITIES), lambda e: e.person["city"]),
    "state": (len(STATES), lambda e: e.person["state"]),
    "category": (5, lambda e: e.auction["category"] - 10),
    "price": (61, lambda e: np.floor(np.log10(e.bid["price"] / 100) * 10)),
    "initial bid": (61, lambda e: np.floor(np.log10(e.auction["initial_bid"] / 100) * 10)),
    "reserve": (61, lambda e: np.floor(np.log10((e.auction["reserve"] - e.auction["initial_bid"]) / 100) * 10)),
    "hot auction": (2, lambda e: e.bid["auction"] == hot_auction(e.bid)),
    "hot bidder": (2, lambda e: e.bid["bidder"] == hot_bidder(e.bid)),
    "hot seller": (2, lambda e: e.auction["seller"] == e.auction["seq"] // 50 // 100 * 100 + 1000),
    "both hot": (
        4,
        lambda e: 2 * (e.bid["auction"] == hot_auction(e.bid)) + (e.bid["bidder"] == hot_bidder(e.bid)),
    ),
    "price and hot auction": (
        122,
        lambda e: 2 * np.floor(np.log10(e.bid["price"] / 100) * 10) + (e.bid["auction"] == hot_auction(e.bid)),
    ),
    "price after price": (
        49,
        lambda e: 7 * np.floor(np.log10(e.bid["price"][:-1] / 100)) + np.floor(np.log10(e.bid["price"][1:] / 100)),
    ),
    "expiry": (
        50,
        lambda e: spread(e.auction["expires"] - e.auction["date_time"] - 1, 0, 2 * (IN_FLIGHT * 50 // 3) * 10**6),
    ),
    "age of the auction bid for": (
        IN_FLIGHT + 12,
        lambda e: ages(e.bid["auction"], hot_auction(e.bid), e.bid["seq"] // 50 * 3 + 2 + 1010, e.bid["seq"]),
    ),
    "age of the bidder": (
        1011,
        lambda e: ages(e.bid["bidder"], hot_bidder(e.bid), e.bid["seq"] // 50 + 1010, e.bid["seq"]),
    ),
    "age of the seller": (
        1011,
        lambda e: ages(
            e.auction["seller"], e.auction["seq"] // 5000 * 100 + 1000, e.auction["seq"] // 50 + 1010, e.auction["seq"]
        ),
    ),
}


def ages(
    named: npt.NDArray[Any], hot: npt.NDArray[Any], newest: npt.NDArray[Any], seq: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Return how far behind the newest id that could be named each is; hot ones, and the first events, count as 0."""
    behind = newest.astype(np.int64) - named.astype(np.int64)
    assert (behind >= 0).all()
    settled: npt.NDArray[Any] = np.where((named == hot) | (seq < EVENTS // 2), 0, behind)
    return settled


@pytest.mark.parametrize("measure", MEASURES)
def test_fast_is_distributed_as_exact(both: tuple[Events, Events], measure: str) -> None:
    cells, look = MEASURES[measure]
    exact, fast = both
    distance = chi_square(look(exact), look(fast), cells)
    assert distance < bound(cells - 1)


def test_streams_of_two_seeds_are_no_closer_than_chance(both: tuple[Events, Events]) -> None:
    """The bound is worth something: what is drawn alike passes it, and what is not does not."""
    fast = both[1].bid["price"]
    other = Generator("fast", 0, 1, 1000, IN_FLIGHT, seed=2).take(EVENTS).bid["price"]
    cells = 61

    def look(prices: npt.NDArray[Any]) -> npt.NDArray[Any]:
        cell: npt.NDArray[Any] = np.floor(np.log10(prices / 100) * 10)
        return cell

    assert 0 < chi_square(look(fast), look(other), cells) < bound(cells - 1)
    assert chi_square(look(fast), look(np.maximum(100, other // 20 * 19)), cells) > bound(cells - 1)
    assert (fast == other).mean() < 0.01


def test_names_cover_the_dictionary_evenly_and_exact_has_none() -> None:
    generator = Generator("fast", 0, 1, 1000, seed=4)
    codes = generator.take(50 * 9900).person["name"]
    counts = np.bincount(codes, minlength=len(NAMES))
    assert len(counts) == len(NAMES)
    assert counts[0] == 0
    assert float(((counts[1:] - 100.0) ** 2 / 100).sum()) < bound(len(NAMES) - 2)
    assert not Generator("exact", 0, 1, 1000).take(5000).person["name"].any()
