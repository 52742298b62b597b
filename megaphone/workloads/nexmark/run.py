"""A NEXMark run: the events of an auction house through one query or several, while their state moves.

::

    person --+--> q3-flex --> sink      Each query has operators of its own; they share the inputs, the control, and the
    auction -+--> q5      --> sink      probe, which is beyond a time when every query has answered all of it.
    bid -----+--> ...
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from megaphone.dataflow.execute import execute
from megaphone.observe.report import format_checksum
from megaphone.observe.units import format_count, format_duration
from megaphone.workloads.driver import Measured, Warmer
from megaphone.workloads.nexmark.files import Table, WholeFiles, write_tables
from megaphone.workloads.nexmark.queries import Query, find, inputs_of
from megaphone.workloads.nexmark.sink import AllDone, QuerySink, joined
from megaphone.workloads.nexmark.source import EventDriver, EventSource, make_generator
from megaphone.workloads.nexmark.style import Streams, Style
from megaphone.workloads.progress_line import ProgressLine
from megaphone.workloads.word_count import first_owner, measured_report

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from megaphone.dataflow.execute import Result
    from megaphone.dataflow.graph import Graph
    from megaphone.dataflow.operators.input import Input
    from megaphone.dataflow.supervisor import Running
    from megaphone.dataflow.worker import Worker
    from megaphone.migration.operators.control import Control
    from megaphone.migration.plan import Plan
    from megaphone.observe.report import Report
    from megaphone.workloads.nexmark.settings import NexmarkSettings

LEAD_TICKS: Final = 2
"""Control is that far ahead, so that workers whose ticks differ by one need not wait for it."""
PER_EPOCH: Final = {"person": 1, "auction": 3, "bid": 46}
"""Events of each kind among fifty."""


class Handles(NamedTuple):
    """What build gives to drive."""

    inputs: dict[str, Input]
    control: Control | None
    sinks: dict[str, QuerySink]
    moving: list[Any]  # the operators whose bins may move


def build(settings: NexmarkSettings, graph: Graph) -> Handles:
    """Make the dataflow of a run."""
    queries = [find(name) for name in settings.query_names]
    inputs: dict[str, Input] = {}
    streams = {}
    for name, columns in inputs_of(queries).items():
        inputs[name], streams[name] = graph.input(name, columns)
    control = None
    if settings.migrates:
        control = graph.control(next(iter(inputs.values())), lead=LEAD_TICKS * settings.tick)
    events = Streams(streams, settings)
    sinks: dict[str, QuerySink] = {}
    moving: list[Any] = []
    for query in queries:
        before = len(graph.operators)
        rows = query.build(events, style_of(query, settings, control))
        if query.flex:
            moving += [operator for operator in graph.operators[before:] if hasattr(operator, "keyed")]
        sinks[query.name] = QuerySink(rows, f"{query.name}.rows", keep=settings.output_path is not None)
    return Handles(inputs, control, sinks, moving)


def style_of(query: Query, settings: NexmarkSettings, control: Control | None) -> Style:
    """Return how a query of a run keeps its state."""
    if not query.flex:
        return Style(query.name, bin_shift=settings.bin_shift)
    return Style(
        query.name, flex=True, control=control, bin_shift=settings.bin_shift, transfer=settings.transfer,
        initial=first_owner(settings),
    )  # fmt: skip


class Warmers:
    """Maps ahead of each migration the pages that come, operator by operator."""

    def __init__(self, worker: Worker, moving: Sequence[Any], plan: Plan) -> None:
        self._warmers = [Warmer(worker, operator.op, plan) for operator in moving]

    def step(self, now: int) -> None:
        """Map one piece for each operator if a migration is near."""
        for warmer in self._warmers:
            warmer.step(now)


def drive(settings: NexmarkSettings, worker: Worker, handles: Handles) -> Measured:
    """Send this worker's events, and bring home what was measured and the rows that were kept."""
    inputs, control, sinks, moving = handles
    source = EventSource(settings, worker.index, inputs)
    plan = settings.plan(settings.plan_length) if control is not None else None
    warm = plan is not None and settings.transfer == "handover"
    driver = EventDriver(
        worker, source, AllDone(list(sinks.values())),
        rate=settings.offered_per_worker, duration_ns=settings.duration_ns, plan=plan, control=control,
        gap_ns=settings.gap_ns, first_time=0, warm_at=settings.plan_length // 10,
        warmer=Warmers(worker, moving, plan) if warm and plan is not None else None,
    )  # fmt: skip
    measured = driver.run()
    measured.extra = {
        "rows_in": source.rows,
        "rows_out": {name: sink.records for name, sink in sinks.items()},
        "checksum": {name: sink.checksum for name, sink in sinks.items()},
        "rows": {name: sink.rows() for name, sink in sinks.items()} if settings.output_path is not None else {},
    }
    return measured


