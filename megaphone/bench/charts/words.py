"""What charts say in words: numbers, powers of two, and what runs had in common, as their commands tell it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from megaphone.workloads.settings import WordCountSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STRATEGIES: Final = {"none": "no migration", "sudden": "sudden (all bins at once)",
                     "fluid": "fluid (bin by bin)", "batched": "batched (disjoint bins together)"}  # fmt: skip
TRANSFERS: Final = {"handover": "by hand-over", "copy": "by copying"}
BACKENDS: Final = {"vec": "arrays (vec)", "hashmap": "hash tables (hashmap)"}
PROGRAMS: Final = {"word-count": "word count", "nexmark": "NEXMark", "exchange": "exchange"}
_RAISED: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def power(text: str) -> str:
    """Return a power as it is written by hand.

    >>> power("2^12")
    '2¹²'
    """
    base, _, exponent = text.partition("^")
    return base + exponent.translate(_RAISED)


def plain(value: float) -> str:
    """Return the number at a tick.

    >>> plain(0.001), plain(2.5), plain(20_000.0)
    ('0.001', '2.5', '20,000')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def short(value: float) -> str:
    """Return a figure beside its mark, with about three digits.

    >>> short(0.01234), short(12.34), short(1234.5), short(0)
    ('0.0123', '12.3', '1,234', '0')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip("0").rstrip(".") if value else "0"


def count(value: float) -> str:
    """Return a count of things.

    >>> count(4e6), count(250_000), count(1e9), count(100), count(1 << 24)
    ('4 M', '250 k', '1 G', '100', '16.8 M')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def length(ms: float) -> str:
    """Return a length of time.

    >>> length(0.0421), length(36.11), length(2500)
    ('42.1 µs', '36.1 ms', '2.5 s')
    """
    if ms < 0.1:
        return f"{short(ms * 1e3)} µs"
    return f"{short(ms)} ms" if ms < 1000 else f"{short(ms / 1e3)} s"


def conditions(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what all runs have in common: the program, workers, keys, the offered rate and the length of a run."""
    commands = [_flags(row.get("command", "")) for row in rows]

    def common(name: str, otherwise: str = "") -> str:
        values = {flags.get(name, otherwise) for flags in commands}
        return values.pop() if len(values) == 1 else ""

    program = common("program")
    parts = [PROGRAMS.get(program, program)]
    if program in ("word-count", "nexmark") and (workers := common("-w", str(WordCountSettings.workers))):
        parts.append(f"{workers} workers")
    if domain := common("--domain"):
        parts.append(f"{count(int(domain))} keys")
    if rate := common("--total-rate"):
        parts.append(f"{count(int(rate))} records/s offered")
    if seconds := common("--duration"):
        parts.append(f"{seconds} s a run")
    text = ", ".join(part for part in parts if part)
    return text[:1].upper() + text[1:]


def rounds(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return how many rounds there were, and what whiskers mean if there were several."""
    found = len({row["repeat"] for row in rows})
    return f"Median of {found} rounds; whiskers reach from the least to the most." if found > 1 else "One round."


def is_paced(row: Mapping[str, Any]) -> bool:
    """Return whether a run offered a rate, so that its rate is what was asked for."""
    return "--total-rate" in _flags(row.get("command", ""))


def _flags(command: str) -> dict[str, str]:
    """Return the program and the flags of a command.

    >>> _flags("python -m megaphone word-count --domain 10 --rate max")
    {'--domain': '10', '--rate': 'max', 'program': 'word-count'}
    """
    words = shlex.split(command)
    after = words[words.index("megaphone") + 1 :] if "megaphone" in words else []
    pairs = zip(words, words[1:], strict=False)
    flags = {name: value for name, value in pairs if name.startswith("-") and name != "-m"}
    return {**flags, **({"program": after[0]} if after else {})}
