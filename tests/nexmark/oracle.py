"""What each NEXMark query must give for a set of events, worked out by SQL in DuckDB; nothing of the engine decides it.

::

    streams (numpy columns) ──> DuckDB, in memory ──> one SELECT per query ──> columns, rows in ascending order
                                                                                   │
    a run's output (numpy columns) ───────────────────────────> difference() <─────┘

What the SQL says where the queries' definitions leave room:

* **Time** is the event time in ns at which a row is final. Rows depend on events before their time alone, except those
  that an event makes by itself (q0 to q3, q8), which carry that event's time.
* **A run that ends by itself** (``end=None``) fires all: each window that has a bid, each expiry, however late.
  ``end=t`` is a run whose frontier stopped at t: it gives the rows with ``time < t``.
* **q0**: the id of a bid is its auction's; that is also what the original routes by.
* **q3**: name, city and state are dictionary codes, as in the events. The seller may come after the auction.
* **q4**: an average is over the category's winning prices of all times up to the row's, itself included.
* **q5**: slide ends are the multiples T of the slide, from the slide on, whose window [T - size, T) has a bid. A window
  that nothing has changed since the slide before is given again; one without bids gives nothing; windows reach beyond
  the last bid until it has left them. Size need not be a multiple of the slide. Bids count whether or not their
  auction exists.
* **q6**: last means by (expires, auction id), so auctions that close together follow their ids. Whether the seller
  exists as a person does not matter.
* **q7**: two equal bids are two rows.
* **q8**: an auction before its seller counts, if both are in one window.

Columns are uint64, ``kind`` is text (numpy ``<U7``). Times, ids and prices must be below 2**63, and whatever else does
not fit (price * 89, a window's end) is an error of DuckDB, never a wrong row. Ids of persons are unique, and of
auctions; the events are refused otherwise, since q3 and q8 would mean nothing.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt

Columns: TypeAlias = Mapping[str, npt.NDArray[Any]]
Streams: TypeAlias = Mapping[str, Columns]

SECOND: Final = 1_000_000_000
PERSON: Final = ("seq", "id", "name", "city", "state", "date_time")
AUCTION: Final = ("seq", "id", "initial_bid", "reserve", "date_time", "expires", "seller", "category")
BID: Final = ("seq", "auction", "bidder", "price", "date_time")
STREAMS: Final = {"person": PERSON, "auction": AUCTION, "bid": BID}

STATES: Final = ("AZ", "CA", "ID", "OR", "WA", "WY")
"""The texts of a person's state, by code."""

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "q0": ("time", "kind", "id"),
    "q1": ("time", "auction", "bidder", "price"),
    "q2": ("time", "auction", "price"),
    "q3": ("time", "name", "city", "state", "auction"),
    "q4": ("time", "category", "average"),
    "q5": ("time", "auction", "bids"),
    "q6": ("time", "seller", "average"),
    "q7": ("time", "auction", "bidder", "price"),
    "q8": ("time", "person", "window"),
}
QUERIES: Final = tuple(COLUMNS)
KIND: Final = np.dtype("<U7")


@dataclass(frozen=True)
class Windows:
    """Lengths in ns of event time, each at least 1; the defaults are the original's.

    Attributes:
        q5_size: the window in which bids are counted.
        q5_slide: the distance of its ends.
        q7: the tumbling window of the highest bid.
        q8: the tumbling window that a person shares with an auction.
    """

    q5_size: int = 60 * SECOND
    q5_slide: int = SECOND
    q7: int = 10 * SECOND
    q8: int = 12 * 3600 * SECOND

    def __post_init__(self) -> None:
        if bad := {name: ns for name, ns in asdict(self).items() if ns < 1}:
            message = f"bad windows, {bad}: use 1 ns or more"
            raise ValueError(message)


# A window's end is exclusive: what happens at the end belongs to the next one.
_CLOSED: Final = """
    closed AS (
        SELECT a.expires, a.id, a.category, a.seller, b.price
        FROM auction a JOIN bid b ON b.auction = a.id
        WHERE b.price >= a.reserve AND a.date_time <= b.date_time AND b.date_time < a.expires
        QUALIFY row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.date_time, b.seq) = 1
    )
"""

