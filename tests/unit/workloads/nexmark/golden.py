"""What the original generator was seen to make: a few events of each kind, sums over many, and how to compare them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from megaphone.workloads.nexmark.events import Events, Generator
from megaphone.workloads.nexmark.names import CITIES, STATES
from megaphone.workloads.nexmark.schemas import STREAMS

RATE: Final = 1000.0
# Worker, number and the fields in the original's order, of runs with one worker and with two.
ONE_WORKER: Final = """
w0 n0 P id=1000 city=boise state=OR t=0
w0 n1 A id=1000 initial=467576 reserve=469739 t=1000000 expires=34646576013817 seller=1000 category=13
w0 n2 A id=1001 initial=12520 reserve=14722 t=2000000 expires=61660555844029 seller=1000 category=12
w0 n3 A id=1002 initial=7273 reserve=24133 t=3000000 expires=24838996878927 seller=1010 category=14
w0 n4 B auction=1007 bidder=1001 price=596541 t=4000000
w0 n6 B auction=1011 bidder=1004 price=728 t=6000000
w0 n9 B auction=1002 bidder=1001 price=56587792 t=9000000
w0 n49 B auction=1006 bidder=1005 price=3911 t=49000000
w0 n50 P id=1001 city=seattle state=OR t=50000000
w0 n53 A id=1005 initial=9344 reserve=3626075 t=53000000 expires=33236101789800 seller=1004 category=12
w0 n100 P id=1002 city=bend state=AZ t=100000000
w0 n103 A id=1008 initial=331 reserve=52719 t=103000000 expires=35134162262914 seller=1011 category=14
worker 0 persons 3 auctions 9 bids 92 checksum 0xf2fb56695c94ae83 rng_state 0xacf27ec6df7e25765a9411fdff2dab65
"""
TWO_WORKERS: Final = """
w0 n0 P id=1000 city=los angeles state=OR t=0
w0 n2 A id=1001 initial=48809592 reserve=62245022 t=2000000 expires=6626573148331 seller=1000 category=11
w0 n4 B auction=1000 bidder=1001 price=6893624 t=4000000
w0 n102 A id=1007 initial=49209832 reserve=86428860 t=102000000 expires=51714802756609 seller=1000 category=11
w0 n118 B auction=1014 bidder=1001 price=2766689 t=118000000
worker 0 persons 5 auctions 5 bids 94 checksum 0x29f47969b190f0c5 rng_state 0x030970cd5194e8eb246c6a961168f7bb
w1 n171 B auction=1001 bidder=1001 price=12681 t=171000000
w1 n203 A id=1014 initial=228896 reserve=26336792 t=203000000 expires=49046962195231 seller=1000 category=14
w1 n205 B auction=1004 bidder=1001 price=220063 t=205000000
worker 1 persons 0 auctions 10 bids 94 checksum 0x72cdb267decab543 rng_state 0x0ed95768dd4543b1096998e091378a87
"""
FIELDS: Final = {
    "P": ("person", ("id", "city", "state", "t")),
    "A": ("auction", ("id", "initial", "reserve", "t", "expires", "seller", "category")),
    "B": ("bid", ("auction", "bidder", "price", "t")),
}
COLUMN: Final = {"initial": "initial_bid", "t": "date_time"}
TEXT: Final = {"city": CITIES, "state": STATES}
_FNV_BASIS: Final = 0xCBF29CE484222325
_FNV_PRIME: Final = 0x00000100000001B3
_WORD: Final = 2**64 - 1


def rows(events: Events) -> dict[int, tuple[str, dict[str, int]]]:
    """Return stream and values of every event by its number."""
    found: dict[int, tuple[str, dict[str, int]]] = {}
    for stream, columns in zip(STREAMS, events, strict=True):
        values = {name: array.tolist() for name, array in columns.items()}
        for place, number in enumerate(values["seq"]):
            found[number] = (stream, {name: of_all[place] for name, of_all in values.items()})
    return found


def line(worker: int, number: int, row: tuple[str, dict[str, int]]) -> str:
    """Return an event as the golden files have it."""
    stream, values = row
    letter = next(letter for letter, (of, _) in FIELDS.items() if of == stream)
    told = [f"w{worker} n{number} {letter}"]
    for field in FIELDS[letter][1]:
        value = values[COLUMN.get(field, field)]
        told.append(f"{field}={TEXT[field][value] if field in TEXT else value}")
    return " ".join(told)


def checksum(events: Events) -> int:
    """Return the original's checksum: FNV-1a of the eight bytes of (sum so far ^ field), field after field."""
    total = 0
    for _, (stream, values) in sorted(rows(events).items()):
        fields = next(fields for of, fields in FIELDS.values() if of == stream)
        for field in fields:
            value = values[COLUMN.get(field, field)]
            if field == "city":
                value = len(CITIES[value])
            elif field == "state":
                value = ord(STATES[value][0])
            total = _fnv(total ^ value)
    return total


def _fnv(word: int) -> int:
    hashed = _FNV_BASIS
    for byte in word.to_bytes(8, "little"):
        hashed = (hashed ^ byte) * _FNV_PRIME & _WORD
    return hashed


SUMMARY = re.compile(
    r"worker (?P<worker>\d+) persons (?P<person>\d+) auctions (?P<auction>\d+) bids (?P<bid>\d+) "
    r"checksum (?P<checksum>0x[0-9a-f]+) rng_state (?P<state>0x[0-9a-f]+)"
)


def differences(text: str, workers: int) -> Iterator[str]:
    """Yield each line of a golden text that the exact generator does not make, beside what it makes."""
    summaries = {int(found["worker"]): found for found in SUMMARY.finditer(text)}
    made: dict[int, dict[int, tuple[str, dict[str, int]]]] = {}
    for worker in range(workers):
        generator = Generator("exact", worker, workers, RATE)
        told: Any = summaries.get(worker)
        count = sum(int(told[stream]) for stream in STREAMS) if told else 104
        events = generator.take(count)
        made[worker] = rows(events)
        if told:
            counts = tuple(int(told[stream]) for stream in STREAMS)
            is_so = (generator.counts_before(count), checksum(events), generator.state)
            if is_so != (counts, int(told["checksum"], 16), int(told["state"], 16)):
                yield f"{told[0]} is {is_so}"
    for golden in text.splitlines():
        if match := re.match(r"w(\d+) n(\d+) ", golden):
            worker, number = int(match[1]), int(match[2])
            mine = line(worker, number, made[worker][number]) if number in made[worker] else "nothing"
            if mine != golden:
                yield f"{golden} is {mine}"
