"""q3: who in three states sells what.

::

    auction --category 10------F by seller--+--> S: auctions that wait[seller], or the person
    person --in OR, ID or CA---F by id------+       +--> (time, name, city, state, auction)

For each auction of category 10 whose seller is in Oregon, Idaho or California a row, whichever of the two comes first:
the date of the later one, the seller's name, city and state, and the auction.

Each seller has a list: auctions that wait for their seller, or, once the person is there, that person alone.  Neither
ever ends, so this state grows with the events; the join has no window.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from megaphone.state.stores import Rows
from megaphone.workloads.nexmark import names
from megaphone.workloads.nexmark.queries.closed import send_at

if TYPE_CHECKING:
    from megaphone.dataflow.stream import Stream
    from megaphone.workloads.nexmark.style import Streams, Style

COLUMNS: Final = {"time": "u8", "name": "u4", "city": "u1", "state": "u1", "auction": "u8"}
READS: Final = {
    "person": ("id", "name", "city", "state", "date_time"), "auction": ("id", "date_time", "seller", "category"),
}  # fmt: skip
TEXTS: Final = names.TEXTS
CATEGORY: Final = 10
STATES: Final = tuple(names.STATES.index(state) for state in ("OR", "ID", "CA"))

_WAITING: Final = {"auction": "u8", "date_time": "u8", "name": "u4", "city": "u1", "state": "u1"}
_ABOUT: Final = ("name", "city", "state")
_PERSON: Final = np.uint64(2**64 - 1)
"""In place of an auction: this row is the person."""


def q3(events: Streams, how: Style) -> Stream:
    """Build the query."""
    auctions = events.auction.filter(_wanted, name=how.name("category"))
    persons = events.person.filter(_local, name=how.name("states"))
    return auctions.stateful_binary(
        persons, left_key="seller", right_key="id", state=Rows("u8", _WAITING), fold=partial(_join, events.tick_ns),
        columns=COLUMNS, **how.options("join"),
    )  # fmt: skip


def _wanted(auction: Any) -> Any:  # noqa: ANN401 - a Batch, bool[n]
    return auction["category"] == CATEGORY


def _local(person: Any) -> Any:  # noqa: ANN401 - a Batch, bool[n]
    state = person["state"]
    return (state == STATES[0]) | (state == STATES[1]) | (state == STATES[2])


def _join(tick: int, context: Any) -> None:  # noqa: ANN401 - a BinaryContext
    """Match auctions with persons who are known, let the others wait; then persons with auctions that wait.

    The order within a call shows nowhere: the later of two that match is in this call, and the row has its time.
    """
    _sell(tick, context)
    _arrive(tick, context)


def _sell(tick: int, context: Any) -> None:  # noqa: ANN401 - a BinaryContext
    seller, auction, date = (context.left_column(name) for name in ("seller", "id", "date_time"))
    there, first = context.state.first(seller)
    known = there & (first["auction"] == _PERSON)
    met, wait = np.flatnonzero(known), np.flatnonzero(~known)
    time = np.maximum(date[met], first["date_time"][met])
    _send(tick, context, time, {name: first[name][met] for name in _ABOUT}, auction[met])
    row = {"auction": auction[wait], "date_time": date[wait], **dict.fromkeys(_ABOUT, 0)}
    context.state.append(seller[wait], row)


def _arrive(tick: int, context: Any) -> None:  # noqa: ANN401 - a BinaryContext
    person, date = context.right_column("id"), context.right_column("date_time")
    about = {name: context.right_column(name) for name in _ABOUT}
    bounds, waiting = context.state.lists(person, ("auction", "date_time"))
    of = np.repeat(np.arange(len(person)), np.diff(bounds).astype(np.int64))
    time = np.maximum(date[of], waiting["date_time"])
    _send(tick, context, time, {name: values[of] for name, values in about.items()}, waiting["auction"])
    row = {"auction": np.full(len(person), _PERSON), "date_time": date, **about}
    context.state.replace(person, np.arange(len(person) + 1), row)


def _send(tick: int, context: Any, time: Any, about: dict[str, Any], auction: Any) -> None:  # noqa: ANN401 - arrays
    send_at(context, {"time": time, **about, "auction": auction}, time // np.uint64(tick) * np.uint64(tick))
