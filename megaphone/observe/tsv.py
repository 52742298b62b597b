"""A report as the original prints it: one record per line, fields between tabs, the first field its kind.

Scripts that read the original's output read this too.  Two differences in substance: ``latency_ccdf`` covers what was
due after the warm-up, on all workers, and not [2 s, duration - 2 s) of worker 0; ``migration`` may say 0 wire elements,
because a bin that is handed over is not serialised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from megaphone.observe.histogram import Histogram
    from megaphone.observe.report import Report


BACKEND_NAMES = {
    "hashmap": "HashMap",
    "hashmapnative": "HashMapNative",
    "vec": "Vector",
    "vecnative": "VectorNative",
}


def render(report: Report) -> str:
    """Return the lines, each with its newline."""
    return "".join(f"{line}\n" for line in _lines(report))


def _lines(report: Report) -> Iterator[str]:
    """Yield the lines in the order in which the original would come to print them."""
    trace = report.trace
    if report.backend is not None:
        yield _line("backend", BACKEND_NAMES.get(report.backend, report.backend))
    if report.bin_shift is not None:
        yield _line("bin_shift", report.bin_shift)
    if trace.max_number is not None:
        yield f"max_number: {trace.max_number}"
    for sample in trace.rss:
        yield _line("statm_RSS", *sample)
    for loaded in trace.loaded:
        yield _line("loading_done", *loaded)
    for time_ns in trace.control_times_ns:
        yield _line("control_time", time_ns)
    for move in trace.moves:
        yield _line("migration", *move)
    for done in trace.steps_done:
        yield _line("migration_done", *done)
    # Not the original's: a closed loop or a bare exchange has no latency, and its figures would be nowhere.
    yield _line("records", report.records)
    yield _line("seconds", report.seconds)
    yield _line("records_per_s", round(report.records_per_s))
    if report.ledger.copies_per_record is not None:
        yield _line("copies_per_record", report.ledger.copies_per_record)
    yield from _ccdf_lines("count_ccdf", trace.batch_records)
    yield from _ccdf_lines("latency_ccdf", report.latency)
    for row in report.timeline.rows() if report.timeline else ():
        yield _line("summary_timeline", *row)


def _ccdf_lines(kind: str, histogram: Histogram | None) -> Iterator[str]:
    """Yield value, fraction and count of each bucket; nothing without a histogram."""
    for value, fraction, count in histogram.ccdf() if histogram else ():
        # Never with an exponent: the original's readers split and parse plain decimals.
        yield _line(kind, value, np.format_float_positional(fraction, trim="-"), count)


def _line(kind: str, *fields: object) -> str:
    """Return one line without its end; a tab or a newline inside a field would break the reader, so it is a space."""
    return "\t".join(" ".join(str(part).split()) for part in (kind, *fields))
