"""Tables of documents that are made of results, and stay what was printed.

::

    <!-- targets -->
    | what | to reach | ...        everything between the two lines is written by a command, never by hand
    <!-- /targets -->
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final

from megaphone.bench import targets
from megaphone.bench.experiments.nexmark import FLEX_OVER_PLAIN, ORIGINAL_FLEX_HALF_P99_MS, ORIGINAL_FLEX_M_S
from megaphone.bench.table import figures, grouped, ratios
from megaphone.errors import UsageError
from megaphone.observe.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

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
    return targets.markdown_table(header, rows)


TABLES: Final[dict[str, Callable[[Mapping[str, Result]], list[str]]]] = {
    "targets": targets.markdown_of, "nexmark": nexmark_of,
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
