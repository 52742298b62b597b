"""q0: every event, as it is: what the way through the system costs.

::

    person  --by id-------+
    auction --by id-------+--> (time, kind, id)
    bid     --by auction--+

A row for each event: its event time, its kind, and the id of the person or the auction that it is about.  The flex
variant sends each event to the owner of its id's bin on the way; the plain one hands it on where it is.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from megaphone.dataflow.stream import Stream
    from megaphone.workloads.nexmark.style import Streams, Style

COLUMNS: Final = {"time": "u8", "kind": "u1", "id": "u8"}
READS: Final = {"person": ("id", "date_time"), "auction": ("id", "date_time"), "bid": ("auction", "date_time")}
KINDS: Final = ("person", "auction", "bid")
TEXTS: Final = {"kind": KINDS}


def q0(events: Streams, how: Style) -> Stream:
    """Build the query."""
    kinds = [
        how.distribute(stream, column, kind).map(
            partial(_named, KINDS.index(kind), column), columns=COLUMNS, loan=True, name=how.name(f"{kind}.name")
        )
        for kind, stream, column in (
            ("person", events.person, "id"),
            ("auction", events.auction, "id"),
            ("bid", events.bid, "auction"),
        )  # fmt: skip
    ]
    return kinds[0].concat(*kinds[1:], name=how.name("all"))


def _named(kind: int, column: str, batch: Any, loan: Any) -> Any:  # noqa: ANN401 - a Batch, and what makes a Loan
    """Name each event by its kind and the id that it is about."""
    made = loan()
    made["time"][:] = batch["date_time"]
    made["kind"][:] = kind
    made["id"][:] = batch[column]
    return made
