"""A report for people: plain text, aligned, every number with its unit, at most 100 columns."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from megaphone.observe.ledger import DATA_PATH_CAUSES, TIMED_PARTS
from megaphone.observe.timeline import LatencySummary
from megaphone.observe.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from megaphone.observe.report import Report

WIDTH = 100
_INDENT = "  "
_TEXT_WIDTH_MIN = 6
_MIGRATIONS_SHOWN = 20
"""A fluid migration in a thousand parts would push everything else off the screen; JSON has them all."""


def render(report: Report) -> str:
    """Return the text, ending in a newline."""
    sections = [
        _heading(report),
        _run(report),
        *_tables(report),
        _latency(report),
        _migrations(report),
        _copies(report),
        _times(report),
        _memory(report),
        _checks(report),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> list[str]:
    """Return the rows under their header, in columns; the first ``text_columns`` begin left, numbers end right.

    Where a line would be wider than `WIDTH`, the last text column gives way: a name that is cut short still tells
    which one is meant, a number would lie.
    """
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    excess = len(_INDENT) + sum(widths) + 2 * (len(widths) - 1) - WIDTH
    if text_columns and excess > 0:
        widths[text_columns - 1] = max(_TEXT_WIDTH_MIN, widths[text_columns - 1] - excess)
    return [
        _INDENT
        + "  ".join(
            _shortened(cell, width).ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _folded(header: Sequence[str], rows: Sequence[Sequence[str]], name_columns: int, fold_at: int) -> list[str]:
    """Return a table, or where that is too wide two of them: the columns before ``fold_at``, and the rest."""
    whole = table(header, rows, text_columns=name_columns)
    if max(map(len, whole)) <= WIDTH:
        return whole
    lines: list[str] = []
    for columns in (slice(name_columns, fold_at), slice(fold_at, None)):
        parts = [[*row[:name_columns], *row[columns]] for row in (header, *rows)]
        lines += table(parts[0], parts[1:], text_columns=name_columns)
    return lines


def _shortened(text: str, width: int) -> str:
    """Return ``text``, its end replaced by dots where it is too long."""
    return text if len(text) <= width else text[: max(0, width - 3)] + "..."


def _facts(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return names and values in two columns; a long value goes on under itself."""
    name_width = max(len(name) for name, _ in pairs)
    lines = []
    for name, value in pairs:
        start = f"{_INDENT}{name.ljust(name_width)}  "
        lines += _wrapped(value or "-", start, " " * len(start))
    return lines


