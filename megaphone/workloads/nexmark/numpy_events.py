"""The fast generator once more, in numpy: what the C one must equal bit for bit, and the plain rival of its benchmark.

Written from the account in ``generator.h`` and ``generator.c`` of which bits of which draw decide what, with nothing of
the C code: all columns of a range of event numbers, whole arrays at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from megaphone.workloads.nexmark.events import (
    AUCTIONS_PER_EPOCH,
    EPOCH,
    IN_FLIGHT_PER_RATE,
    Events,
    price_tables,
)
from megaphone.workloads.nexmark.names import CITIES, FIRST_NAMES, LAST_NAMES, STATES

if TYPE_CHECKING:
    import numpy.typing as npt

    U64Array: TypeAlias = npt.NDArray[np.uint64]

FIRST_ID: Final = np.uint64(1000)
DRAWS: Final = np.uint64(4)
GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_LOW: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)


def fast_events(numbers: U64Array, rate: float, in_flight: int | None = None, seed: int = 0) -> Events:
    """Return the fast generator's events of these numbers.

    Args:
        numbers: uint64[n], rising, each below 2**53.
        rate: events per second of event time.
        in_flight: auctions that bids are for; None is ``rate * 2592``.
        seed: of all draws.

    Cost: about 150 ns per event, and temporaries of 200 bytes per event.
    """
    flying = max(1, int(rate * IN_FLIGHT_PER_RATE)) if in_flight is None else in_flight
    source = _Source(1e9 / rate, flying, seed)
    rest = numbers % np.uint64(EPOCH)
    return Events(
        source.persons(numbers[rest == 0]),
        source.auctions(numbers[(rest >= 1) & (rest <= AUCTIONS_PER_EPOCH)]),
        source.bids(numbers[rest > AUCTIONS_PER_EPOCH]),
    )


class _Source:
    """What all draws of one run depend on."""

    def __init__(self, delay_ns: float, in_flight: int, seed: int) -> None:
        self.delay_ns = delay_ns
        self.in_flight = np.uint64(in_flight)
        self.ahead = np.uint64(in_flight * EPOCH // AUCTIONS_PER_EPOCH)
        self.base = _mix(np.array([seed], dtype=np.uint64))
        self.prices = [np.array(row) for row in price_tables()]

    def persons(self, n: U64Array) -> dict[str, npt.NDArray[Any]]:
        place, name = self.draw(n, 0), self.draw(n, 1)
        first = _half_below(name & _LOW, len(FIRST_NAMES))
        last = _half_below(name >> _HALF, len(LAST_NAMES))
        return {
            "seq": n,
            "id": n // np.uint64(EPOCH) + FIRST_ID,
            "name": (np.uint64(1) + first * np.uint64(len(LAST_NAMES)) + last).astype(np.uint32),
            "city": _half_below(place & _LOW, len(CITIES)).astype(np.uint8),
            "state": _half_below(place >> _HALF, len(STATES)).astype(np.uint8),
            "date_time": self.date_time(n),
        }

    def auctions(self, n: U64Array) -> dict[str, npt.NDArray[Any]]:
        epoch, rest = np.divmod(n, np.uint64(EPOCH))
        how, more = self.draw(n, 0), self.draw(n, 2)
        hot = epoch // np.uint64(100) * np.uint64(100)
        initial, now = self.price(how), self.date_time(n)
        horizon = self.date_time(n + self.ahead) - now
        expires = now + np.uint64(1) + _below(self.draw(n, 3), np.maximum(horizon * np.uint64(2), np.uint64(1)))
        return {
            "seq": n,
            "id": epoch * np.uint64(AUCTIONS_PER_EPOCH) + rest - np.uint64(1) + FIRST_ID,
            "initial_bid": initial,
            "reserve": initial + self.price(more),
            "date_time": now,
            "expires": expires,
            "seller": np.where(how & np.uint64(3) != 0, hot, self.person(epoch, self.draw(n, 1))) + FIRST_ID,
            "category": _half_below(more & _LOW, 5) + np.uint64(10),
        }

    def bids(self, n: U64Array) -> dict[str, npt.NDArray[Any]]:
        epoch = n // np.uint64(EPOCH)
        how = self.draw(n, 0)
        newest = epoch * np.uint64(AUCTIONS_PER_EPOCH) + np.uint64(AUCTIONS_PER_EPOCH - 1)
        oldest = newest - np.minimum(newest, self.in_flight)
        warm = oldest + _below(self.draw(n, 1), newest - oldest + np.uint64(11))
        hot_auction = newest // np.uint64(100) * np.uint64(100)
        hot_bidder = epoch // np.uint64(100) * np.uint64(100) + np.uint64(1)
        return {
            "seq": n,
            "auction": np.where(how & np.uint64(1) != 0, hot_auction, warm) + FIRST_ID,
            "bidder": np.where(how & np.uint64(6) != 0, hot_bidder, self.person(epoch, self.draw(n, 2))) + FIRST_ID,
            "price": self.price(how),
            "date_time": self.date_time(n),
        }

    def draw(self, n: U64Array, number: int) -> U64Array:
        return _mix(self.base + (n * DRAWS + np.uint64(number)) * GOLDEN)

    def date_time(self, n: U64Array) -> U64Array:
        times: npt.NDArray[np.float64] = n.astype(np.float64) * self.delay_ns
        return times.astype(np.uint64)

    def person(self, epoch: U64Array, drawn: U64Array) -> U64Array:
        people = epoch + np.uint64(1)
        active = np.minimum(people, np.uint64(1000))
        named: U64Array = people - active + _below(drawn, active + np.uint64(10))
        return named

    def price(self, drawn: U64Array) -> U64Array:
        first, second, third = ((drawn >> np.uint64(shift)) & np.uint64(255) for shift in (56, 48, 40))
        exact: npt.NDArray[np.float64] = self.prices[0][first] * self.prices[1][second] * self.prices[2][third]
        rounded: npt.NDArray[np.float64] = np.floor(exact + 0.5)
        return rounded.astype(np.uint64)


def _mix(keys: U64Array) -> U64Array:
    h = keys + GOLDEN
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: U64Array = h ^ (h >> np.uint64(31))
    return mixed


def _half_below(half: U64Array, count: int) -> U64Array:
    return (half * np.uint64(count)) >> _HALF


def _below(drawn: U64Array, count: U64Array) -> U64Array:
    """Return the high 64 bits of the products, from four products of halves."""
    low, high = drawn & _LOW, drawn >> _HALF
    count_low, count_high = count & _LOW, count >> _HALF
    middle = high * count_low + (low * count_low >> _HALF)
    middle_low = low * count_high + (middle & _LOW)
    result: U64Array = high * count_high + (middle >> _HALF) + (middle_low >> _HALF)
    return result
