"""Tables of documents that are made of results, and stay what was printed.

::

    <!-- targets -->
    | what | to reach | ...        everything between the two lines is written by a command, never by hand
    <!-- /targets -->
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any, Final

from megaphone.bench import targets
from megaphone.bench.experiments.marks import YARDSTICK_WORDS, yardstick_of
from megaphone.bench.experiments.nexmark import FLEX_OVER_PLAIN, ORIGINAL_FLEX_HALF_P99_MS, ORIGINAL_FLEX_M_S
from megaphone.bench.table import figures, grouped, ratios, shares
from megaphone.errors import UsageError
from megaphone.observe.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from megaphone.bench.experiment import Value
    from megaphone.bench.results import Result

_NOTHING: Final = "–"


def nexmark_of(results: Mapping[str, Result]) -> list[str]:
    """Return the table of NEXMark's queries with windows of hours: plain, flex, and the original's flex.

    Raises:
        UsageError: there is no result of it.
    """
    if "nexmark" not in results:
        message = "no result of nexmark: run megaphone bench run nexmark --size full"
        raise UsageError(message)
    result = results["nexmark"]
    rows_of = {
        (of["query"], of["style"]): rows for of, rows in grouped(result) if of.get("windows") == "12h"
    }  # fmt: skip
    over = {of["query"]: found for of, found in ratios(result, FLEX_OVER_PLAIN) if of.get("windows") == "12h"}

    def middle(values: list[float]) -> str:
        return f"{statistics.median(values):.2f}" if values else _NOTHING

    rows = []
    for query in dict.fromkeys(query for query, _ in rows_of):
        cells = [query]
        plain, flex = (rows_of.get((query, style), []) for style in ("plain", "flex"))
        cells += [middle(figures(rows, "highest_m_s")) for rows in (plain, flex)]
        cells += [middle(over.get(query, [])), f"{ORIGINAL_FLEX_M_S[query]:g}"]
        cells += [middle(figures(flex, "rate_over_original"))]
        cells += [middle(figures(rows, "half_p99_ms")) for rows in (plain, flex)]
        rows.append([*cells, f"{ORIGINAL_FLEX_HALF_P99_MS[query]:g}"])
    header = [
        "query", "plain, M events/s", "flex, M events/s", "flex/plain", "original's flex, M/s", "flex/original's",
        "p99 at half, plain, ms", "flex, ms", "original's flex, ms",
    ]  # fmt: skip
    lacking = targets.incomplete({"nexmark": result})
    return [*targets.markdown_table(header, rows), *(line for told in lacking for line in ("", told))]


_RATES: Final[Mapping[str, Mapping[str, Value]]] = {
    "dense counts, closed loop, 10 M keys": {"mark": "closed loop", "backend": "vec", "keys": 10_000_000},
    "dense counts, closed loop, 1 M keys": {"mark": "closed loop", "backend": "vec", "keys": 1_000_000},
    "hash table, closed loop, 10 M keys": {"mark": "closed loop", "backend": "hashmap", "keys": 10_000_000},
    "hash table, closed loop, 1 M keys": {"mark": "closed loop", "backend": "hashmap", "keys": 1_000_000},
    "hash table, its first second from empty, 10 M keys": {"mark": "inserting, closed loop"},
    "exchange alone, both ways, 1.000 copies": {"mark": "exchange"},
}
_LATENCIES: Final[Mapping[str, Mapping[str, Value]]] = {
    "100 k records/s": {"mark": "100 k/s"},
    "6 M records/s": {"mark": "6 M/s"},
    "40 M records/s, 10 M keys": {"mark": "40 M/s"},
    "6 M records/s, 4 workers on 2 cores": {"mark": "6 M/s, 4 workers"},
    "5 M records/s, hash table that fills with 10 M keys": {"mark": "inserting, 5 M/s"},
}


def rates_of(results: Mapping[str, Result]) -> list[str]:
    """Return the table of closed loops.

    Raises:
        UsageError: there is no result of ``marks``.
    """
    rows = []
    for what, of in _RATES.items():
        mine = _marks(results, of)
        beside = yardstick_of(mine[0]["point"]) if mine else ""
        rates, parts = figures(mine, "rate_m_s"), shares(mine, "rate_m_s", beside)
        part = f"{statistics.median(parts):.2f} of {YARDSTICK_WORDS[beside]}" if parts else _NOTHING
        rows.append([what, *_spread(rates, " M"), part])
    return targets.markdown_table(["", "records/s", "least–most", "share of C loops"], rows)


def latencies_of(results: Mapping[str, Result]) -> list[str]:
    """Return the table of latency at fixed rates.

    Raises:
        UsageError: there is no result of ``marks``.
    """
    rows = []
    for what, of in _LATENCIES.items():
        mine = _marks(results, of)
        cells = [what]
        for name in ("p50_ms", "p99_ms", "p999_ms"):
            middle, between = _spread(figures(mine, name), " ms")
            cells.append(middle if middle == _NOTHING else f"{middle} ({between})")
        rows.append(cells)
    return targets.markdown_table(["", "p50", "p99", "p99.9"], rows)


def _marks(results: Mapping[str, Result], of: Mapping[str, Value]) -> list[Mapping[str, Any]]:
    if "marks" not in results:
        message = "no result of marks: run megaphone bench run marks --size full"
        raise UsageError(message)
    return [row for parameters, rows in grouped(results["marks"]) if of.items() <= parameters.items() for row in rows]


def _spread(values: Sequence[float], unit: str) -> tuple[str, str]:
    """Return the median with its unit, and the least and the most, in three digits."""
    if not values:
        return _NOTHING, _NOTHING
    return short(statistics.median(values)) + unit, f"{short(min(values))}–{short(max(values))}"


def short(value: float) -> str:
    """Return a figure in three digits.

    >>> [short(value) for value in (271.4, 43.84, 1.0, 0.0574, 0.0)]
    ['271', '43.8', '1.00', '0.057', '0.000']
    """
    return f"{value:.{2 - min(2, max(-1, math.floor(math.log10(value))))}f}" if value else "0.000"


TABLES: Final[dict[str, Callable[[Mapping[str, Result]], list[str]]]] = {
    "targets": targets.markdown_of, "nexmark": nexmark_of, "rates": rates_of, "latencies": latencies_of,
}  # fmt: skip
"""What may stand between two comments, by the name that they have."""


def region(text: str, name: str) -> tuple[int, int]:
    """Return where the content of a region begins and ends in a document.

    Raises:
        UsageError: the document has no such region, or more than one.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        message = f"no region {name!r}: a line {begin.strip()} and below it a line {end}, once each, are needed"
        raise UsageError(message)
    return text.index(begin) + len(begin), text.index(end)


def content(text: str, name: str) -> list[str]:
    """Return the lines of a region."""
    begin, end = region(text, name)
    return text[begin:end].splitlines()


def fill(path: Path, results: Mapping[str, Result]) -> list[str]:
    """Write into each region of a document what the results say; whatever else it has stays.

    Returns:
        The names of the regions.

    Raises:
        UsageError: the document cannot be read or written, has no region, or one whose result is missing.
    """
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        message = f"{path}: cannot be read ({error}): give a Markdown file"
        raise UsageError(message) from None
    names = [name for name in TABLES if f"<!-- {name} -->" in text]
    if not names:
        message = f"{path}: no place for a table: put <!-- NAME --> and <!-- /NAME --> there, of {', '.join(TABLES)}"
        raise UsageError(message)
    for name in names:
        begin, end = region(text, name)
        text = text[:begin] + "".join(f"{line}\n" for line in TABLES[name](results)) + text[end:]
    write_whole(path, text)
    return names
