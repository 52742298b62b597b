"""Tables whose columns give way where a terminal is narrow, and numbers written as runs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from megaphone.observe.units import format_count

INDENT: Final = "  "


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: above it.
        text: begins left; numbers end right.
        rank: 0 is always shown; of the others the highest goes first where it is too wide.
    """

    title: str
    text: bool = False
    rank: int = 0


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, indent: str = INDENT) -> list[str]:
    """Return rows under their header; columns of the highest rank give way, then the widest text is cut short."""
    shown = list(range(len(columns)))
    widths = [max(len(columns[i].title), *(len(row[i]) for row in rows)) for i in range(len(columns))]

    def total() -> int:
        return len(indent) + sum(widths[i] for i in shown) + 2 * (len(shown) - 1)

    while total() > width and (rank := max(columns[i].rank for i in shown)):
        shown.remove(max(i for i in shown if columns[i].rank == rank))
    texts = [i for i in shown if columns[i].text]
    if total() > width and texts:
        widest = max(texts, key=lambda i: widths[i])
        widths[widest] = max(8, widths[widest] - (total() - width))
    lines = []
    for row in ([column.title for column in columns], *rows):
        cells = [
            shortened(row[i], widths[i]).ljust(widths[i]) if columns[i].text else row[i].rjust(widths[i]) for i in shown
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return lines


def shortened(text: str, width: int) -> str:
    """Return a text, its end replaced by dots where it is too long."""
    return text if len(text) <= width else text[: max(0, width - 3)] + "..."


def number_runs(numbers: Sequence[int], width: int) -> str:
    """Return numbers as runs: ``0-3, 8, 10-20 by 2``; cut short at a width.

    >>> number_runs([0, 1, 2, 3, 8, 10, 12, 14], 40)
    '0-3, 8-14 by 2'
    """
    parts = []
    at = 0
    while at < len(numbers):
        end = at + 1
        step = numbers[end] - numbers[at] if end < len(numbers) else 0
        while end < len(numbers) and numbers[end] - numbers[end - 1] == step:
            end += 1
        # Two numbers are a run only where they are neighbours: else the second may begin a longer one.
        if end - at == 2 and step != 1:
            end = at + 1
        first, last = numbers[at], numbers[end - 1]
        parts.append(f"{first}" if end - at == 1 else f"{first}-{last}" + (f" by {step}" if step != 1 else ""))
        at = end
    return shortened(", ".join(parts), width)


def wrapped(text: str, width: int, first: str = INDENT, following: str = INDENT) -> list[str]:
    """Return the lines of a text that is too long for one."""
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=following, break_on_hyphens=False)


def time_text(value: int | None, never: str = "-") -> str:
    """Return a time, with thousands marked; None has a word of its own."""
    return never if value is None else format_count(value)