def _wrapped(text: str, first_indent: str, next_indent: str) -> list[str]:
    """Return ``text`` in lines of at most `WIDTH`; options stay whole, since ``--rate`` cut at a hyphen misleads."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first_indent, subsequent_indent=next_indent, break_on_hyphens=False
    )


def _heading(report: Report) -> list[str]:
    """Return the command and what it ran on."""
    machine = report.machine
    parts = [f"megaphone {report.version}"]
    if "cpu" in machine:
        parts.append(str(machine["cpu"]))
    if "cores_usable" in machine:
        parts.append(f"{machine['cores_usable']} of {machine.get('cores', '?')} cores")
    if "memory_bytes" in machine:
        parts.append(format_bytes(int(machine["memory_bytes"])))
    parts += [str(machine[name]) for name in ("kernel", "python") if name in machine]
    if "numpy" in machine:
        parts.append(f"numpy {machine['numpy']}")
    return [
        *_wrapped(report.command, "", _INDENT * 2),
        *_wrapped(", ".join(parts), _INDENT, _INDENT),
    ]


def _run(report: Report) -> list[str]:
    """Return what was asked for and how fast it went."""
    pairs = [("workers", str(report.workers))]
    if report.bin_shift is not None:
        pairs.append(("bins", f"{format_count(1 << report.bin_shift)} (bin shift {report.bin_shift})"))
    state = [f"{name} {value}" for name, value in (("backend", report.backend), ("hash", report.hash)) if value]
    if state:
        pairs.append(("state", ", ".join(state)))
    if report.migration is not None:
        pairs.append(("migration", report.migration + (f", by {report.transfer}" if report.transfer else "")))
    if report.rate_per_worker is None:
        pairs.append(("rate", "closed loop, as fast as it goes"))
    else:
        total = "" if report.rate_total is None else f", {format_count(report.rate_total)}/s in total"
        pairs.append(("rate", f"open loop, {format_count(report.rate_per_worker)}/s per worker{total}"))
    pairs += report.facts
    per_s = format_count(report.records_per_s)
    pairs.append(("records", f"{format_count(report.records)} in {report.seconds:,.2f} s: {per_s}/s"))
    return ["Run", *_facts(pairs)]


def _tables(report: Report) -> list[list[str]]:
    """Return what the workload adds."""
    return [[title, *table(header, rows)] for title, (header, rows) in report.tables.items()]


_LATENCY_HEADER = ("p50", "p90", "p99", "p99.9", "max", "samples")


def _latency_cells(summary: LatencySummary) -> list[str]:
    """Return the figures below `_LATENCY_HEADER`."""
    latencies = (summary.p50, summary.p90, summary.p99, summary.p999, summary.max)
    return [*map(format_duration, latencies), format_count(summary.samples)]


def _latency(report: Report) -> list[str]:
    """Return the distribution after the warm-up; a closed loop has none."""
    if report.latency is None:
        return []
    cells = _latency_cells(LatencySummary.of(report.latency))
    return [
        "Latency, from the intended send time to completion, without the warm-up",
        *table(_LATENCY_HEADER, [cells], text_columns=0),
    ]


def _migrations(report: Report) -> list[str]:
    """Return what each migration moved, and latency before, during and after it."""
    if not report.migrations:
        return []
    shown = report.migrations[:_MIGRATIONS_SHOWN]
    moves = [
        [
            str(number),
            migration.strategy,
            f"{migration.time_ns / 1e9:.2f} s",
            format_count(migration.steps),
            format_count(migration.bins),
            format_count(migration.keys),
            format_bytes(migration.bytes_moved),
            format_bytes(migration.bytes_copied),
            format_duration(migration.duration_ns),
            format_duration(migration.warming_ns),
            format_count(migration.minor_faults),
        ]
        for number, migration in enumerate(shown, 1)
    ]
    header = ("", "strategy", "at", "steps", "bins", "keys", "moved", "copied", "took", "warming", "faults")
    lines = ["Migrations", *_folded(header, moves, name_columns=2, fold_at=8)]
    if len(shown) < len(report.migrations):
        lines.append(f"{_INDENT}and {format_count(len(report.migrations) - len(shown))} more")
    around = [
        [f"{number} {part}", *_latency_cells(summary)]
        for number, migration in enumerate(shown, 1)
        if migration.latency is not None
        for part, summary in (
            ("before", migration.latency.before),
            ("during", migration.latency.during),
            ("after", migration.latency.after),
        )
        if summary is not None
    ]
    if around:
        lines += ["", "Latency around each migration, of what was due then"]
        lines += table(("", *_LATENCY_HEADER), around)
    return lines


def _copies(report: Report) -> list[str]:
    """Return the copy ledger: bytes by cause, allocations, and what made workers wait."""
    ledger = report.ledger
    lines = ["Copies"]
    copied = [(cause, size_bytes) for cause, size_bytes in ledger.bytes_copied.items() if size_bytes]
    if copied:
        on_path = set(map(str, DATA_PATH_CAUSES))
        lines += table(
            ("cause", "copied", "per byte of input"),
            [
                [
                    cause if cause in on_path else f"{cause} (apart)",
                    format_bytes(size_bytes),
                    f"{size_bytes / ledger.input_bytes:.3f}" if ledger.input_bytes else "-",
                ]
                for cause, size_bytes in copied
            ],
        )
    copies = ledger.copies_per_record
    fresh = f"{format_count(ledger.allocations_fresh)} fresh ({format_count(ledger.fresh_after_warmup)} after warm-up)"
    pairs = [
        ("copies per record", "nothing came in" if copies is None else f"{copies:.3f}"),
        ("allocations", f"{fresh}, {format_count(ledger.allocations_recycled)} recycled"),
        ("pinned at most", format_bytes(ledger.pinned_bytes_max)),
        (
            "waiting",
            f"{format_count(ledger.outbox)} outbox, {format_count(ledger.parks)} parks, "
            f"{format_count(ledger.wakes)} wakes",
        ),
        ("minor faults", format_count(ledger.minor_faults)),
    ]
    return lines + _facts(pairs)


def _times(report: Report) -> list[str]:
    """Return the time in copies and allocations, where it was measured."""
    nanoseconds = report.ledger.nanoseconds
    if nanoseconds is None:
        return []
    whole = report.workers * report.seconds * 1e9
    rows = [
        [part, what, f"{ns / 1e6:.1f} ms", f"{100 * ns / whole:.1f} %" if whole else "-"]
        for part, what in TIMED_PARTS.items()
        if (ns := nanoseconds[part])
    ]
    return ["Time in copies and allocations", *table(("part", "what", "time", "of all workers"), rows, 2)]


def _memory(report: Report) -> list[str]:
    """Return what the run occupied."""
    memory = report.memory
    return [
        "Memory",
        *_facts(
            [
                ("all processes at most", f"{format_bytes(memory.pss_bytes_max)} (PSS)"),
                (
                    "data region",
                    f"{format_bytes(memory.committed_bytes)} committed of {format_bytes(memory.region_bytes)}",
                ),
                ("in huge pages", format_bytes(memory.huge_bytes)),
            ]
        ),
    ]


def _checks(report: Report) -> list[str]:
    """Return the checksums by which two runs can be compared."""
    checksums = (("outputs", report.checksum_outputs), ("state", report.checksum_state))
    pairs = [(name, f"{checksum:016x}") for name, checksum in checksums if checksum is not None]
    return ["Checksums", *_facts(pairs)] if pairs else []