SQL: Final[Mapping[str, str]] = {
    "q0": """
        SELECT date_time AS time, 'person' AS kind, id FROM person
        UNION ALL SELECT date_time, 'auction', id FROM auction
        UNION ALL SELECT date_time, 'bid', auction FROM bid
    """,
    "q1": "SELECT date_time AS time, auction, bidder, price * 89 // 100 AS price FROM bid",
    "q2": "SELECT date_time AS time, auction, price FROM bid WHERE auction % 123 = 0",
    "q3": """
        SELECT greatest(a.date_time, p.date_time) AS time, p.name, p.city, p.state, a.id AS auction
        FROM auction a JOIN person p ON p.id = a.seller
        WHERE a.category = 10 AND p.state IN ($oregon, $idaho, $california)
    """,
    "q4": f"""
        WITH {_CLOSED},
        closing AS (
            SELECT expires, category, sum(price) AS prices, count(*) AS winners FROM closed GROUP BY expires, category
        )
        SELECT expires AS time, category, sum(prices) OVER so_far // sum(winners) OVER so_far AS average
        FROM closing WINDOW so_far AS (PARTITION BY category ORDER BY expires ROWS UNBOUNDED PRECEDING)
    """,
    # All bids of a pane are in the same windows, as long as its length divides both the size and the slide.
    "q5": """
        WITH pane AS (
            SELECT date_time // $q5_pane * $q5_pane AS start, auction, count(*) AS bids FROM bid GROUP BY ALL
        ),
        shown AS (
            SELECT unnest(generate_series(start // $q5_slide + 1, (start + $q5_size) // $q5_slide)) * $q5_slide AS time,
                auction, bids
            FROM pane
        ),
        counted AS (SELECT time, auction, sum(bids) AS bids FROM shown GROUP BY time, auction)
        SELECT time, auction, bids FROM counted QUALIFY bids = max(bids) OVER (PARTITION BY time)
    """,
    "q6": f"""
        WITH {_CLOSED}
        SELECT expires AS time, seller, sum(price) OVER last_ten // count(*) OVER last_ten AS average
        FROM closed
        WINDOW last_ten AS (PARTITION BY seller ORDER BY expires, id ROWS BETWEEN 9 PRECEDING AND CURRENT ROW)
    """,
    "q7": """
        SELECT (date_time // $q7 + 1) * $q7 AS time, auction, bidder, price
        FROM bid QUALIFY price = max(price) OVER (PARTITION BY date_time // $q7)
    """,
    "q8": """
        SELECT greatest(p.date_time, min(a.date_time)) AS time, p.id AS person,
            (p.date_time // $q8 + 1) * $q8 AS "window"
        FROM person p JOIN auction a ON a.seller = p.id AND a.date_time // $q8 = p.date_time // $q8
        GROUP BY p.id, p.date_time
    """,
}


def expected(
    streams: Streams, windows: Windows | None = None, end: int | None = None, queries: Iterable[str] = QUERIES
) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """Return what each query must give.

    Args:
        streams: ``person``, ``auction`` and ``bid``, each with the columns in ``STREAMS``, integers of any width, of
            one length; rows in any order.
        windows: the sizes of the windows; None is the original's.
        end: the event time at which the run stops, of which rows at and after it are not final; None fires all.
        queries: which of ``QUERIES``.

    Returns:
        By query its columns, by ``COLUMNS``, with the rows in ascending order.

    Raises:
        ValueError: a column is missing or of another length, or an id occurs twice.
        duckdb.Error: a number does not fit 63 bits.
    """
    _check_streams(streams)
    windows = windows or Windows()
    parameters = {
        **asdict(windows),
        "q5_pane": int(np.gcd(windows.q5_size, windows.q5_slide)),
        "oregon": STATES.index("OR"),
        "idaho": STATES.index("ID"),
        "california": STATES.index("CA"),
    }
    connection = _connection()
    try:
        for name, columns in STREAMS.items():
            connection.register(f"{name}_given", {c: np.ascontiguousarray(streams[name][c]) for c in columns})
        return {query: _rows(connection, query, parameters, end) for query in queries}
    finally:
        for name in STREAMS:
            connection.unregister(f"{name}_given")


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    """Return the one connection of this process: to make one takes longer than all nine queries on few events.

    It has one thread, which is the caller's, since others work beside a test and processes may be forked from it.
    """
    connection = duckdb.connect(":memory:", config={"threads": 1})
    for name, columns in STREAMS.items():
        # Signed numbers of one width: what does not fit is an error, and no sum turns into a float.
        casts = ", ".join(f"{column}::BIGINT AS {column}" for column in columns)
        connection.register(f"{name}_given", {column: np.zeros(0, np.uint64) for column in columns})
        connection.execute(f"CREATE TEMP VIEW {name} AS SELECT {casts} FROM {name}_given")
    atexit.register(_disconnect)  # DuckDB lists what it finds alive when Python goes.
    return connection


def _disconnect() -> None:
    _connection().close()
    _connection.cache_clear()


