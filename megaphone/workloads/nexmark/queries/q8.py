"""q8: persons who open an auction in the window in which they come.

::

    person --F by id-------+--> S: window[id], dates of the person and of the first auction in it
    auction --F by seller--+       +--> (time, person, window)

Windows tumble: [k * size, (k + 1) * size) of event time.  For each person with an auction of theirs in the window of
their own date a row, once: the later of the two dates (of the first such auction), the person, and the window's end.

A row of the state has the last window in which something of its key happened.  It goes at the end of that window: a
post-dated record waits for it in its bin.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from megaphone.state.access import NO_ROW
from megaphone.state.stores import HashTable
from megaphone.workloads.nexmark.queries.closed import send_at

if TYPE_CHECKING:
    from megaphone.dataflow.stream import Stream
    from megaphone.workloads.nexmark.style import Streams, Style

COLUMNS: Final = {"time": "u8", "person": "u8", "window": "u8"}
READS: Final = {"person": ("id", "date_time"), "auction": ("seller", "date_time")}
_NOT_YET: Final = np.uint64(2**64 - 1)
"""In place of a date."""
_STATE: Final = {"window": "u8", "came": "u8", "sold": "u8"}
"""End of the window, date of the person, date of the first auction."""


def q8(events: Streams, how: Style) -> Stream:
    """Build the query."""
    # In one call for many times: a row of a window that is over counts for nothing, so it may go late.
    return events.person.stateful_binary_input(
        events.auction, left_key="id", right_key="seller", state=HashTable("u8", _STATE),
        consume=partial(_meet, events), fold=_forget, columns=COLUMNS, pending={"id": "u8", "window": "u8"},
        per_time=False, **how.options("join"),
    )  # fmt: skip


def _meet(events: Streams, context: Any) -> None:  # noqa: ANN401 - a BinaryContext
    """Put together what happened to each key in each window; send those to whom now both have happened.

    A window's events may be in several calls, and a call may have several windows; of one key windows come in order.
    """
    person, seller = context.left_column("id"), context.right_column("seller")
    key = np.concatenate([person, seller])
    date = np.concatenate([context.left_column("date_time"), context.right_column("date_time")])
    size = np.uint64(events.windows.q8)
    window = (date // size + np.uint64(1)) * size
    came = date.copy()
    came[len(person) :] = _NOT_YET
    sold = date
    sold[: len(person)] = _NOT_YET
    # A group is what happened to one key in one window.
    order = np.lexsort((window, key)) if window.min() != window.max() else np.argsort(key, kind="stable")
    key, window = key[order], window[order]
    next_key = key[1:] != key[:-1]
    groups = np.flatnonzero(np.r_[True, next_key | (window[1:] != window[:-1])])
    key, window = key[groups], window[groups]
    came, sold = (np.minimum.reduceat(dates[order], groups) for dates in (came, sold))
    # The first group of a key may go on with what its row has.
    next_key = key[1:] != key[:-1]
    first, last = np.flatnonzero(np.r_[True, next_key]), np.flatnonzero(np.r_[next_key, True])
    state, rows = context.state, context.state.rows(key[first])
    known = state.gather(rows, "window")
    same = np.flatnonzero(known == window[first])
    on = first[same]
    came_before, sold_before = (state.gather(rows[same], name) for name in ("came", "sold"))
    came[on], sold[on] = np.minimum(came[on], came_before), np.minimum(sold[on], sold_before)
    both = (came != _NOT_YET) & (sold != _NOT_YET)
    both[on] &= (came_before == _NOT_YET) | (sold_before == _NOT_YET)
    met = np.flatnonzero(both)
    time = np.maximum(came[met], sold[met])
    tick = np.uint64(events.tick_ns)
    send_at(context, {"time": time, "person": key[met], "window": window[met]}, time // tick * tick)
    # Its last group is what its row has from now on.
    for name, values in (("window", window), ("came", came), ("sold", sold)):
        state.put(rows, name, values[last])
    new = last[known != window[last]]
    context.post_date({"id": key[new], "window": window[new]}, events.ceil_tick(window[new]))


def _forget(context: Any) -> None:  # noqa: ANN401 - a BinaryContext
    """Forget windows that are over, unless their row has gone on to another one."""
    rows = context.state.rows(context.pending_column("id"), insert=False)
    there = np.flatnonzero(rows != NO_ROW)
    rows = rows[there]
    over = context.state.gather(rows, "window") == context.pending_column("window")[there]
    context.state.remove(rows[over])