# -- the report and the files ------------------------------------------------------------------------------------------


def run_nexmark(settings: NexmarkSettings) -> Report:
    """Run queries, write their rows if that is asked for, and report the run.

    Raises:
        UsageError: the settings cannot be run, or the rows cannot be written.
    """
    settings.check()
    queries = [find(name) for name in settings.query_names]
    with ProgressLine(_rows_expected(settings, queries), "rows") as line:
        result = execute(
            partial(build, settings), workers=settings.workers, drive=partial(drive, settings),
            memory=settings.memory_bytes, measure_memory=True, on_tick=partial(_show_rows, line),
        )  # fmt: skip
    if settings.output_path is not None:
        parts: Sequence[Measured] = result.returned
        rows = {
            query.name: joined([part.extra["rows"][query.name] for part in parts], dict(query.columns))
            for query in queries
        }
        write_rows(settings.output_path, settings.output_format, queries, rows)
    return _report(settings, queries, result)


def _rows_expected(settings: NexmarkSettings, queries: Sequence[Query]) -> int | None:
    """Return how many rows the inputs will take; None in a closed loop by the clock."""
    events = settings.events
    if events is None and settings.rate_total is not None:
        events = round(settings.rate_total * (settings.duration_ns or 0) / 1e9)
    share = sum(PER_EPOCH[name] for name in inputs_of(queries))
    return None if events is None else events * share // sum(PER_EPOCH.values())


def _show_rows(line: ProgressLine, running: Running) -> None:
    line.update(sum(counters["input_records"] for counters in running.counters()))


def write_rows(folder: str, file_format: str, queries: Sequence[Query], rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a file for each query, in the order of time and then of the other columns; all of them, or none.

    Raises:
        UsageError: they cannot be written.
    """
    tables = {}
    for query in queries:
        columns = rows[query.name]
        # lexsort's last key is the first that counts.
        order = np.lexsort([columns[name] for name in reversed(list(query.columns))])
        tables[query.name] = Table(
            query.columns, len(order), partial(_one_piece, columns, order), {n: list(t) for n, t in query.texts.items()}
        )  # fmt: skip
    with WholeFiles(folder) as files:
        write_tables(files, tables, file_format)


def _one_piece(columns: Mapping[str, Any], order: Any, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    yield {name: columns[name][order] for name in wanted}


def _report(settings: NexmarkSettings, queries: Sequence[Query], result: Result) -> Report:
    parts: Sequence[Measured] = result.returned
    report = measured_report("nexmark", settings, result, settings.plan_length)
    rows_in = {name: sum(part.extra["rows_in"][name] for part in parts) for name in parts[0].extra["rows_in"]}
    figures = []
    for query in queries:
        rows_out = sum(part.extra["rows_out"][query.name] for part in parts)
        checksum = sum(part.extra["checksum"][query.name] for part in parts) % 2**64
        taken = sum(rows_in[stream] for stream in query.reads)
        figures.append({"query": query.name, "rows_in": taken, "rows_out": rows_out, "checksum": checksum})
    in_flight = make_generator(settings, 0).in_flight  # as the generator has it: nobody may have asked for a number
    source = {
        "generator": settings.generator, "seed": settings.seed, "events": report.records,
        "event_rate": settings.event_rate, "in_flight": in_flight, "time_dilation": settings.time_dilation,
        "tick_ns": settings.tick,
    }  # fmt: skip
    windows = settings.windows
    listed = [[str(f["query"]), *(format_count(int(str(f[n]))) for n in ("rows_in", "rows_out")),
               str(format_checksum(int(str(f["checksum"]))))] for f in figures]  # fmt: skip
    return replace(
        report,
        bin_shift=settings.bin_shift if settings.migrates else None,
        transfer=settings.transfer if settings.migrates else None,
        migration=settings.migration if settings.migrates else None,
        workload={
            **source,
            "windows_ns": {n: getattr(windows, n) for n in ("q5_size", "q5_slide", "q7", "q8")},
            "queries": [{**f, "checksum": format_checksum(int(str(f["checksum"])))} for f in figures],
        },
        facts=[
            ("events", f"{settings.generator} generator, seed {settings.seed}, {format_count(in_flight)} in flight"),
            ("event time", f"{settings.time_dilation} times the clock, in ticks of {format_duration(settings.tick)}"),
        ],
        tables={"Queries": (("query", "rows in", "rows out", "checksum"), listed)},
    )