def _rows(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, int], end: int | None
) -> dict[str, npt.NDArray[Any]]:
    names = COLUMNS[query]
    # In quotation marks, because window is a word of SQL as well.
    casts = ", ".join(name if name == "kind" else f'"{name}"::UBIGINT AS "{name}"' for name in names)
    text = f"SELECT {casts} FROM ({SQL[query]})"
    if end is not None:
        text += f" WHERE time < {int(end)}"
    text += " ORDER BY ALL"
    used = {name: value for name, value in parameters.items() if f"${name}" in text}
    result = connection.execute(text, used).fetchnumpy()
    return {name: np.asarray(result[name]).astype(KIND if name == "kind" else np.uint64) for name in names}


def _check_streams(streams: Streams) -> None:
    for stream, names in STREAMS.items():
        lengths = {name: len(streams[stream][name]) for name in names if name in streams[stream]}
        if missing := [name for name in names if name not in lengths]:
            message = f"{stream} lacks {', '.join(missing)}: give the columns {', '.join(names)}"
            raise ValueError(message)
        if len(set(lengths.values())) > 1:
            message = f"{stream} has columns of different lengths, {lengths}"
            raise ValueError(message)
    for stream in ("person", "auction"):
        ids, times = np.unique(streams[stream]["id"], return_counts=True)
        if (times > 1).any():
            message = f"{stream} {ids[times > 1][0]} occurs {times[times > 1][0]} times: ids are unique"
            raise ValueError(message)


# --- comparing --------------------------------------------------------------------------------------------------------

ROWS_SHOWN: Final = 8


def difference(expected_rows: Columns, got: Columns, name: str = "rows") -> str | None:
    """Compare two sets of columns as multisets of rows.

    Args:
        expected_rows: what must be, as from ``expected``.
        got: what a run gave; integers of any width, in any order of rows.
        name: what the message begins with.

    Returns:
        None if each row occurs equally often in both. Otherwise one message: how many rows there are, how many are
        missing and how many too many, and the first that differ with their counts, in ascending order.

    Cost: O(n log n) in numpy per column; Python only for the rows that are shown.
    """
    if list(expected_rows) != list(got):
        return f"{name}: the columns are {', '.join(got)} and should be {', '.join(expected_rows)}"
    lengths = {column: len(values) for column, values in got.items()}
    if len(set(lengths.values())) > 1:
        return f"{name}: columns of different lengths came, {lengths}"
    sizes = [len(next(iter(rows.values()))) if rows else 0 for rows in (expected_rows, got)]
    codes = np.zeros(sum(sizes), np.int64)
    for column, values in expected_rows.items():
        came = got[column]
        if wrong := _kind_differs(values, came):
            return f"{name}: column {column} {wrong}"
        of_both = np.concatenate([values, came.astype(values.dtype)])
        distinct, code = np.unique(of_both, return_inverse=True)
        # Codes keep the order of rows, and made dense after each column they cannot overflow.
        _, codes = np.unique(codes * np.int64(distinct.size) + code, return_inverse=True)
    rows = int(codes.max()) + 1 if codes.size else 0
    must = np.bincount(codes[: sizes[0]], minlength=rows)
    came_times = np.bincount(codes[sizes[0] :], minlength=rows)
    differing = np.flatnonzero(must != came_times)
    if not differing.size:
        return None
    missing = int(np.maximum(must - came_times, 0).sum())
    extra = int(np.maximum(came_times - must, 0).sum())
    lines = [f"{name}: {sizes[0]} expected, {sizes[1]} came: {missing} missing, {extra} too many"]
    shown = differing[:ROWS_SHOWN]
    _, first = np.unique(codes, return_index=True)
    for row in shown.tolist():
        at = int(first[row])
        side, index = (expected_rows, at) if at < sizes[0] else (got, at - sizes[0])
        cells = " ".join(f"{column}={side[column][index]}" for column in expected_rows)
        lines.append(f"  {cells}: {must[row]} expected, {came_times[row]} came")
    if differing.size > ROWS_SHOWN:
        lines.append(f"  and {differing.size - ROWS_SHOWN} other rows that differ")
    return "\n".join(lines)


def _kind_differs(must: npt.NDArray[Any], came: npt.NDArray[Any]) -> str | None:
    """Return what keeps a column from being compared: floats, texts for numbers, numbers below 0."""
    if must.dtype.kind == "U":
        # A longer text would be cut to the width of the expected one, and might then be equal to it.
        cut = came.dtype.kind == "U" and (np.char.str_len(came) > must.dtype.itemsize // 4).any()
        return f"has texts that are too long, {came.dtype}" if cut else None if came.dtype.kind == "U" else "is no text"
    if came.dtype.kind not in "iu":
        return f"has {came.dtype} and should have integers"
    if came.dtype.kind == "i" and (came < 0).any():
        return f"has numbers below 0, the least {came.min()}"
    return None
