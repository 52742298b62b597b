"""Numbers with their units, for people; machines get plain integers."""

from __future__ import annotations

_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_TIME_UNITS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"))


def format_bytes(size_bytes: int) -> str:
    """Return a size in the largest binary unit that keeps it at 1 or more.

    >>> format_bytes(0), format_bytes(1536), format_bytes(64 << 20)
    ('0 B', '1.5 KiB', '64.0 MiB')
    """
    size = float(size_bytes)
    for unit in _BYTE_UNITS:
        if abs(size) < 1024 or unit == _BYTE_UNITS[-1]:
            digits = 0 if unit == "B" or abs(size) >= 100 else 1
            return f"{size:,.{digits}f} {unit}"
        size /= 1024
    raise AssertionError  # pragma: no cover  the last unit always returns


def format_duration(duration_ns: int) -> str:
    """Return a duration with three digits that count.

    >>> format_duration(0), format_duration(999), format_duration(1_250_000), format_duration(61_000_000_000)
    ('0 ns', '999 ns', '1.25 ms', '61.0 s')
    """
    for unit_ns, unit in _TIME_UNITS:
        if abs(duration_ns) >= unit_ns:
            value = duration_ns / unit_ns
            digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
            return f"{value:,.{digits}f} {unit}"
    return f"{duration_ns} ns"


def format_count(count: float) -> str:
    """Return a count with thousands marked, rounded to a whole number.

    >>> format_count(1234567.8)
    '1,234,568'
    """
    return f"{count:,.0f}"
